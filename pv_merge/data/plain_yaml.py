"""The loader of YAML: each key once, no tags, plain values only."""

from __future__ import annotations

import re
from typing import Any

import yaml

from pv_merge.data.value_words import shown

_MERGE = "tag:yaml.org,2002:merge"


def _refuse_chained_merge(node: Any) -> None:
    """Refuse ``<<`` of a mapping that has ``<<`` itself: PyYAML gives it the wrong values."""
    for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if isinstance(part, yaml.MappingNode) and any(key.tag == _MERGE for key, _ in part.value):
            raise yaml.MarkedYAMLError(
                problem="<< of a mapping that has << itself is not taken; write its keys out",
                problem_mark=part.start_mark,
            )


class PlainLoader(yaml.SafeLoader):
    """Plain YAML: each key once, no tags but ``!!str``, no dates, and ``5e-7`` is a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [rule for rule in rules if not rule[0].endswith(":timestamp")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse tags but ``!!str``."""
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise yaml.MarkedYAMLError(
                problem=f"the tag {tag} is not taken here; write plain values",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuse a key that stands there twice."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, value in node.value:
            if key.tag == _MERGE:
                _refuse_chained_merge(value)
            elif isinstance(key, yaml.ScalarNode):
                name = self.construct_object(key)
                if name in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {shown(name)} stands there twice",
                        problem_mark=key.start_mark,
                    )
                seen.add(name)
        return node


PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)

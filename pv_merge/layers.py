"""Which layer a weight belongs to, by its name."""

from __future__ import annotations

import re

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """Return the number of the layer that the weight ``name`` is in, or None outside of all."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None

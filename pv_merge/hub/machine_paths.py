"""Folders of this machine in what is published: shown by their last name, or rewritten."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from pv_merge.artifacts.manifest import public_path
from pv_merge.data.documents import read_json
from pv_merge.errors import PvMergeError

_ABSOLUTE = re.compile(r"(?:/[^/\s]|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\\w|file://)")
_IN_TEXT = re.compile(
    r"(?<![\w.:/~<\\-])(?:~?/(?:[^\s/'\"`,;:|<>(){}\[\]=]+/)+[^\s/'\"`,;:|<>(){}\[\]=]*"
    r"|[A-Za-z]:\\[^\s'\"]+)"
)
_HOME = re.compile(rb"(?<![\w.:/-])/(?:home|Users|root|mnt|tmp|var|scratch)/[\w.+/-]+")
_OTHERS = ("tokenizer", "vocab", "merges", "added_tokens", "special_tokens", "chat_template")
"""Starts of files whose words may look like paths."""
_TEXTS = ("answers", "prompts", "prompt", "chat_template")
"""Keys of what people or models wrote, which is left as it is."""
LIMIT = 4 << 20


def is_absolute(text: str) -> bool:
    """Return whether a text is a path that says where something lies on a machine."""
    return _ABSOLUTE.match(text) is not None and "\n" not in text


def shown_path(path: object) -> str:
    """Return a path as a card shows it: relative ones and names as they are, others by name.

    ``BASE+LORA`` is two paths.
    """
    text = str(path)
    parts = text.split("+")
    if len(parts) > 1 and any(is_absolute(part) for part in parts[1:]):
        return "+".join(shown_path(part) for part in parts)
    if not is_absolute(text):
        return text
    return Path(text).name if text.startswith("file:") else public_path(text)


def shown_command(command: str) -> str:
    """Return a command without the folders of this machine."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote is missing
        return _IN_TEXT.sub(lambda found: shown_path(found[0]), command)
    return shlex.join("=".join(shown_path(part) for part in word.split("=")) for word in words)


def shown_text(text: str) -> str:
    """Return a recipe or a comment without the folders of this machine."""
    for place in sorted(set(_scalars(text)), key=len, reverse=True):
        text = text.replace(place, shown_path(place))
    return _IN_TEXT.sub(lambda found: shown_path(found[0]), text)


def rewritten(path: Path) -> bytes | None:
    """Return a JSON or YAML file without the folders of this machine, or None if it names none."""
    if path.name.startswith(_OTHERS) or path.stat().st_size > LIMIT:
        return None
    try:
        if path.suffix in (".yml", ".yaml"):
            text = path.read_text(encoding="utf-8")
            changed = shown_text(text)
            return None if changed == text else changed.encode()
        if path.suffix == ".json":
            data = read_json(path)
            changed = _shown(data)
            if changed != data:
                return (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()
    except (ValueError, PvMergeError):  # not JSON, not text: the guards look at the bytes
        return None
    return None


def machine_path_in(name: str, content: bytes) -> str | None:
    """Return where a text names a folder of this machine, without the folder itself."""
    if Path(name).name.startswith(_OTHERS) or b"\0" in content[:8192]:
        return None
    here = [str(place).encode() for place in (Path.home(), Path.cwd()) if len(place.parts) > 2]
    found = _HOME.search(content)
    start = found.start() if found else next((p for h in here if (p := content.find(h)) >= 0), -1)
    if start < 0:
        return None
    line = content.count(b"\n", 0, start) + 1
    return f"line {line} names a folder of this machine"


def _shown(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _shown(item, str(name)) for name, item in value.items()}
    if key in _TEXTS:
        return value
    if isinstance(value, list):
        return [_shown(item, key) for item in value]
    if isinstance(value, str) and key == "command":
        return shown_command(value)
    return shown_path(value) if isinstance(value, str) else value


def _scalars(text: str) -> list[str]:
    """Return the absolute paths among a YAML document's values."""
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        events = []
        while loader.check_event():
            events.append(loader.get_event())
    except yaml.YAMLError:
        return []
    values = [event.value for event in events if isinstance(event, yaml.ScalarEvent)]
    return [value for value in values if shown_path(value) != value]

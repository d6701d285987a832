"""What a result was made of: versions, command, and hashes of models, by which a file is known."""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pv_merge.artifacts.reference import parse_reference
from pv_merge.data.documents import parse_yaml

PACKAGES = ("torch", "transformers", "mergekit", "peft", "numpy")


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    from pv_merge.version import __version__

    found = {"pv_merge": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """Return the command as it was typed, without the path of the program."""
    import shlex

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def model_hash(name: str) -> str:
    """Return the hash of a local model's, adapter's or vector's weights; a Hub name as it is."""
    from pv_merge.artifacts.base_hash import weights_hash
    from pv_merge.artifacts.checkpoint import Checkpoint

    folder = Path(name)
    if not folder.is_dir():
        return name
    return weights_hash(Checkpoint(folder))


def recipe_subject(text: str, where: object = "recipe") -> dict[str, Any]:
    """Return what the models of a recipe (YAML) are: its content, and the hashes of all weights it names."""
    data = parse_yaml(text, where)
    names: set[str] = set()
    _model_names(data, names)
    return {
        "recipe": hashlib.sha256(repr(data).encode()).hexdigest(),
        "weights": {name: model_hash(name) for name in sorted(names)},
    }


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _model_names(data: Any, found: set[str]) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("model", "base_model", "base"):
                name = value.get("model") if isinstance(value, dict) else value
                if isinstance(name, str):
                    found.update(parse_reference(name).parts)
            else:
                _model_names(value, found)
    elif isinstance(data, list):
        for value in data:
            _model_names(value, found)

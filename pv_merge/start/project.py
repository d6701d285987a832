"""The files of a new preference: a training config, a merge recipe and a file for the pairs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pv_merge.artifacts.folders import new_folder
from pv_merge.data.documents import read_yaml
from pv_merge.errors import PvMergeError
from pv_merge.start.files import starter_folder

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
"""What every command takes as the name of a preference, a client of a server among them."""


def start_project(name: str, base: str) -> list[str]:
    """Write the folder ``./NAME`` and return the commands to run next, each after what it is for.

    The settings are those of the quickstart. Raises ``PvMergeError`` for a name that a recipe or
    a server could not carry, and where the folder already holds something.
    """
    if not NAME.fullmatch(name):
        raise PvMergeError(
            f"{name!r}: a preference is named in letters, digits, _ and -, a letter first"
        )
    place = f"./{name}"
    training = _read("train.yml") | {
        "base_model": base,
        "preference": name,
        "dataset": {"path": f"{place}/pairs.jsonl", "format": "pairs"},
        "output_dir": f"{place}/policies",
    }
    del training["eval_dataset"]
    merge = _read("polite.yml") | {
        "base_model": base,
        "models": [
            {
                "model": f"{place}/vector",
                "parameters": {"preference": name, "polarity": "vector", "eta": 1.0},
            }
        ],
    }
    steps = _steps(name, place)
    with new_folder(Path(name)) as work:
        head = (
            "# Pairs are lines of JSON: prompt, chosen (what is wanted), rejected (its opposite)."
        )
        _write(work / "train.yml", [f"# {steps[0][0]}", head], training)
        note = (
            "# Another eta, another strength: 0 gives back the base, a negative one the opposite."
        )
        _write(work / "merge.yml", [f"# {steps[-1][0]}", note], merge)
        (work / "pairs.jsonl").touch()
    return [line for command, why in steps for line in (f"# {why}", f"$ {command}")]


def _steps(name: str, place: str) -> list[tuple[str, str]]:
    policies = f"{place}/policies"
    extract = f"pv-merge extract {policies}/positive {policies}/negative -o {place}/vector"
    return [
        (f"pv-train dpo {name}/train.yml", "both policies; --dry-run says what it costs"),
        (extract, "their difference"),
        (f"pv-merge chat {name}/merge.yml", "base and mix side by side"),
        (f"pv-merge run {name}/merge.yml {place}/merged", "a model on disk"),
    ]


def _read(name: str) -> dict[str, Any]:
    return read_yaml(starter_folder() / name)


def _write(path: Path, comments: list[str], data: dict[str, Any]) -> None:
    # None: a mapping without further mappings on one line, as the other recipes have it.
    body = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120)
    path.write_text("".join(f"{line}\n" for line in comments) + body, encoding="utf-8")

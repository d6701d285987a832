"""Export for llama.cpp: one GGUF adapter for each preference, whose scale at run time is its η."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pv_merge.errors import raise_all
from pv_merge.export import (
    EXPORT_MANIFEST,
    Advance,
    ExportOptions,
    Found,
    manifest_of,
    measures,
    open_sources,
    refuse_rank,
)
from pv_merge.folders import new_folder, refuse_existing, write_json
from pv_merge.gguf_adapter import gguf_family, write_gguf
from pv_merge.mix import alone, low_rank_mix, nonlinear_controls
from pv_merge.recipe import Recipe


def export_gguf(
    path: str | Path,
    output: str | Path,
    options: ExportOptions | None = None,
    *,
    found: Found = lambda findings: None,
    advance: Advance = lambda done, total: None,
) -> dict[str, Any]:
    """Write one GGUF adapter for each preference of the recipe; return the manifest.

    No eta is in them: it is what llama.cpp calls the adapter's scale. Raises ``PvMergeError``
    before anything is written where llama.cpp could not hold the vectors.
    """
    options = options or ExportOptions()
    refuse_existing(Path(output))
    sources = open_sources(path, options, found)
    recipe = sources.recipe
    config = sources.base.config
    gguf_family(config, recipe.base_model)
    raise_all(nonlinear_controls(recipe) + _scale_problems(recipe) + _name_problems(recipe))
    manifest = manifest_of(sources, "gguf", options)
    count = len(recipe.preferences)
    with new_folder(Path(output)) as work:
        for number, name in enumerate(recipe.preferences):

            def moved(done: int, total: int, before: int = number) -> None:
                advance(before * total + done, count * total)

            mix = low_rank_mix(sources, alone(recipe, name), options.rank, moved)
            refuse_rank(mix, name, options)
            file = f"{name}.gguf"
            write_gguf(work / file, name, mix.changes, config, options.dtype)
            manifest["preferences"][name] |= {"file": file, **measures(mix)}
        write_json(work / EXPORT_MANIFEST, manifest)
    return manifest


def llama_commands(manifest: Mapping[str, Any], folder: str) -> list[str]:
    """Return the server's command line with the recipe's etas, and a request with others."""
    said = manifest["preferences"].values()
    scaled = ",".join(f"{Path(folder) / item['file']}:{item['eta']:g}" for item in said)
    lora = [{"id": number, "scale": item["eta"]} for number, item in enumerate(said)]
    request = {"prompt": "…", "lora": lora}
    return [
        f"llama-server -m BASE.gguf --lora-scaled {scaled}",
        f"curl http://localhost:8080/completion -d '{json.dumps(request, ensure_ascii=False)}'",
    ]


def _scale_problems(recipe: Recipe) -> list[str]:
    return [
        f"{recipe.path}: eta of {name} differs between weights, and llama.cpp has one scale for a whole "
        "adapter; use --to peft"
        for name, eta in recipe.etas.items()
        if eta is None
    ]


def _name_problems(recipe: Recipe) -> list[str]:
    return [
        f"{recipe.path}: preference {name!r} cannot be the name of a file for llama.cpp; use letters, "
        "digits, - and _"
        for name in recipe.preferences
        if not re.fullmatch(r"\w[\w.-]*", name)
    ]

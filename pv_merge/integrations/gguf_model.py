"""Export for laptops: the whole merged model as one GGUF file, and a Modelfile for Ollama."""

from __future__ import annotations

import shutil
from pathlib import Path

from pv_merge.integrations.export import Advance, ExportOptions, ExportTarget, Manifest
from pv_merge.integrations.gguf_convert import convert, require_family
from pv_merge.integrations.gguf_quantize import quantize, require_quantizer
from pv_merge.merging.run import run
from pv_merge.recipe.opened import OpenRecipe


def _check(opened: OpenRecipe, options: ExportOptions) -> None:
    require_family(opened.base.config, opened.recipe.base_model)
    if options.quantize is not None:
        require_quantizer(options.quantize)


def _write(
    opened: OpenRecipe, work: Path, options: ExportOptions, manifest: Manifest, advance: Advance
) -> None:
    merged, whole = work / "merged", work / "model.gguf"
    run(opened, merged, report=False, advance=advance)
    convert(merged, whole)
    shutil.rmtree(merged)
    file = whole
    if options.quantize is not None:
        file = work / f"model-{options.quantize}.gguf"
        quantize(whole, file, options.quantize)
        whole.unlink()
    manifest |= {"file": file.name, "quantize": options.quantize}
    write_modelfile(work, f"FROM ./{file.name}")


def write_modelfile(work: Path, *lines: str) -> None:
    """Write what ``ollama create`` reads; Ollama takes the chat template from the GGUF itself."""
    (work / "Modelfile").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _usage(manifest: Manifest, folder: str) -> list[str]:
    file = f"{folder}/{manifest['file']}"
    return [
        f"one model in {file}",
        f"  llama-server -m {file}",
        f"  ollama create mine -f {folder}/Modelfile && ollama run mine",
        f"  lms import {file}    # LM Studio",
    ]


GGUF_MODEL = ExportTarget(
    "the whole merged model, for llama.cpp, Ollama and LM Studio",
    _write,
    _check,
    _usage,
    whole=True,
    takes=frozenset({"quantize"}),
)

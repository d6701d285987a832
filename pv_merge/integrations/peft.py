"""Export for PEFT and vLLM: the whole mix as one LoRA adapter, its eta baked in."""

from __future__ import annotations

from pathlib import Path

from pv_merge.artifacts.adapter_folder import write_low_rank
from pv_merge.artifacts.reference import without_revision
from pv_merge.integrations.export import (
    Advance,
    ExportOptions,
    ExportTarget,
    Manifest,
    measures,
    rank_text,
    refuse_rank,
)
from pv_merge.integrations.vllm.ranks import VLLM_RANKS, vllm_rank
from pv_merge.merging.mix import low_rank_mix
from pv_merge.recipe.opened import OpenRecipe


def _write(
    opened: OpenRecipe, work: Path, options: ExportOptions, manifest: Manifest, advance: Advance
) -> None:
    mix = low_rank_mix(opened, rank=options.rank, advance=advance)
    refuse_rank(mix, str(opened.recipe.path), options)
    base = without_revision(opened.recipe.base_model)
    write_low_rank(work, mix.changes, opened.base, base, options.dtype)
    manifest |= measures(mix)


def _usage(manifest: Manifest, folder: str) -> list[str]:
    lines = [f"one adapter in {folder}, {rank_text(manifest)}"]
    limit = vllm_rank(manifest["rank"])
    if limit is not None:
        base = manifest["base"]["path"]
        lines.append(
            f"  vllm serve {base} --enable-lora --max-lora-rank {limit} --lora-modules mix={folder}"
        )
    return lines


PEFT = ExportTarget(
    "one adapter that is the whole mix", _write, usage=_usage, max_rank=VLLM_RANKS[-1]
)

"""The loss report of a merge that is already on disk, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pv_merge.arithmetic.blocks import block_steps, needs_whole_tensors, whole_tensor_steps
from pv_merge.arithmetic.kernel_shape import BLOCK
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.folders import write_json
from pv_merge.errors import PvMergeError, Topic
from pv_merge.merging.loss import REPORT_NAME, LossReport, MergeReport
from pv_merge.merging.products import products
from pv_merge.recipe.opening import open_recipe
from pv_merge.version import __version__


def report(
    path: str | Path,
    folder: str | Path,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> MergeReport:
    """Compare the model in ``folder`` with base and recipe; write and return the loss report.

    ``advance`` is told (weights done, weights in all). Raises ``PvMergeError`` for a model that is
    no merge of the recipe.

    >>> import pv_merge
    >>> found = pv_merge.merge("recipe.yml", "merged-for-report", report=False)
    >>> round(pv_merge.report("recipe.yml", "merged-for-report")["preferences"]["polite"]["share"], 3)
    1.0
    """
    opened, merged = open_recipe(path), Checkpoint(folder)
    names = [name for name in opened.base.names if opened.base.infos[name].floating]
    missing = [name for name in names if name not in merged]
    if missing:
        raise PvMergeError(f"{folder}: lacks {missing[0]}; is it a merge of {path}?")
    losses = LossReport(opened.recipe.etas)
    for done, name in enumerate(names, start=1):
        base, out = opened.base.tensor(name).reshape(-1), merged.tensor(name).reshape(-1)
        if base.shape != out.shape:
            raise PvMergeError(
                f"{folder}: {name} has another shape than the base's; is it a merge of {path}?"
            )
        for where, tensor in ((opened.recipe.base_model, base), (folder, out)):
            if not bool(torch.isfinite(tensor).all()):
                raise PvMergeError(
                    f"{where}: {name} holds values that are not finite, so nothing can be said of "
                    "what arrived",
                    Topic.FINITE,
                )
        active = [item.flat() for item in opened.preferences(name) if item.eta != 0]
        if needs_whole_tensors(active, opened.controls):
            active = whole_tensor_steps(base, active, opened.controls)
        for start in range(0, base.numel(), BLOCK):
            window = slice(start, start + BLOCK)
            part = [item.window(window) for item in active]
            steps = block_steps(base[window], part)
            moved = {item.name: step for item, step in zip(part, steps, strict=True)}
            losses.collect(
                name, start, products(list(losses.etas), base[window], moved, out[window])
            )
        advance(done, len(names))
    result = losses.to_dict()
    write_json(Path(folder) / REPORT_NAME, {**result, "pv_merge": __version__})
    return result

"""``pv-merge run``: a merge whose weights equal stock mergekit's, at the speed of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.output_files import OutputFiles
from pv_merge.errors import PvMergeError, Topic, raise_all
from pv_merge.merging.layout import Layout
from pv_merge.merging.loss import REPORT_NAME, LossReport, MergeReport
from pv_merge.merging.stream import Pass, Target
from pv_merge.recipe.checks.roles import protected_problems
from pv_merge.recipe.opened import OpenRecipe
from pv_merge.recipe.opening import Found, open_recipe
from pv_merge.version import __version__

Advance = Callable[[int, int], None]
Finish = Callable[[Path, str], None]
"""Told a finished model's folder, which is still hidden, and the name that it will have."""


def run(
    recipe: str | Path | OpenRecipe,
    output: str | Path,
    *,
    report: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    found: Found = lambda findings: None,
    advance: Advance = lambda done, total: None,
    finish: Finish = lambda folder, name: None,
) -> MergeReport:
    """Merge a recipe (its path, or already open) into the new folder ``output`` and return the loss report.

    ``found`` is told the check's warnings and notes, ``advance`` (elements done, elements in all);
    ``finish`` may add files to the model before it appears, such as its card.
    Raises ``PvMergeError`` with every error of the check, before anything is read in full; the
    folder appears whole, by rename, or not at all.
    """
    target = Path(output)
    refuse_existing(target)
    refuse_absent(device)
    opened = _open(recipe, found)
    with new_folder(target) as work:
        (result,) = _stream(opened, [({}, work, target.name)], report, threads, device, advance)
        finish(work, target.name)
    return result


def run_grid(
    recipe: str | Path | OpenRecipe,
    output: str | Path,
    points: Sequence[Mapping[str, float | None]],
    *,
    report: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    found: Found = lambda findings: None,
    advance: Advance = lambda done, total: None,
    finish: Finish = lambda folder, name: None,
) -> dict[str, MergeReport]:
    """Merge the recipe for every point of etas in one read; return the reports by folder name.

    Each point becomes a model in a folder of its own under the new folder ``output``, called after
    its etas, such as ``helpful=0.5,polite=-1``, with the same bytes as a run of its own.
    """
    target = Path(output)
    refuse_existing(target)
    refuse_absent(device)
    opened = _open(recipe, found)
    for point in points:
        opened.known({label: value or 0.0 for label, value in point.items()})
    negative = {label for point in points for label, value in point.items() if (value or 0) < 0}
    problems = protected_problems(opened.recipe, opened.inputs, sorted(negative))
    raise_all([f"{opened.recipe.path}: {line}" for line in problems], Topic.PROTECTED)
    with new_folder(target) as work:
        places = []
        for point in points:
            etas = {label: value for label, value in point.items() if value is not None}
            name = ",".join(f"{label}={value:g}" for label, value in etas.items())
            (work / name).mkdir()
            places.append((etas, work / name, name))
        results = _stream(opened, places, report, threads, device, advance)
        for _, folder, name in places:
            finish(folder, name)
    return {name: result for (_, _, name), result in zip(places, results, strict=True)}


def refuse_absent(device: str) -> None:
    """Raise ``PvMergeError`` for a device that PyTorch does not have here."""
    if device == "cpu":
        return
    if device.partition(":")[0] != "cuda":
        raise PvMergeError(f"--device {device}: expected cpu, cuda or cuda:N")
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        line = str(error).strip().splitlines()[0]
        raise PvMergeError(
            f"--device {device}: PyTorch cannot use it here ({line}); leave --device out for the CPU"
        ) from None


def _open(recipe: str | Path | OpenRecipe, found: Found) -> OpenRecipe:
    opened = recipe if isinstance(recipe, OpenRecipe) else open_recipe(recipe, found)
    for key in opened.recipe.other:
        raise PvMergeError(
            f"{opened.recipe.path}: {key} changes the tokenizer, which only mergekit-yaml does; use it for this recipe",
            Topic.MERGEKIT,
        )
    return opened


def _stream(
    opened: OpenRecipe,
    places: Sequence[tuple[dict[str, float], Path, str]],
    report: bool,
    threads: int | None,
    device: str,
    advance: Advance,
) -> list[MergeReport]:
    """Write one model for each place, (etas, folder, name), in one pass; return their reports."""
    layout = Layout(opened)
    done = 0

    def moved(elements: int) -> None:
        nonlocal done
        done += elements
        advance(done, layout.elements)

    targets: list[Target] = []
    try:
        for etas, folder, _ in places:
            losses = LossReport({**opened.recipe.etas, **etas}) if report else None
            targets.append(Target(etas, OutputFiles(folder, layout.tensors()), losses))
        engine = _engine(layout, targets, moved, threads, device)
        engine.run()
        opened.refuse_changed()
    finally:
        for target in targets:
            target.files.close()
    results: list[MergeReport] = []
    for target, (etas, folder, _) in zip(targets, places, strict=True):
        told = target.report
        result = told.to_dict() if isinstance(told, LossReport) else {}
        if engine.base_kept:
            result["base_kept"] = engine.base_kept
        results.append(result)
        companions(folder, opened, etas, result if report else {})
    return results


def _engine(
    layout: Layout,
    targets: Sequence[Target],
    advance: Callable[[int], None],
    threads: int | None,
    device: str,
) -> Pass:
    """Return the pass by fused kernels, or in torch where they cannot do it."""
    if device == "cpu" and not layout.opened.recipe.has_transforms:
        return Pass(layout, targets, advance, threads)
    from pv_merge.merging.torch_stream import TorchPass

    return TorchPass(layout, targets, advance, threads, device)


def companions(
    work: Path, opened: OpenRecipe, etas: Mapping[str, float], report: MergeReport
) -> None:
    """Write what belongs beside the weights: config, tokenizer, recipe, report."""
    recipe = opened.recipe
    text = recipe.text_with(etas)
    config = {**opened.base.config}
    dtype = recipe.out_dtype or recipe.round_to or recipe.dtype
    if dtype:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    write_json(work / "config.json", config)
    opened.base.copy_companions(work)
    (work / "mergekit_config.yml").write_text(text, encoding="utf-8")
    if report:
        write_json(work / REPORT_NAME, {**report, "pv_merge": __version__})

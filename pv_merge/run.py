"""``pv-merge run``: a merge whose weights equal stock mergekit's, at the speed of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pv_merge import __version__
from pv_merge.check import Finding, check, raise_errors
from pv_merge.errors import PvMergeError
from pv_merge.folders import new_folder, refuse_existing, write_json
from pv_merge.loss_report import REPORT_NAME, LossReport
from pv_merge.output import OutputFiles
from pv_merge.recipe import Recipe, read_recipe
from pv_merge.sources import Sources
from pv_merge.stream import Layout, Pass, Target


def run(
    path: str | Path,
    output: str | Path,
    *,
    report: bool = True,
    threads: int | None = None,
    found: Callable[[list[Finding]], None] = lambda findings: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Merge the recipe at ``path`` into the new folder ``output`` and return the loss report.

    ``found`` is told the check's warnings and notes, ``advance`` (elements done, elements in all).
    Raises ``PvMergeError`` with every error of the check, before anything is read in full; the
    folder appears whole, by rename, or not at all.
    """
    target = Path(output)
    refuse_existing(target)
    found(raise_errors(check(path)))
    recipe = read_recipe(path)
    if recipe.other:
        key = next(iter(recipe.other))
        raise PvMergeError(
            f"{path}: {key} changes the tokenizer, which only mergekit-yaml does; use it for this recipe"
        )
    sources = Sources(recipe)
    layout = Layout(sources)
    total = sum(place.elements for place in layout.places.values() if place.dtype.is_floating_point)
    done = 0

    def moved(elements: int) -> None:
        nonlocal done
        done += elements
        advance(done, total)

    losses = LossReport(recipe.etas) if report else None
    with new_folder(target) as work:
        files = OutputFiles(work, layout.tensors())
        try:
            Pass(layout, [Target({}, files, losses)], moved, threads).run()
        except OSError as error:
            raise PvMergeError(f"{output}: {error.strerror or error}; is the disk full?") from None
        finally:
            files.close()
        result = losses.to_dict() if losses else {}
        companions(work, recipe, sources, result)
    return result


def companions(work: Path, recipe: Recipe, sources: Sources, report: dict[str, Any]) -> None:
    """Write what belongs beside the weights: config, tokenizer, recipe, report, card."""
    config = {**sources.base.config}
    dtype = recipe.out_dtype or recipe.parameters.round_to or recipe.dtype
    if dtype:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    write_json(work / "config.json", config)
    sources.base.copy_companions(work)
    (work / "mergekit_config.yml").write_text(recipe.text, encoding="utf-8")
    if report:
        write_json(work / REPORT_NAME, {**report, "pv_merge": __version__})
    lines = [
        "---",
        "library_name: transformers",
        "tags: [mergekit, merge, preference-vector]",
        "---",
        f"# {work.name.strip('.').partition('.')[0]}",
        "",
        "A merge by [preference vectors](https://arxiv.org/abs/2504.20106), made with `pv-merge run`.",
        "",
        "```yaml",
        recipe.text.rstrip(),
        "```",
        "",
    ]
    (work / "README.md").write_text("\n".join(lines), encoding="utf-8")

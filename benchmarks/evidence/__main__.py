"""``python -m benchmarks.evidence [STAGE…]``: measures the paper's claims on SmolLM2-135M.

Each stage runs the product's own commands, goes on where it was stopped, and leaves figures in
``benchmarks/results/evidence/`` and pictures in ``docs/images/``. Text of the data stays in ``runs/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.evidence.place import BASE, Place


@dataclass(frozen=True)
class Stage:
    """One kind of evidence."""

    what: str
    measure: Callable[[Place, int], dict[str, Any]]
    limit: int
    """Items of each file unless ``--limit`` says otherwise."""
    minutes: float
    """About how long it takes on two idle cores."""


def stages() -> dict[str, Stage]:
    """Return every stage, in the order in which they run."""
    from benchmarks.evidence import grids, models, vectors, written

    return {
        "cosines": Stage("cosines and interference of the vectors (Tables 5, 15, 16)", vectors.cosines, 0, 1),
        "halves": Stage("positive halves, Reward Soup, safe-first, full vectors (Table 6)", models.halves, 120, 7),
        "extension": Stage("a third vector added to two (Table 4)", models.extension, 120, 1.5),
        "refusals": Stage("benign and unsafe prompts refused (Table 2)", models.refusals, 200, 8),
        "grid": Stage("5 × 5 grid of helpful and harmless (Figure 2)", grids.grid, 120, 13),
        "calibrate": Stage("pv-merge calibrate against the full grid (needs grid)", grids.calibrate, 120, 0.5),
        "knowledge": Stage("CommonsenseQA and perplexity for eta up to 4 (Figure 5)", models.knowledge, 300, 4),
        "timing": Stage("a sweep in memory against merges and loads", grids.timing, 2, 3),
        "written-grid": Stage("the grid by reward models, refusals and loops (Figure 2)", written.grid, 100, 180),
        "written-baselines": Stage("what a user would pick instead of vectors", written.baselines, 100, 240),
        "seeds": Stage("seeds of one preference; trains four pairs of policies (Tables 8, 17)", vectors.seeds, 40, 45),
    }  # fmt: skip


@click.command()
@click.argument("names", nargs=-1, metavar="[STAGE]…")
@click.option("--list", "show", is_flag=True, help="List the stages, and which are done.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Items of each file (of seeds: training steps), instead of each stage's own number.",
)
@click.option("--again", is_flag=True, help="Also redo what is done; the journals are still used.")
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evidence"), show_default=True)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results"), show_default=True)  # fmt: skip
@click.option("--images", type=click.Path(path_type=Path), default=Path("docs/images"), show_default=True)  # fmt: skip
def main(
    names: tuple[str, ...],
    show: bool,
    limit: int | None,
    again: bool,
    data: Path,
    work: Path,
    output: Path,
    images: Path,
) -> None:
    """Run the stages named, or all that are not done.

    safe-first-data writes the training data of benchmarks/policies/safe-first.yml and measures nothing;
    gpu trains and measures all of it by full fine-tuning, in 25 minutes of one large GPU.
    """
    place = Place(data, work, output, images)
    if names == ("gpu",):
        gpu(place)
        return
    known = stages()
    unknown = [name for name in names if name not in known and name != "safe-first-data"]
    if unknown:
        raise click.ClickException(f"no stage {unknown[0]!r}; there are {', '.join(known)}, safe-first-data")  # fmt: skip
    if show:
        for name, stage in known.items():
            state = (
                "done" if is_done(place, name, limit or stage.limit) else f"{stage.minutes:g} min"
            )
            click.echo(f"{name:10} {state:8} {stage.what}")
        return
    if "safe-first-data" in names:
        from benchmarks.evidence.inputs import safe_first_data

        safe_first_data(place)
        names = tuple(name for name in names if name != "safe-first-data")
        if not names:
            return
    for name in names or known:
        stage = known[name]
        size = limit or stage.limit
        if is_done(place, name, size) and not again:
            click.echo(f"{name}: done; --again redoes it")
            continue
        click.echo(f"== {name}: {stage.what}")
        place.write(name, {"limit": size, **stage.measure(place, size)})


def gpu(place: Place) -> None:
    """Run everything that one GPU is for; without one it would take days."""
    import torch

    from benchmarks.evidence.gpu import evidence
    from benchmarks.evidence.gpu_files import Scale

    if not torch.cuda.is_available():
        raise click.ClickException("gpu: PyTorch sees no GPU here")
    result = place.output / "evidence" / "gpu.json"
    evidence(BASE, place.data, place.work / "gpu", result, place.images, Scale())


def is_done(place: Place, name: str, limit: int) -> bool:
    """Return whether a stage's result is there, of this size and of every model there is."""
    from benchmarks.evidence.compare import available

    found = place.read(name)
    if found is None or found["limit"] != limit:
        return False
    late = name in ("halves", "refusals") and available(["safe-first"])
    return not late or "safe-first" in found["models"]


if __name__ == "__main__":
    main()

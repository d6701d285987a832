"""``python -m benchmarks``: the merging benchmark; writes benchmarks/results.json, a table, a plot."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import click

from benchmarks.adapters import adapters
from benchmarks.commands import command_line
from benchmarks.large import large
from benchmarks.merging import first_merge, grid, merges, start_up


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/work"),
    show_default=True,
    help="Folder for the inputs, which it makes itself.",
)
@click.option("--sizes", default="135M,0.86B", show_default=True, help="Of tiny, 135M, 0.86B, 3B.")
@click.option(
    "--preferences",
    default="1,2,4,8",
    show_default=True,
    help="Numbers of preferences, on the first size.",
)
@click.option(
    "--points", default="1,5,25", show_default=True, help="Sizes of grids, on the first size."
)
@click.option(
    "--large", "big", default="3B", show_default=True, help="Layouts of ours alone: 3B, 8B."
)
@click.option("--repeats", default=3, show_default=True, help="Counted runs of each command.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/results.json"),
    show_default=True,
)
def main(
    work: Path, sizes: str, preferences: str, points: str, big: str, repeats: int, output: Path
) -> None:
    """Run ours and its peers in turn, and write ratios of medians."""
    from trainers.manifest import versions

    work.mkdir(parents=True, exist_ok=True)
    names, counts = sizes.split(","), [int(count) for count in preferences.split(",")]
    results = {
        "command": command_line("benchmarks"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "system": platform.system(),
        },
        "versions": versions(),
        "merges": [merges(work, names[0], count, repeats) for count in counts],
    }
    results["merges"] += [merges(work, name, 2, repeats) for name in names[1:]]
    results["grids"] = [grid(work, names[0], int(count), repeats) for count in points.split(",")]
    results["adapters"] = [adapters(work, names[0], 2, repeats)]
    from benchmarks.live import switch

    results["live"] = switch()
    results["start_up"] = start_up(work, repeats)
    results["first_merge"] = first_merge(work, names[0], repeats)
    results["large"] = [large(work, name, repeats) for name in big.split(",") if name]
    output.write_text(json.dumps(results, indent=2) + "\n")
    from benchmarks.show import plot, table

    table(results)
    plot(results, Path("docs/images/speed.png"))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()

"""``python -m benchmarks.controls``: what each control adds to a 135M merge, as a ratio to none."""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks.commands import command_line, in_turn, script
from benchmarks.inputs import SIZES, write_model, write_recipe

CONTROLS = {
    "none": "",
    "rounding: nearest": "rounding: nearest",
    "round_to: bfloat16": "round_to: bfloat16",
    "density: 0.2": "density: 0.2",
    "max_relative_norm: 0.01": "max_relative_norm: 0.01",
    "sign_consensus: sum": "sign_consensus: sum",
    "sign_consensus: count": "sign_consensus: count",
    "interference: orthogonal": "interference: orthogonal",
}


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmarks/work"))
@click.option("--size", default="135M")
@click.option("--repeats", default=3)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/results/controls.json"),
)
def main(work: Path, size: str, repeats: int, output: Path) -> None:
    """Time ``pv-merge run --no-report`` with each control, in turn."""
    models = work / size
    write_model(models / "base", SIZES[size], 0)
    for number in range(2):
        for index, polarity in enumerate(("positive", "negative")):
            write_model(
                models / f"{polarity}{number}", SIZES[size], 1 + 2 * number + index, around=0
            )
    commands = {}
    for index, (name, said) in enumerate(CONTROLS.items()):
        path = write_recipe(work / f"control{index}.yml", models, 2, "preference_vector")
        if said:
            path.write_text(path.read_text() + f"parameters: {{{said}}}\n")
        commands[name] = [script("pv-merge"), "run", str(path), str(work / "out"), "--no-report"]
    timings = in_turn(commands, repeats, [work / "out"])
    plain = timings["none"].median
    ratios = {name: round(timing.median / plain, 3) for name, timing in timings.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: timing.to_dict() for name, timing in timings.items()}
    output.write_text(
        json.dumps(
            {
                "command": command_line("benchmarks.controls"),
                "size": size,
                "ratios": ratios,
                "rows": rows,
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()

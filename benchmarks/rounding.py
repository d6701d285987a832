"""What rounding costs a preference: margin kept, perplexity and CommonsenseQA, by η and by mode.

``python -m benchmarks.rounding RECIPE --pairs polite=FILE`` writes benchmarks/results/rounding.json.
Weights are rounded to bfloat16 and then run in float32, so that only the rounding shows.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

DATA = Path("../shared/data")
ETAS = (0.1, 0.25, 0.5, 1.0)


@click.command()
@click.argument("recipe_path", type=click.Path(exists=True))
@click.option("--pairs", required=True, help="NAME=FILE of held-out pairs.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/results/rounding.json"),
    show_default=True,
)
def main(recipe_path: str, pairs: str, data: Path, output: Path) -> None:
    """Measure one preference at several η: in float32, rounded to nearest, and stochastically."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from pv_merge.evaluation.measure import NoParts
    from pv_merge.evaluation.measures.choices import ChoicesMeasure
    from pv_merge.evaluation.measures.pairs import read_pairs
    from pv_merge.evaluation.measures.perplexity import PerplexityMeasure
    from pv_merge.live.subject import load_subject
    from pv_merge.live.weights import LiveMerge
    from pv_merge.recipe.opening import open_recipe

    opened = open_recipe(recipe_path)
    recipe = opened.recipe
    name = recipe.preferences[0]
    text = output.parent / ".perplexity.txt"
    write_text(data, text)
    questions = data / "capability/commonsenseqa-dev-300.jsonl"
    measures: list[Any] = [read_pairs(pairs), PerplexityMeasure("perplexity", text)]
    if questions.exists():
        measures.append(ChoicesMeasure("commonsenseqa", questions, 150))
    subject = load_subject(recipe.base_model)

    def figures() -> dict[str, float]:
        found = {}
        for measure in measures:
            record = measure.measure(subject, NoParts(), lambda count: None)
            estimates = measure.estimates(record, record)
            found |= {key: value.value for key, value in estimates.items()}
        return found

    results: dict[str, Any] = {"recipe": recipe_path, "pairs": pairs, "base": figures(), "rows": []}
    print("base", results["base"], flush=True)
    for eta in ETAS:
        for mode in ("float32", "nearest", "stochastic"):
            said = {} if mode == "float32" else {"rounding": mode}
            opened.recipe = replace(recipe, choices={**recipe.choices, **said})
            narrow = None if mode == "float32" else torch.bfloat16
            with LiveMerge(opened, subject.model, narrow) as live:
                live.set({name: eta})
                results["rows"].append({"eta": eta, "mode": mode, **figures()})
            print(results["rows"][-1], flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(results, indent=2) + "\n")
    margin = pairs.partition("=")[0]
    table = Table("eta", "mode", "margin kept", "perplexity", "CommonsenseQA")
    for row in results["rows"]:
        whole = next(
            r for r in results["rows"] if r["eta"] == row["eta"] and r["mode"] == "float32"
        )
        row["kept"] = (row[margin] - results["base"][margin]) / (
            whole[margin] - results["base"][margin]
        )
        cells = (
            f"{row['kept']:.1%}",
            f"{row['perplexity']:.3f}",
            f"{row.get('commonsenseqa', float('nan')):.3f}",
        )
        table.add_row(f"{row['eta']:g}", row["mode"], *cells)
    output.write_text(json.dumps(results, indent=2) + "\n")
    Console().print(table)


def write_text(data: Path, path: Path) -> None:
    """Write the answers of an instruction set into one text, which is not kept."""
    source = data / "sft/alpaca_en_demo.json"
    if not source.exists():
        raise SystemExit(f"{source}: is missing; this benchmark needs a text to take perplexity of")
    rows = json.loads(source.read_text(encoding="utf-8"))[:60]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(row["output"] for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()

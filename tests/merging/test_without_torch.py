"""``pv-merge run`` imports neither torch nor transformers nor mergekit; a process of its own shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pv_merge.merging.extract import ExtractOptions, extract

from models import pair, perturbed, recipe, save, tiny
from policies import adapted, save_adapter, say

RUN = """
import sys
from pv_merge.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = ("torch", "transformers", "mergekit", "peft", "matplotlib")
    print("loaded:", [name for name in heavy if name in sys.modules])
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("inputs")
    base = tiny(tied=True)
    found = {"base": save(base, place / "base")}
    for seed, side in enumerate(("positive", "negative"), start=1):
        found[side] = save(perturbed(base, seed, 1e-3), place / side)
        folder = place / f"lora-{side}"
        save_adapter(adapted(base, seed), folder, found["base"])
        say(str(folder), preference="helpful", polarity=side)
        found[f"lora-{side}"] = str(folder)
    extract(
        found["positive"],
        found["negative"],
        place / "dense",
        ExtractOptions(base=found["base"], name="helpful"),
    )
    extract(
        found["lora-positive"],
        found["lora-negative"],
        place / "low",
        ExtractOptions(base=found["base"], low_rank=True),
    )
    return found | {"dense": str(place / "dense"), "low": str(place / "low")}


def said(polarity: str, name: str = "helpful") -> dict[str, object]:
    return {"preference": name, "polarity": polarity, "eta": 0.5}


@pytest.mark.parametrize("kind", ["checkpoints", "dense", "adapters", "low-rank", "controls"])
def test_nothing_heavy_is_loaded(kind: str, inputs: dict[str, str], tmp_path: Path) -> None:
    parameters: dict[str, object] = {}
    if kind in ("checkpoints", "controls"):
        models = pair(inputs["positive"], inputs["negative"], 0.5)
    if kind == "controls":
        models = [*models, (inputs["dense"], said("vector", "polite"))]
        parameters = {"density": 0.5, "max_relative_norm": 0.1, "interference": "orthogonal"}
    if kind == "dense":
        models = [(inputs["dense"], said("vector"))]
    if kind == "low-rank":
        models = [(inputs["low"], said("vector"))]
    if kind == "adapters":
        models = pair(inputs["lora-positive"], inputs["lora-negative"], 0.5)
    path = tmp_path / "r.yml"
    path.write_text(yaml.safe_dump(recipe(inputs["base"], models, parameters)))
    found = subprocess.run(
        [sys.executable, "-c", RUN, "run", str(path), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "loaded: []" in found.stdout, found.stdout + found.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()

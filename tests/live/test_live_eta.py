"""Every way to change eta of a live model keeps the one protocol: set, reset to the base, close."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.live.controller import PreferenceController
from pv_merge.live.live_eta import LiveEta
from pv_merge.live.switch import LiveMix
from pv_merge.live.weights import LiveMerge
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.recipe.opening import open_recipe

from models import Model, largest_difference, load, logits, pair, recipe, save, tiny
from policies import adapted, save_adapter

Make = Callable[[Path, Model], LiveEta]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter pair of one preference, its vector, and a recipe at eta 0.5."""
    home = tmp_path_factory.mktemp("act")
    model = tiny()
    base = save(model, home / "base")
    for seed, side in enumerate(("plus", "minus"), start=1):
        save_adapter(adapted(model, seed), home / side, base)
    inputs = pair(str(home / "plus"), str(home / "minus"), 0.5)
    text = yaml.safe_dump({**recipe(base, inputs), "dtype": "float32"})
    (home / "recipe.yml").write_text(text)
    options = ExtractOptions(base=base, name="helpful", low_rank=True)
    extract(home / "plus", home / "minus", home / "vector", options)
    return home


WAYS: dict[str, Make] = {
    "scales": lambda home, model: PreferenceController(model, _vector(home)),
    "written": lambda home, model: PreferenceController(model, _vector(home), dense=True),
    "LiveMerge": lambda home, model: LiveMerge(open_recipe(home / "recipe.yml"), model),
    "LiveMix": lambda home, model: LiveMix(open_recipe(home / "recipe.yml"), model),
}


def _vector(home: Path) -> dict[str, PreferenceVector]:
    return {"helpful": PreferenceVector.load(home / "vector")}


@pytest.mark.parametrize("way", WAYS)
def test_set_reset_close(way: str, home: Path) -> None:
    model = load(home / "base")
    names, base = list(model.state_dict()), logits(model)
    plus, minus = (PreferenceVector.load(home / side) for side in ("plus", "minus"))
    with WAYS[way](home, model) as act:
        for eta in (0.5, -1.0):
            act.set({"helpful": eta})
            wanted = load(home / "base")
            with torch.no_grad():
                for name, phi in (plus - minus).items():
                    wanted.get_parameter(name).add_(phi, alpha=eta)
            assert largest_difference(logits(model), logits(wanted)) < 1e-5
            act.reset()
            assert torch.equal(logits(model), base)
        act.set({"helpful": 1.0})
    assert torch.equal(logits(model), base)
    act.close()  # once more does no harm
    assert list(model.state_dict()) == names
    assert torch.equal(logits(model), base)


def test_a_set_that_was_interrupted_does_not_count_as_done(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(home / "base")
    base = logits(model)
    with LiveMix(open_recipe(home / "recipe.yml"), model) as mix:
        mix.set({})
        wanted = logits(model)
        mix.reset()
        plain = mix._way.set

        def interrupted(*arguments: Any) -> None:
            plain(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(mix._way, "set", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mix.set({})
        monkeypatch.undo()
        mix.reset()
        assert torch.equal(logits(model), base)
        mix.set({})
        assert torch.equal(logits(model), wanted)

"""How far a fine-tune has moved along vectors, against cases that one can check by eye."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import pv_merge
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.merging.drift import drift
from pv_merge.merging.extract import ExtractOptions, extract

from models import largest_difference, perturbed, save, state, tiny, write_state
from policies import adapted, save_adapter


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two vectors of it (``kind`` low-rank), and fine-tunes that have moved in known ways."""
    root = tmp_path_factory.mktemp("drift")
    base = tiny()
    save(base, root / "base")
    for seed, name in ((1, "positive"), (2, "negative")):
        save(perturbed(base, seed, 0.01), root / name)
    options = ExtractOptions(str(root / "base"), "safe")
    extract(root / "positive", root / "negative", root / "safe", options)
    for seed, name in ((3, "up"), (4, "down")):
        save_adapter(adapted(base, seed), root / name, str(root / "base"))
    options = ExtractOptions(str(root / "base"), "kind", low_rank=True)
    extract(root / "up", root / "down", root / "kind", options)
    moved(root, "worse", {"safe": -0.3})
    moved(root, "both", {"safe": -0.3, "kind": 0.2})
    save(perturbed(base, 9, 0.01), root / "elsewhere")
    save(tiny(seed=5), root / "stranger")
    return root


def moved(root: Path, name: str, etas: dict[str, float]) -> None:
    tensors = {key: value.double() for key, value in state(root / "base").items()}
    for label, eta in etas.items():
        for key, phi in PreferenceVector.load(root / label).items():
            tensors[key] = tensors[key] + eta * phi.double()
    write_state(root / name, {k: v.float() for k, v in tensors.items()}, root / "base")


def measured(root: Path, model: str, *names: str) -> Any:
    vectors = {name: PreferenceVector.load(root / name) for name in names}
    return drift(root / "base", root / model, vectors)


def test_a_model_that_moved_against_a_vector(root: Path) -> None:
    """d = −0.3 φ: cosine −1, and η = 0.3 undoes it, in every layer."""
    found = measured(root, "worse", "safe")["vectors"]["safe"]
    assert found["cosine"] == pytest.approx(-1, abs=1e-5)
    assert found["eta"] == pytest.approx(-0.3, abs=1e-5)
    assert found["suggested_eta"] == pytest.approx(0.3, abs=1e-5)
    assert list(found["layers"]) == ["0", "1", "outside"]
    for layer in found["layers"].values():
        assert layer["eta"] == pytest.approx(-0.3, abs=1e-5)


def test_two_vectors_are_told_apart(root: Path) -> None:
    """One went down and one up; least squares over both gives each its own, and undoes one only."""
    found = measured(root, "both", "safe", "kind")["vectors"]
    assert found["safe"]["joint_eta"] == pytest.approx(-0.3, abs=1e-4)
    assert found["kind"]["joint_eta"] == pytest.approx(0.2, abs=1e-4)
    assert found["safe"]["suggested_eta"] == pytest.approx(0.3, abs=1e-4)
    assert found["kind"]["suggested_eta"] == 0


def test_a_model_that_moved_elsewhere(root: Path) -> None:
    found = measured(root, "elsewhere", "safe", "kind")
    for entry in found["vectors"].values():
        assert abs(entry["cosine"]) < 4 * entry["spread"]
        assert entry["suggested_eta"] == 0
    own, base = state(root / "elsewhere"), state(root / "base")
    step = sum(float((own[name] - base[name]).double().square().sum()) for name in base) ** 0.5
    assert found["norm"] == pytest.approx(step, rel=1e-6)


def test_the_spread_is_that_of_random_vectors(root: Path) -> None:
    """300 directions, each weight with the norm that φ has there."""
    found = measured(root, "elsewhere", "kind")
    own, base = state(root / "elsewhere"), state(root / "base")
    phis = dict(PreferenceVector.load(root / "kind").items())
    draw = torch.Generator().manual_seed(0)
    cosines = []
    for _ in range(300):
        inner = 0.0
        for name, phi in phis.items():
            noise = torch.randn(phi.shape, generator=draw)
            noise *= phi.norm() / noise.norm()
            inner += float(((own[name] - base[name]) * noise).sum())
        cosines.append(inner / (found["norm"] * found["vectors"]["kind"]["norm"]))
    assert np.std(cosines) == pytest.approx(found["vectors"]["kind"]["spread"], rel=0.15)


def test_an_adapter_is_a_fine_tune_too(root: Path) -> None:
    """The positive policy lies along its vector, the negative one against it."""
    up, down = (measured(root, side, "kind")["vectors"]["kind"] for side in ("up", "down"))
    kind = PreferenceVector.load(root / "kind")
    expected = kind.cosine(PreferenceVector.load(root / "up"))
    assert up["cosine"] == pytest.approx(expected, abs=1e-5)
    assert up["suggested_eta"] == 0
    assert down["cosine"] < -0.5 and down["suggested_eta"] == pytest.approx(-down["eta"])


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("stranger", "is unlike the base's"),
        ("base", "it has not moved at all"),
        ("nowhere", "nowhere: no such folder"),
    ],
)
def test_models_that_cannot_be_compared(model: str, line: str, root: Path) -> None:
    with pytest.raises(PvMergeError, match=line):
        measured(root, model, "safe")


def test_another_vocabulary_or_another_base(root: Path, tmp_path: Path) -> None:
    for name, vocabulary in (("base", {"a": 0}), ("worse", {"b": 0})):
        shutil.copytree(root / name, tmp_path / name)
        said = json.dumps({"model": {"vocab": vocabulary}})
        (tmp_path / name / "tokenizer.json").write_text(said)
    vectors = {"safe": PreferenceVector.load(root / "safe")}
    with pytest.raises(PvMergeError, match="its tokenizer has another vocabulary"):
        drift(tmp_path / "base", tmp_path / "worse", vectors)
    with pytest.raises(PvMergeError, match="safe: was made from another base than"):
        drift(root / "elsewhere", root / "worse", vectors)
    save(tiny(intermediate_size=40), tmp_path / "wider")
    with pytest.raises(PvMergeError, match="were both trained from it"):
        drift(root / "base", tmp_path / "wider", vectors)
    with pytest.raises(PvMergeError, match="at least one vector"):
        pv_merge.drift(root / "base", root / "worse", {})


def call(root: Path, model: str, *words: str) -> Result:
    names = [str(root / "base"), str(root / model), "--vectors", str(root / "safe")]
    return CliRunner().invoke(main, ["drift", *names, *words])


def test_the_command(root: Path, tmp_path: Path) -> None:
    picture = tmp_path / "drift.png"
    result = call(root, "both", str(root / "kind"), "--json", "--plot", str(picture))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found["vectors"]) == [str(root / "safe"), str(root / "kind")]
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = call(root, "worse")
    assert "has moved from" in table.stdout and "0.3" in table.stdout


def test_run_takes_what_is_suggested(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "undo.yml"
    assert "undoes it" in call(root, "worse", "--recipe", str(path)).stdout
    pv_merge.merge(path, tmp_path / "back")
    for name, tensor in state(root / "base").items():
        assert largest_difference(state(tmp_path / "back")[name], tensor) < 1e-6, name
    again = call(root, "worse", "--recipe", str(path))
    assert again.exit_code == 1 and "exists, and is not overwritten" in again.stderr
    nothing = call(root, "elsewhere", "--recipe", str(tmp_path / "none.yml"))
    assert "nothing to undo" in nothing.stdout and not (tmp_path / "none.yml").exists()


def test_a_narrow_model_is_undone_in_its_dtype(root: Path, tmp_path: Path) -> None:
    narrow = {name: tensor.bfloat16() for name, tensor in state(root / "worse").items()}
    write_state(tmp_path / "narrow", narrow, root / "base")
    path = tmp_path / "undo.yml"
    arguments = ["drift", str(root / "base"), str(tmp_path / "narrow"), "--recipe", str(path)]
    assert CliRunner().invoke(main, [*arguments, "--vectors", str(root / "safe")]).exit_code == 0
    pv_merge.merge(path, tmp_path / "back")
    assert {tensor.dtype for tensor in state(tmp_path / "back").values()} == {torch.bfloat16}


def test_an_adapter_has_no_recipe(root: Path, tmp_path: Path) -> None:
    arguments = ["drift", str(root / "base"), str(root / "down"), "--vectors", str(root / "kind")]
    result = CliRunner().invoke(main, [*arguments, "--recipe", str(tmp_path / "r.yml")])
    assert result.exit_code == 1 and "is an adapter, and a recipe starts" in result.stderr

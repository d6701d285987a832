"""What ``pv-merge inspect`` says, against cases that one can check by eye."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pv_merge.arithmetic.measures import sign_disagreement, singular_interference
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.artifacts.weight_names import kind_of
from pv_merge.cli import main
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.inspection import inspect

from models import perturbed, save, tiny

Q0 = "model.layers.0.self_attn.q_proj.weight"
UP1 = "model.layers.1.mlp.up_proj.weight"


def matrix(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


def test_norms_cosine_and_signs_by_hand() -> None:
    """a = (3, 0 | 0, 4), b = (3, 0 | 0, −4): norms 5, cosine (9 − 16)/25, one of two signs disagree."""
    a = PreferenceVector("a", {Q0: matrix([3.0, 0.0]), UP1: matrix([0.0, 4.0])})
    b = PreferenceVector("b", {Q0: matrix([3.0, 0.0]), UP1: matrix([0.0, -4.0])})
    figures = inspect({"a": a, "b": b})
    assert figures["vectors"]["a"]["norm"] == pytest.approx(5)
    assert figures["vectors"]["a"]["norm_by_layer"] == pytest.approx({"0": 3, "1": 4})
    assert figures["vectors"]["a"]["norm_by_kind"] == pytest.approx({"attention": 3, "mlp": 4})
    assert figures["cosines"]["matrix"][0][1] == pytest.approx(-7 / 25)
    assert figures["sign_disagreement"] == 0.5
    assert figures["eigenvalues"] == pytest.approx([32, 18])


def test_interference_is_zero_for_orthogonal_spaces_and_known_for_equal_ones() -> None:
    one, other = matrix([2.0, 0.0], [0.0, 0.0]), matrix([0.0, 0.0], [0.0, 5.0])
    assert singular_interference([one, other], rank=1) == pytest.approx(0, abs=1e-12)
    # Equal matrices of rank 1: UᵀU − I = VᵀV − I = offdiag(1), Σ = 2·I, so the product is 2·I.
    assert singular_interference([one, one], rank=1) == pytest.approx(4)


def test_signs_count_only_where_two_move() -> None:
    first, second = torch.tensor([1.0, -1.0, 0.0, 2.0]), torch.tensor([-1.0, -1.0, 1.0, 0.0])
    assert sign_disagreement([first, second]) == (1, 2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (Q0, "attention"),
        (UP1, "mlp"),
        ("model.embed_tokens.weight", "embedding"),
        ("transformer.h.0.ln_1.weight", "norm"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_the_command_prints_a_table_json_and_a_picture(tmp_path: Path) -> None:
    base = tiny(tied=True)
    save(base, tmp_path / "base")
    for seed in range(4):
        save(perturbed(base, seed), tmp_path / f"p{seed}")
    for name, (positive, negative) in {"one": (0, 1), "two": (2, 3)}.items():
        options = ExtractOptions(str(tmp_path / "base"), name)
        extract(tmp_path / f"p{positive}", tmp_path / f"p{negative}", tmp_path / name, options)
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    result = CliRunner().invoke(main, ["inspect", *folders, "--plot", str(tmp_path / "plot.png")])
    assert result.exit_code == 0, result.output
    assert "singular task interference" in result.output
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    said = json.loads(CliRunner().invoke(main, ["inspect", *folders, "--json"]).output)
    assert abs(said["cosines"]["matrix"][0][1]) < 0.1
    assert said["interference"]["matrices"] == 14
    one = said["vectors"][folders[0].removeprefix("./")]
    assert one["norm"] == pytest.approx(PreferenceVector.load(folders[0]).norm())
    assert abs(one["cosine_positive_negative"]) < 0.1


def test_a_model_is_not_a_vector(tmp_path: Path) -> None:
    save(tiny(tied=True), tmp_path / "base")
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "base")])
    assert result.exit_code == 1
    assert "holds no preference_vector.json; it is a model, not a vector" in result.output

"""A measure from outside: an option of the commands, a figure of the results, a curve of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pv_merge
from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import named
from pv_merge.evaluation.measures.registry import MEASURES, MeasureKind, Option, build_measures
from pv_merge.evaluation.statistics import Estimate, bootstrap

from eval_tiny import make_recipe


class NormMeasure:
    """Norm of each row of one weight, times a factor."""

    needs_base = False
    size = 1

    def __init__(self, name: str, weight: str, factor: float) -> None:
        self.name, self.weight, self.factor = name, weight, factor

    def identity(self) -> dict[str, Any]:
        return {"kind": "norm", "weight": self.weight, "factor": self.factor}

    def measure(self, subject: Any, parts: Any, advance: Any) -> dict[str, Any]:
        weight = subject.model.get_parameter(self.weight)
        advance(1)
        return {"norms": (weight.detach().norm(dim=1) * self.factor).tolist()}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        return {self.name: record["norms"]}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        return {self.name: bootstrap(record["norms"])}

    def labels(self) -> dict[str, str]:
        return {self.name: f"mean norm of the rows of {self.weight}"}

    def better(self) -> dict[str, int]:
        return {self.name: -1}


WEIGHT = "model.layers.0.mlp.up_proj.weight"
NORM = MeasureKind(
    Option("--row-norm", "Mean norm of a weight's rows.", "NAME=WEIGHT"),
    lambda text, said: NormMeasure(*named(text, "norm"), said["factor"]),
    settings=(Option("--factor", "Times this.", kind=float, default=1.0),),
)


@pytest.fixture
def toy() -> Iterator[None]:
    MEASURES.register("norm", NORM)
    yield
    MEASURES.forget("norm")


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("toy")
def test_a_measure_from_outside(tmp_path: Path) -> None:
    recipe = str(make_recipe(tmp_path))
    for command in ("sweep", "evaluate", "calibrate"):
        assert "--row-norm NAME=WEIGHT" in invoke(command, "--help")
    asked = ("--row-norm", f"size={WEIGHT}", "--factor", "10")
    invoke("evaluate", recipe, *asked, "--eta", "brief=0", "-o", str(tmp_path / "one.json"))
    figures = json.loads((tmp_path / "one.json").read_text())["figures"]
    said = invoke("sweep", recipe, "--eta", "polite=0,1", *asked, "-o", str(tmp_path / "sweep"))
    assert f"mean norm of the rows of {WEIGHT}" in said
    assert (tmp_path / "sweep/curve-size.png").exists()
    (found,) = build_measures(row_norm=[f"size={WEIGHT}"])
    plain = pv_merge.evaluate(recipe, tmp_path / "b.json", [found], etas={"brief": 0})
    assert figures["size"]["value"] == pytest.approx(10 * plain.figures["size"].value, abs=1e-4)


def test_without_it_the_option_is_gone_and_names_are_suggested() -> None:
    result = CliRunner().invoke(main, ["sweep", "r.yml", "--row-norm", "a=b", "-o", "out"])
    assert result.exit_code == 2 and "No such option" in result.output
    with pytest.raises(PvMergeError, match=r"unknown measure 'pair'; did you mean pairs\?"):
        pv_merge.measure("pair", "a=b")
    with pytest.raises(PvMergeError, match=r"no measure has an option 'pair'; did you mean pairs"):
        build_measures(pair=["a=b"])
    with pytest.raises(PvMergeError, match="pairs: has no option 'judge_url'"):
        pv_merge.measure("pairs", "a=b", judge_url="http://x")


def test_a_setting_without_its_measure_is_refused() -> None:
    with pytest.raises(PvMergeError, match="--beta does nothing by itself; give --pairs too"):
        build_measures(beta=0.5)
    with pytest.raises(PvMergeError, match="give --reward-model or --cost-model too"):
        build_measures(reward_prompts="p.txt")

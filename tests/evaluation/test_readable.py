"""What people read: few digits, n where it is small, no rank of three points, lines kept, a base that is known."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pv_merge.cli.calibrate import _print as print_calibration
from pv_merge.evaluation.calibrate.search import Calibration, Trial
from pv_merge.evaluation.evaluate import merged_from
from pv_merge.evaluation.statistics import Estimate, rounded, signed
from pv_merge.evaluation.sweep.report import print_tables, step_text
from pv_merge.evaluation.sweep.results import Step, Sweep, correlations

LABELS = {"polite": "margin", "polite.accuracy_normalised": "share by log-prob a token"}
LABELS |= {"polite.accuracy": "share", "polite.reward_margin": "reward margin"}


def sweep(values: list[float], low: float = 0.5) -> Sweep:
    figures = [
        dict.fromkeys(LABELS, Estimate(value, value - 0.788, value + 0.502, 8)) for value in values
    ]
    points: list[dict[str, float | None]] = [{"polite": value} for value in values]
    made = Sweep({"polite": values}, points, figures, {}, LABELS, {"polite": 1}, answers=[])
    change = Estimate(1.0, low, 2.0, 8)
    made.steps = [Step("polite", values[0], values[-1], "polite", change)]
    return made


def shown(made: Sweep, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_tables(made, console)
    return console.export_text()


def test_numbers() -> None:
    assert (rounded(-0.00001, ".2f"), rounded(-0.0), signed(-0.001)) == ("0.00", "0", "0.00")
    assert str(Estimate(-0.0, -0.0, 0.5, 40)) == "0 [0, 0.5]"
    assert (Estimate(1, 0, 2, 29).few, Estimate(1, 0, 2, 30).few) == (", n = 29", "")
    assert "-0.00" not in step_text(Step("p", 0, 1, "f", Estimate(-0.0, -1, 1, 9)))


def test_a_table_of_four_figures_fits_80_columns_with_headings_of_two_lines() -> None:
    text = shown(sweep([-1.0, -0.5, 0.5, 1.0]))
    assert max(map(len, text.splitlines())) <= 80
    head = text.partition("┡")[0]
    assert len([line for line in head.splitlines() if line.startswith("┃")]) == 2
    assert "accuracy no…" in head and "polite.accuracy_normalised: share by" in text
    assert "margin, n = 8" in text


def test_a_rank_correlation_takes_four_points_and_an_effect() -> None:
    assert correlations(sweep([-1.0, 0.0, 0.5, 1.0]), "polite") == {"polite": 1.0}
    assert correlations(sweep([-1.0, 0.0, 1.0]), "polite") == {}
    assert correlations(sweep([-1.0, 0.0, 0.5, 1.0], low=-0.1), "polite") == {}


def test_answers_keep_their_lines() -> None:
    made = sweep([0.0, 1.0])
    made.prompts = ["How?"]
    made.answers = [
        {"point": {"polite": -0.0}, "answers": ["First:\n\n- [b]one[/b]\n- two\x1b[2J"]}
    ]
    lines = shown(made).splitlines()
    place = next(i for i, line in enumerate(lines) if "First:" in line)
    assert lines[place].strip() == "polite 0  First:"
    assert [line.strip() for line in lines[place + 1 : place + 3]] == ["- [b]one[/b]", "- two[2J"]


def test_answers_at_three_eta_stand_side_by_side_in_80_columns() -> None:
    made = sweep([-1.0, 0.0, 1.0])
    made.prompts = ["How do I boil an egg?", "Why?"]
    long = "Take a pan and some water, and wait. " * 20
    made.answers = [
        {"point": {"polite": eta}, "answers": [f"{word}, [b]so[/b]. {long}", word]}
        for eta, word in ((-1.0, "No"), (0.0, "Well"), (1.0, "Gladly"))
    ]
    text = shown(made)
    assert max(map(len, text.splitlines())) <= 80
    (row,) = [line for line in text.splitlines() if "No, [b]so" in line]
    assert "Well, [b]so" in row and "Gladly, [b]so" in row
    table = text[text.index("How do I boil") : text.index("Why?")]
    assert len(table.splitlines()) <= 13 and table.count("…") == 3
    assert "answers that end in … are whole in report.html" in text


def test_calibrate_says_edges_and_no_tiny_numbers() -> None:
    trial = Trial({"polite": 1.5}, {}, 1.0, True, None, None)
    result = Calibration("polite", [trial], trial, gain_left=2e-167, grid=7, finished=True)
    result.edges = ["polite"]
    console = Console(width=100, record=True, file=io.StringIO())
    print_calibration(result, console)
    text = console.export_text()
    assert "any other point: under 0.001" in text and "e-167" not in text
    assert "polite is at the edge of its range" in text


def test_a_merged_folder_knows_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "merged"
    folder.mkdir()
    assert merged_from(folder) is None
    recipe: Any = "base_model: ./models/base\nmerge_method: preference_vector\n"
    (folder / "mergekit_config.yml").write_text(recipe)
    assert merged_from(folder) is None  # the base is not here
    (tmp_path / "models" / "base").mkdir(parents=True)
    assert merged_from(folder) == "./models/base"

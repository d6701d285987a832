"""The command, on a tiny base with two preferences."""

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import NoParts
from pv_merge.evaluation.measures.pairs import PairsMeasure, read_pairs
from pv_merge.evaluation.statistics import Estimate
from pv_merge.evaluation.sweep.results import Sweep, correlations
from pv_merge.live.subject import load_subject
from pv_merge.live.weights import LiveMerge
from pv_merge.recipe.opening import open_recipe

from eval_tiny import make_recipe
from train_tiny import pair_rows, write_rows


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    make_recipe(folder)
    return folder


def sweep(home, out, *arguments, code=0):
    pairs = f"polite={home / 'pairs.jsonl'}"
    result = CliRunner().invoke(
        main, ["sweep", str(home / "recipe.yml"), "--pairs", pairs, "-o", str(out), *arguments]
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def lines(out, kind="record"):
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


LINE = ("--eta", "polite=-1,0,1")
GRID = ("--eta", "polite=-1,0,1", "--eta", "brief=0,1")


def test_a_line_of_eta(home, tmp_path):
    out = tmp_path / "out"
    text = sweep(home, out, *LINE, "--prompt", "Why?")
    # brief stays at the recipe's 1, so the base is a point of its own
    points = [row["point"] for row in lines(out) if row["measure"] == "polite"]
    assert points[0] == {"polite": 0.0, "brief": 0.0}
    assert points[1:] == [{"polite": eta, "brief": 1.0} for eta in (-1.0, 0.0, 1.0)]
    assert (out / "curve-polite.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((out / "summary.json").read_text())
    assert [point["eta"]["polite"] for point in summary["points"]] == [-1, 0, 1]
    assert [(step["from"], step["to"]) for step in summary["steps"]] == [(-1, 0), (0, 1)]
    assert "Spearman" not in text  # three points tell no rank
    assert "polite -1 → 0: polite" in text
    assert re.search(r"η polite -1 +┃ η polite 0 +┃ η polite \+1 ", text)  # an answer at each


def test_values_are_those_of_the_merged_model(home, tmp_path):
    sweep(home, tmp_path / "out", *GRID)
    opened = open_recipe(home / "recipe.yml")
    subject = load_subject(opened.recipe.base_model)
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    measure = read_pairs(f"polite={home / 'pairs.jsonl'}")
    with LiveMerge(opened, subject.model) as live:
        live.set({"polite": -1.0, "brief": 1.0})
        record = measure.measure(subject, NoParts(), lambda count: None)
    (row,) = [row for row in lines(tmp_path / "out") if row["point"] == {"polite": -1, "brief": 1}]
    assert row["record"] == record
    for name, tensor in subject.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_grid_of_two(home, tmp_path):
    out = tmp_path / "out"
    text = sweep(home, out, *GRID, "--pairs", f"brief={home / 'pairs.jsonl'}")
    assert len(lines(out)) == 2 * 6  # the base is one of the grid's points
    names = sorted(path.name for path in out.glob("*.png"))
    assert names == ["heatmap-brief.png", "heatmap-polite.png", "pareto.png"]
    assert "Pareto front over polite, brief" in text
    report = (out / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 3
    assert 'src="http' not in report
    assert "recipe.yml" in report


def shown(text: str, folder: Path) -> str:
    """What a sweep prints of its results, without the folder and the line breaks it causes."""
    return "".join(text.split("eta against")[1].split()).replace(str(folder), "")


def test_a_killed_sweep_goes_on_where_it_was(home, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []
    plain = PairsMeasure.measure

    def measure(self, *arguments):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return plain(self, *arguments)

    monkeypatch.setattr(PairsMeasure, "measure", measure)
    sweep(home, out, *GRID, code=1)
    assert len(lines(out)) == 3
    with (out / "results.jsonl").open("a") as file:
        file.write('{"kind": "rec')  # as if killed while writing
    calls.clear()
    monkeypatch.setattr(
        PairsMeasure, "measure", lambda self, *a: calls.append(1) or plain(self, *a)
    )
    sweep(home, out, *GRID)
    assert len(calls) == 3
    calls.clear()
    whole = sweep(home, tmp_path / "whole", *GRID)
    assert len(calls) == 6
    calls.clear()
    again = sweep(home, out, *GRID)
    assert shown(again, out) == shown(whole, tmp_path / "whole")
    assert not calls


def test_another_recipe_or_other_pairs_are_refused(tmp_path):
    recipe = make_recipe(tmp_path)
    out = tmp_path / "out"
    sweep(tmp_path, out, *LINE)
    before = (out / "results.jsonl").read_text()
    rows = pair_rows(7)
    write_rows(tmp_path / "pairs.jsonl", rows)
    assert "polite was measured with other data or settings" in sweep(tmp_path, out, *LINE, code=1)
    write_rows(tmp_path / "pairs.jsonl", pair_rows(8))
    recipe.write_text(recipe.read_text().replace("eta: 1.0", "eta: 0.5"))
    said = sweep(tmp_path, out, *LINE, code=1)
    assert "was begun with another model (recipe changed)" in said
    assert (out / "results.jsonl").read_text() == before


def test_other_measures_and_prompts_alone(home, tmp_path):
    (home / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 12)
    (home / "prompts.csv").write_text("prompt,label\nWhy?,safe\nHarm?,unsafe\n")
    out = tmp_path / "out"
    more = ("--capability", str(home / "text.txt"), "--refusal", str(home / "prompts.csv"))
    sweep(home, out, *LINE, *more, "--max-new-tokens", "4")
    names = sorted(path.name for path in out.glob("*.png"))
    figures = ("perplexity", "polite", "refusal_safe", "refusal_unsafe")
    assert names == [*(f"curve-{figure}.png" for figure in figures), "pareto.png"]
    alone = CliRunner().invoke(
        main,
        ["sweep", str(home / "recipe.yml"), *LINE, "--prompt", "Why?", "-o", str(tmp_path / "b")],
    )
    assert alone.exit_code == 0, alone.output
    assert re.search(r"η polite -1 +┃ η polite 0 +┃ η polite \+1 ", alone.output)
    assert not list((tmp_path / "b").glob("*.png"))


def test_a_large_grid_asks_first_and_says_how_long(home, tmp_path):
    out = tmp_path / "out"
    many = ",".join(str(i / 40) for i in range(65))
    said = sweep(home, out, "--eta", f"polite={many}", code=1)
    assert re.search(r"65 points take about \d+ seconds; add --yes", said)
    assert len(lines(out)) == 1  # the base, measured to know the time, is kept


def test_bad_input_is_one_line(home, tmp_path):
    run = CliRunner().invoke
    recipe = str(home / "recipe.yml")
    for arguments, message in [
        (["--eta", "polit=0,1", "--prompt", "x"], "did you mean polite?"),
        (["--eta", "polite=1", "--prompt", "x"], "a grid of one point"),
        (["--eta", "polite=0,1"], "nothing to measure: give --pairs"),
        (["--eta", "polite=0,1", "--pairs", "x=none.jsonl"], "none.jsonl: no such file"),
    ]:
        result = run(main, ["sweep", recipe, "-o", str(tmp_path / "out"), *arguments])
        assert result.exit_code == 1
        assert message in result.output
        assert len(result.output.strip().splitlines()) == 1
    result = run(main, ["sweep", "none.yml", "--eta", "a=0,1", "-o", str(tmp_path / "out")])
    assert "none.yml: no such file" in result.output
    assert not (tmp_path / "out").exists()


def test_two_measures_of_one_name_are_refused(home, tmp_path):
    twice = ("--pairs", f"polite={home / 'pairs.jsonl'}")
    assert "two measures have this name" in sweep(home, tmp_path / "out", *LINE, *twice, code=1)


def test_rho_is_the_mean_over_the_lines_of_a_grid():
    axes = {"a": [0.0, 1.0, 2.0, 3.0], "b": [0.0, 1.0, 2.0, 3.0]}
    points = [{"a": a, "b": b} for a in axes["a"] for b in axes["b"]]
    # Along a: rising where b is below 2, falling from there on.
    values = [p["a"] - p["b"] if p["b"] < 2 else -p["a"] - 5 - p["b"] for p in points]
    figures = [{"x": Estimate(v, v, v, 1)} for v in values]
    found = Sweep(axes, points, figures, {}, {"x": "x"}, {"x": 1})
    assert correlations(found, "a") == pytest.approx({"x": 0.0})
    assert correlations(found, "b") == pytest.approx({"x": -1.0})


def test_a_recipe_error_is_the_reader_s(tmp_path):
    with pytest.raises(PvMergeError, match="no such file"):
        open_recipe(tmp_path / "none.yml")


def test_an_extracted_vector_measures_as_its_policies(home, tmp_path):
    names = [str(home / f"polite-{sign}") for sign in ("positive", "negative")]
    vector = str(tmp_path / "vector")
    base = str(home / "base")
    options = ["--base", base, "--name", "polite", "-o", vector]
    extracted = CliRunner().invoke(main, ["extract", *names, *options])
    assert extracted.exit_code == 0, extracted.output
    lines_ = ["merge_method: preference_vector", f"base_model: {base}", "models:"]
    said = "{preference: polite, polarity: vector, eta: 1.0}"
    lines_ += [f"  - model: {vector}", f"    parameters: {said}"]
    (tmp_path / "recipe.yml").write_text("\n".join(lines_))
    (tmp_path / "pairs.jsonl").write_text((home / "pairs.jsonl").read_text())
    sweep(tmp_path, tmp_path / "a", "--eta", "polite=0,1")
    sweep(home, tmp_path / "b", "--eta", "polite=0,1", "--eta", "brief=0")
    found = [lines(tmp_path / name)[-1]["figures"]["polite"]["value"] for name in "ab"]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    (row,) = lines(tmp_path / "a", "header")
    assert set(row["subject"]["weights"]) == {vector, base}

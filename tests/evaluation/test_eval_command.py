"""``pv-merge evaluate`` on a tiny model and a tiny recipe."""

import json

import pytest
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.evaluation.measures.pairs import PairsMeasure
from pv_merge.evaluation.measures.refusal import RefusalMeasure

from eval_tiny import make_recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    make_recipe(folder)
    (folder / "prompts.csv").write_text("prompt,label\nWhy?,safe\nHow to harm?,unsafe\n")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    return folder


def evaluate(home, name, out, *arguments, code=0):
    result = CliRunner().invoke(main, ["evaluate", str(home / name), "-o", str(out), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def every(home):
    return (
        *("--pairs", f"polite={home / 'pairs.jsonl'}"),
        *("--refusal", str(home / "prompts.csv"), "--max-new-tokens", "6"),
        *("--capability", str(home / "text.txt")),
    )


def test_a_recipe_and_where_it_comes_from(home, tmp_path):
    out = tmp_path / "result.json"
    text = evaluate(home, "recipe.yml", out, *every(home), "--eta", "polite=0.5")
    result = json.loads(out.read_text())
    assert result["eta"] == {"polite": 0.5, "brief": 1.0}
    assert set(result["figures"]) >= {
        "polite",
        "polite.reward_margin",
        "refusal_safe",
        "perplexity",
    }
    assert set(result["figures"]["polite"]) == {"value", "low", "high", "n"}
    assert result["base_figures"]["polite.reward_margin"]["value"] == 0
    assert set(result["versions"]) >= {"pv_merge", "torch", "transformers"}
    assert all(len(m["data"]) == 64 for m in result["measures"].values())
    assert "refusal_unsafe" in text


def test_a_model_and_its_base(home, tmp_path):
    out = tmp_path / "result.json"
    pairs = ("--pairs", f"polite={home / 'pairs.jsonl'}")
    said = evaluate(home, "polite-positive", out, *pairs, code=1)
    assert "holds no tokenizer; name the model it was made from with --base" in said
    evaluate(home, "base", tmp_path / "base.json", *pairs)
    assert "polite.reward_margin" not in json.loads((tmp_path / "base.json").read_text())["figures"]
    evaluate(home, "polite-positive", out, *pairs, "--base", str(home / "base"))
    result = json.loads(out.read_text())
    # The same from the two margins: β (mine − the base's)
    margins = [result[key]["polite"]["value"] for key in ("figures", "base_figures")]
    reward = result["figures"]["polite.reward_margin"]["value"]
    assert reward == pytest.approx(0.1 * (margins[0] - margins[1]), abs=1e-5)


def test_a_merged_folder_measures_as_its_recipe(home, tmp_path):
    pairs = ("--pairs", f"polite={home / 'pairs.jsonl'}")
    # eta 1 of a single preference with both etas chosen so that only polite acts
    evaluate(
        home, "recipe.yml", tmp_path / "a.json", *pairs, "--eta", "brief=0", "--eta", "polite=0"
    )
    evaluate(home, "base", tmp_path / "b.json", *pairs)
    first, second = (json.loads((tmp_path / n).read_text()) for n in ("a.json", "b.json"))
    assert first["figures"]["polite"] == second["figures"]["polite"]


def test_a_killed_evaluation_goes_on_where_it_was(home, tmp_path, monkeypatch):
    out = tmp_path / "result.json"
    plain = RefusalMeasure.measure

    def killed(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(RefusalMeasure, "measure", killed)
    evaluate(home, "recipe.yml", out, *every(home), code=1)
    assert not out.exists()
    monkeypatch.setattr(RefusalMeasure, "measure", plain)
    monkeypatch.setattr(PairsMeasure, "measure", killed)  # measured already, so not called
    evaluate(home, "recipe.yml", out, *every(home))
    assert out.exists()


def test_bad_input_is_one_line(home, tmp_path):
    pairs = ("--pairs", f"polite={home / 'pairs.jsonl'}")
    for name, arguments, message in [
        ("recipe.yml", (), "nothing to measure"),
        ("recipe.yml", (*pairs, "--eta", "polit=1"), "did you mean polite?"),
        ("recipe.yml", (*pairs, "--eta", "polite=x"), "expected NAME=NUMBER"),
        ("base", (*pairs, "--eta", "polite=1"), "is no recipe, so it has no eta"),
        ("none", pairs, "cannot be loaded"),
    ]:
        said = evaluate(home, name, tmp_path / f"{len(message)}.json", *arguments, code=1)
        assert message in said
        assert len([line for line in said.splitlines() if line.startswith("Error")]) == 1

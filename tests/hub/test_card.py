"""The generated card: what is in it, what is left out, and that the client accepts it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hub_client import merge_folder
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pv_merge.hub.card.card import Extras, card_text, notes_in
from pv_merge.hub.card.metadata import metadata
from pv_merge.hub.evaluations import read_evaluations
from pv_merge.hub.facts import Facts, read_facts
from pv_merge.hub.push_hints import licence_warning
from pv_merge.hub.push_plan import PushOptions, make_plan


def _write(folder: Path, name: str, data: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / name).write_text(text)
    return folder


def _facts(folder: Path, **said: str) -> Facts:
    return read_facts(folder, "polite", said)


def _card(facts: Facts, repo: str = "alice/polite", extras: Extras | None = None) -> str:
    return card_text(facts, repo, extras, published=True)


SIDE = {
    "path": "./runs/polite/positive",
    "form": "adapter",
    "polarity": "positive",
    "dataset": {"path": "org/pairs", "format": "pairs", "pairs": 222, "fingerprint": "ab" * 32},
    "lora": {"r": 4},
    "dpo": {"beta": 0.1},
    "seed": 42,
}
VECTOR = {
    "kind": "preference_vector",
    "preference": "polite",
    "protected": False,
    "form": "dense",
    "dtype": "float32",
    "base": {"path": "./models/base", "weights_sha256": "c0ffee"},
    "positive": SIDE,
    "negative": {**SIDE, "path": "./runs/polite/negative", "polarity": "negative"},
    "measures": {"norm": 2.25, "cosine_positive_negative": -0.99},
}
EVALUATION = {
    "recipe": "recipe.yml",
    "eta": {"polite": 1.0},
    "figures": {
        "polite": {"value": 9.0, "low": 8.0, "high": 10.0, "n": 48},
        "polite.accuracy": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 48},
    },
    "base_figures": {"polite": {"value": 6.0, "low": 5.0, "high": 7.0, "n": 48}},
    "labels": {"polite": "margin (nats)", "polite.accuracy": "share of pairs"},
    "measures": {"polite": {"kind": "pairs", "data": "f00d", "pairs": 48}},
    "command": "pv-merge evaluate recipe.yml --pairs polite=/home/me/pairs.jsonl -o out.json",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a base, a vector and a merge, as the recipe names them."""
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "models/base", "config.json", {})
    _write(tmp_path / "models/base", "README.md", "---\nlicense: apache-2.0\n---\n# base\n")
    _write(tmp_path / "inputs/polite", "preference_vector.json", VECTOR)
    merge_folder(tmp_path / "merged")
    return tmp_path


def test_the_client_accepts_the_metadata(here: Path):
    facts = _facts(here / "merged", base_model="org/base")
    evaluations, left_out = read_evaluations([_write(here, "e.json", EVALUATION) / "e.json"], facts)
    assert left_out == []
    card = _card(facts, "alice/polite", Extras(evaluations=evaluations))
    again = ModelCard(card)
    data = again.data
    assert isinstance(data, ModelCardData)
    assert ModelCardData(**data.to_dict()).to_dict() == data.to_dict()
    assert data.base_model == ["org/base"] and data.base_model_relation == "merge"
    assert data.license == "apache-2.0" and data.library_name == "transformers"
    assert data.tags == ["merge", "mergekit", "preference-vector"]
    assert data.datasets == ["org/pairs"]
    first, second = data.eval_results
    assert isinstance(first, EvalResult)
    assert (first.metric_type, first.metric_value) == ("log_prob_margin", 9.0)
    assert (second.metric_type, second.metric_value) == ("accuracy", 0.9)
    assert first.dataset_name == "polite, 48 pairs" and first.dataset_args == {"sha256": "f00d"}


def test_the_text_says_what_the_manifests_say(here: Path):
    facts = _facts(here / "merged")
    evaluations, _ = read_evaluations([_write(here, "e.json", EVALUATION) / "e.json"], facts)
    text = _card(facts, "alice/polite", Extras("my **text**", evaluations))
    came = "`./inputs/polite` = `./runs/polite/positive` − `./runs/polite/negative`"
    assert f"| polite | +1 | {came} | 222 of `org/pairs` | -0.990 | 2 |" in text
    assert "| polite | +1 | 2 | 0.100% | 97.0% | 91.0% (3) |" in text
    assert "| `polite` | 9 [8, 10] (n = 48) | 6 [5, 7] (n = 48) | margin (nats) |" in text
    assert "$ pv-merge evaluate recipe.yml --pairs polite=pairs.jsonl -o out.json" in text
    assert "SHA-256 of the base's weights: `c0ffee`" in text
    assert notes_in(text) == "my **text**"
    assert "/home/me" not in text and "arXiv:2504.20106" in text


def test_what_is_not_known_is_left_out(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = _facts(merge_folder(tmp_path / "merged"))
    data = metadata(facts).to_dict()
    assert set(data) == {"library_name", "tags", "pipeline_tag"}
    text = _card(facts, "alice/polite")
    assert "| polite | +1 | `./inputs/polite` (vector) |  |  | 2 |" in text
    assert "no manifest of that input was at hand" in text
    assert "Nothing was measured" in text and "## Evaluation" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("base", "vector", "said", "licence", "line"),
    [
        ("apache-2.0", None, None, "apache-2.0", "apache-2.0, taken over from the base's card."),
        ("apache-2.0", "apache-2.0", None, "apache-2.0", "taken over from the base's card."),
        ("apache-2.0", "mit", None, None, "**Conflict**: apache-2.0 (the base's card); mit"),
        (None, None, None, None, "Unknown: nothing here says what the base's licence is."),
        (None, None, "mit", "mit", "mit, as the publisher says."),
        ("apache-2.0", None, "mit", "mit", "**Conflict**: apache-2.0 (the base's card)."),
    ],
)
def test_the_licence_comes_from_the_base(here: Path, base, vector, said, licence, line):
    for place, value in (("models/base", base), ("inputs/polite", vector)):
        text = f"---\nlicense: {value}\n---\n" if value else "# none\n"
        _write(here / place, "README.md", text)
    facts = _facts(here / "merged", **({"license": said} if said else {}))
    assert metadata(facts).license == licence
    assert line in _card(facts, "alice/polite")
    clear = licence is not None and "Conflict" not in line
    assert (licence_warning(facts.base) is None) == clear


def test_another_licence_keeps_its_name(here: Path):
    text = "---\nlicense: other\nlicense_name: mine-1\nlicense_link: LICENSE\n---\n"
    _write(here / "models/base", "README.md", text)
    data = metadata(_facts(here / "merged"))
    assert (data.license, data.license_name, data.license_link) == ("other", "mine-1", "LICENSE")


def test_a_folder_is_not_taken_for_a_name_on_the_hub(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = merge_folder(tmp_path / "merged")
    text = (folder / "mergekit_config.yml").read_text()
    _write(folder, "mergekit_config.yml", text.replace("./models/base", "models/base"))
    assert "base_model" not in metadata(_facts(folder)).to_dict()
    side = {**SIDE, "dataset": {"path": "data/pairs"}}
    _write(tmp_path / "inputs/polite", "preference_vector.json", {**VECTOR, "positive": side})
    assert _facts(tmp_path / "inputs/polite").datasets == ["org/pairs"]


def test_a_vector(here: Path):
    facts = _facts(here / "inputs/polite", base_model="org/base")
    data = metadata(facts).to_dict()
    assert "base_model_relation" not in data and "pipeline_tag" not in data
    text = _card(facts, "alice/polite-vector")
    assert "| ‖φ‖ | 2.25 |" in text and "| rank |" not in text
    assert "222 pairs of `org/pairs`" in text
    assert "  - model: alice/polite-vector" in text and "base_model: org/base" in text


def test_a_policy_can_be_trained_again(here: Path):
    manifest = {"kind": "policy", **SIDE, "preference": "polite", "base_model": {"path": "org/b"}}
    del manifest["path"]
    folder = _write(here / "policy", "pv_run.json", manifest)
    _write(folder, "adapter_config.json", {})
    facts = _facts(folder)
    data = metadata(facts).to_dict()
    assert data["base_model"] == ["org/b"] and data["base_model_relation"] == "adapter"
    assert data["library_name"] == "peft"
    text = _card(facts, "alice/policy")
    assert "base_model: org/b\npreference: polite\ndataset:\n  path: org/pairs" in text


def test_results_of_another_model_are_left_out(here: Path):
    facts = _facts(here / "merged")
    other = {**EVALUATION, "eta": {"polite": 0.5}}
    elsewhere = {k: v for k, v in EVALUATION.items() if k not in ("recipe", "eta")}
    paths = [
        _write(here, "a.json", other) / "a.json",
        _write(here, "b.json", {**elsewhere, "model": "./merged/else"}) / "b.json",
    ]
    found, left_out = read_evaluations(paths, facts)
    assert found == []
    assert "is of eta polite 0.5, the model has polite 1; left out of the card" in left_out[0]
    assert "is of the model ./merged/else, not of this folder" in left_out[1]


def test_results_in_the_folder_are_found(here: Path):
    _write(here / "merged", "evaluation.json", EVALUATION)
    plan = make_plan(here / "merged", "alice/polite", PushOptions())
    assert [item.figures["polite"].value for item in plan.evaluations] == [9.0]


def test_a_figure_that_is_not_finite_is_no_result(here: Path):
    figure = {"value": float("nan"), "low": 0.0, "high": 0.0, "n": 1}
    path = _write(here, "e.json", {**EVALUATION, "figures": {"polite": figure}}) / "e.json"
    facts = _facts(here / "merged")
    evaluations, _ = read_evaluations([path], facts)
    assert metadata(facts, evaluations).eval_results is None

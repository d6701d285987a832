"""Vectors and policies of one base, put on another fine-tune of it, by every way to merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import Tensor

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.cli import main
from pv_merge.errors import PvMergeError, Topic
from pv_merge.hub.card.card import write_card
from pv_merge.integrations.export import export
from pv_merge.live.switch import LiveMix
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.run import run
from pv_merge.recipe.checks.finding import Finding
from pv_merge.recipe.opening import check, open_recipe

from models import (
    largest_difference,
    load,
    mergekit_yaml,
    pair,
    perturbed,
    recipe,
    save,
    state,
    tiny,
    write_state,
)
from policies import adapted, save_adapter, say

Document = dict[str, Any]
State = dict[str, Tensor]
ALLOWED = {"allow_related_base": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, another (``second``), a fine-tune of the base (``mine``), policies of both bases.

    ``mine`` is nearer to ``base`` than unrelated weights, and further than its policies.
    """
    root = tmp_path_factory.mktemp("transplant")
    base = tiny()
    second = perturbed(base, 60, 0.03)
    for name, model in (("base", base), ("second", second), ("mine", perturbed(base, 50, 0.05))):
        save(model, root / name)
        (root / name / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    save(tiny(seed=9), root / "stranger")
    for name, model, seed in (
        ("helpful", base, 1),
        ("unhelpful", base, 2),
        ("polite", second, 3),
        ("rude", second, 4),
    ):
        save(perturbed(model, seed, 0.01), root / name)
        own = "base" if model is base else "second"
        note(root, name, own)
    save(perturbed(base, 1, 0.01), root / "anonymous")
    save(perturbed(base, 2, 0.01), root / "unanonymous")
    for seed, name in ((7, "kind"), (8, "unkind")):
        save_adapter(adapted(base, seed), root / name, str(root / "base"))
    options = ExtractOptions(str(root / "base"), "helpful")
    extract(root / "helpful", root / "unhelpful", root / "vector", options)
    options = ExtractOptions(str(root / "base"), "kind", low_rank=True)
    extract(root / "kind", root / "unkind", root / "thin", options)
    return root


def note(root: Path, name: str, own: str) -> None:
    base = {"path": str(root / own), "weights_sha256": weights_hash(Checkpoint(root / own))}
    polarity = "negative" if name in ("unhelpful", "rude") else "positive"
    say(str(root / name), kind="policy", preference="helpful", polarity=polarity, base_model=base)


def two(root: Path, positive: str, negative: str, eta: float = 0.8) -> list[tuple[str, Any]]:
    return pair(str(root / positive), str(root / negative), eta)


def lone(root: Path, name: str, eta: float = 0.8, **said: Any) -> list[tuple[str, Any]]:
    said = {"preference": "helpful", "polarity": "positive", "eta": eta, **said}
    return [(str(root / name), said)]


def on(root: Path, inputs: list[tuple[str, Any]], base: str = "mine", **said: Any) -> Document:
    return recipe(str(root / base), inputs, {**ALLOWED, **said})


def written(document: Document, folder: Path) -> Path:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def changed(root: Path, terms: list[tuple[float, str]], base: str = "mine") -> State:
    """base + Σ factor · model: the formula, in float64."""
    found = {name: weight.double() for name, weight in state(root / base).items()}
    for factor, model in terms:
        for name, weight in state(root / model).items():
            found[name] = found[name] + factor * weight.double()
    return found


def both_ways(document: Document, tmp_path: Path) -> State:
    """Merge by stock mergekit and by ``run``; assert that the bits agree."""
    stock = state(mergekit_yaml(document, tmp_path / "stock"))
    run(written(document, tmp_path), tmp_path / "ours")
    ours = state(tmp_path / "ours")
    assert stock.keys() == ours.keys()
    for name, tensor in stock.items():
        assert torch.equal(tensor, ours[name]), name
    return ours


def assert_close(left: State, right: State) -> None:
    for name, tensor in right.items():
        assert largest_difference(left[name], tensor) < 2e-7, name


CASES: dict[str, tuple[Any, list[tuple[float, str]]]] = {
    "a pair": (lambda r: two(r, "helpful", "unhelpful"), [(0.8, "helpful"), (-0.8, "unhelpful")]),
    "a pair without manifests": (
        lambda r: two(r, "anonymous", "unanonymous"),
        [(0.8, "helpful"), (-0.8, "unhelpful")],
    ),
    "a lone positive, by its manifest": (
        lambda r: lone(r, "helpful"),
        [(0.8, "helpful"), (-0.8, "base")],
    ),
    "a lone positive, as the recipe says": (
        lambda r: lone(r, "anonymous", base=str(r / "base")),
        [(0.8, "helpful"), (-0.8, "base")],
    ),
    "its base as the other side": (
        lambda r: two(r, "anonymous", "base"),
        [(0.8, "helpful"), (-0.8, "base")],
    ),
    "policies of two bases": (
        lambda r: two(r, "helpful", "rude"),
        [(0.8, "helpful"), (-0.8, "base"), (-0.8, "rude"), (0.8, "second")],
    ),
    "two positives of one base, one negative of another": (
        lambda r: [*two(r, "helpful", "rude"), *lone(r, "unhelpful")],
        [(0.8, "helpful"), (0.8, "unhelpful"), (-1.6, "base"), (-0.8, "rude"), (0.8, "second")],
    ),
    "a vector": (
        lambda r: lone(r, "vector", polarity="vector"),
        [(0.8, "helpful"), (-0.8, "unhelpful")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_phi_is_formed_against_the_policies_own_base(case: str, root: Path, tmp_path: Path) -> None:
    inputs, terms = CASES[case]
    merged = both_ways(on(root, inputs(root)), tmp_path)
    assert_close(merged, changed(root, terms))


@pytest.mark.parametrize("threads", [1, 3])
def test_rounded_and_in_threads(threads: int, root: Path, tmp_path: Path) -> None:
    document = on(root, lone(root, "helpful", eta=0.5), round_to="bfloat16", seed=3)
    run(written(document, tmp_path), tmp_path / "ours", threads=threads)
    stock = state(mergekit_yaml(document, tmp_path / "stock"))
    for name, tensor in state(tmp_path / "ours").items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, stock[name]), name


def test_on_its_own_base_nothing_changes(root: Path, tmp_path: Path) -> None:
    with_word = on(root, lone(root, "helpful"), "base")
    without = recipe(str(root / "base"), lone(root, "helpful"))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    left, right = (
        both_ways(item, tmp_path / name) for item, name in ((with_word, "a"), (without, "b"))
    )
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def test_an_adapter_of_another_base(root: Path, tmp_path: Path) -> None:
    """For ``run`` its change as it is; for mergekit ``BASE+ADAPTER``, less that base."""
    kind = state(by_peft(root, "kind", tmp_path))
    expected = changed(root, [(-0.8, "base")])
    expected = {name: weight + 0.8 * kind[name].double() for name, weight in expected.items()}
    over = {"preference": "kind", "polarity": "positive", "eta": 0.8}
    document = on(root, [(f"{root}/base+{root}/kind", over)])
    stock = mergekit_yaml(document, tmp_path / "out", "--lora-merge-cache", str(tmp_path / "c"))
    assert_close(state(stock), expected)
    run(written(document, tmp_path), tmp_path / "ours")
    assert_close(state(tmp_path / "ours"), expected)
    alone = on(root, [(str(root / "kind"), over)])
    run(written(alone, tmp_path), tmp_path / "alone")
    assert_close(state(tmp_path / "alone"), expected)


def by_peft(root: Path, adapter: str, tmp_path: Path) -> str:
    live: Any = peft.PeftModel.from_pretrained(load(root / "base"), str(root / adapter))
    return save(live.merge_and_unload(), tmp_path / "by-peft")


def test_an_exported_adapter_is_over_the_other_fine_tune(root: Path, tmp_path: Path) -> None:
    document = on(root, [*lone(root, "thin", polarity="vector", preference="kind")])
    path = written(document, tmp_path)
    run(path, tmp_path / "merged")
    expected = state(tmp_path / "merged")
    export(path, tmp_path / "adapter")
    on_mine: Any = peft.PeftModel.from_pretrained(load(root / "mine"), str(tmp_path / "adapter"))
    weights = on_mine.merge_and_unload().state_dict()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(root / "mine")
    for name, tensor in expected.items():
        assert largest_difference(weights[name], tensor) < 1e-6, name


@pytest.mark.parametrize("case", ["a lone positive, by its manifest", "policies of two bases"])
def test_live(case: str, root: Path, tmp_path: Path) -> None:
    inputs, terms = CASES[case]
    model = load(root / "mine")
    with LiveMix(open_recipe(written(on(root, inputs(root)), tmp_path)), model) as mix:
        mix.set({"helpful": 0.8})
        assert_close(dict(model.state_dict()), changed(root, terms))
        mix.set({"helpful": -0.4})
        assert_close(dict(model.state_dict()), changed(root, [(-f / 2, m) for f, m in terms]))
        mix.reset()
    for name, tensor in state(root / "mine").items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_grid_starts_from_the_other_fine_tune(root: Path, tmp_path: Path) -> None:
    path = written(on(root, lone(root, "helpful")), tmp_path)
    arguments = ["run", str(path), str(tmp_path / "grid"), "--eta", "helpful=0,0.5"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert_close(state(tmp_path / "grid" / "helpful=0"), changed(root, []))
    terms = [(0.5, "helpful"), (-0.5, "base")]
    assert_close(state(tmp_path / "grid" / "helpful=0.5"), changed(root, terms))


# ---- what the check says --------------------------------------------------------------------------


def findings(document: Document, tmp_path: Path, level: str) -> list[Finding]:
    return [item for item in check(written(document, tmp_path)) if item.level == level]


def test_without_a_word_another_base_is_an_error_that_names_it(root: Path, tmp_path: Path) -> None:
    document = recipe(str(root / "mine"), lone(root, "vector", polarity="vector"))
    (found,) = findings(document, tmp_path, "error")
    assert found.topic is Topic.BASE and "allow_related_base: true" in found.text
    said = recipe(str(root / "mine"), lone(root, "anonymous", base=str(root / "base")))
    (found,) = findings(said, tmp_path, "error")
    assert f"says base: {root}/base, which is not {root}/mine" in found.text
    for bad in (document, said):
        with pytest.raises(AssertionError, match=r"Error: .*allow_related_base: true"):
            mergekit_yaml(bad, tmp_path / "out")
        assert not list((tmp_path / "out").glob("*.safetensors"))


def test_the_relation_is_measured_and_said(root: Path, tmp_path: Path) -> None:
    document = on(root, lone(root, "helpful"))
    (found,) = (f for f in findings(document, tmp_path, "note") if "put on" in f.text)
    assert f"{root}/helpful: made from {root}/base, put on {root}/mine. The two are related" in (
        found.text
    )
    assert "differ by 33" in found.text  # noise of 0.05 on weights of 0.15
    assert "helpful +0.0" in found.text or "helpful -0.0" in found.text


def test_the_cosine_with_phi_is_that_of_the_move(root: Path, tmp_path: Path) -> None:
    """A base that has moved by half a vector has cosine 1 with it."""
    moved = changed(root, [(0.5, "helpful"), (-0.5, "unhelpful")], "base")
    write_state(tmp_path / "moved", {k: v.float() for k, v in moved.items()}, root / "base")
    document = on(root, lone(root, "vector", polarity="vector"))
    document["base_model"] = str(tmp_path / "moved")
    (found,) = (f for f in findings(document, tmp_path, "note") if "put on" in f.text)
    assert "helpful +1.000" in found.text


@pytest.mark.parametrize(
    ("base", "inputs", "line"),
    [
        ("stranger", lambda r: lone(r, "helpful"), "is not related to"),
        ("stranger", lambda r: lone(r, "thin", polarity="vector"), "is not related to"),
        ("stranger", lambda r: two(r, "anonymous", "unanonymous"), "is unlike the base's"),
        ("mine", lambda r: lone(r, "anonymous"), "no manifest names the base that it was"),
        ("mine", lambda r: two(r, "anonymous", "rude"), "no manifest names the base that it was"),
        ("mine", lambda r: lone(r, "anonymous", base="./nowhere/x"), "which is not here"),
        ("mine", lambda r: lone(r, "helpful", base=str(r / "second")), "is not the base that it"),
    ],
)
def test_what_cannot_be_put_there(
    base: str, inputs: Any, line: str, root: Path, tmp_path: Path
) -> None:
    document = on(root, inputs(root), base)
    found = findings(document, tmp_path, "error")
    assert found and all(item.topic in (Topic.BASE, Topic.FOLDER) for item in found)
    assert any(line in item.text for item in found)
    with pytest.raises(PvMergeError, match=line):
        run(written(document, tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mergekit_refuses_what_it_cannot_form(root: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"Error: .*no manifest names the base that it was"):
        mergekit_yaml(on(root, lone(root, "anonymous")), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_another_vocabulary(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "mine", tmp_path / "mine")
    said = json.dumps({"model": {"vocab": {"b": 0}}})
    (tmp_path / "mine" / "tokenizer.json").write_text(said)
    document = on(root, lone(root, "thin", polarity="vector"))
    document["base_model"] = str(tmp_path / "mine")
    (found,) = findings(document, tmp_path, "error")
    assert "its tokenizer has another vocabulary than the base's" in found.text


def test_a_base_that_is_not_here_is_a_warning(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "thin", tmp_path / "thin")
    path = tmp_path / "thin" / "preference_vector.json"
    manifest = json.loads(path.read_text())
    manifest["base"]["path"] = "./models/gone"
    path.write_text(json.dumps(manifest))
    document = on(root, lone(tmp_path, "thin", polarity="vector"))
    found = [f for f in findings(document, tmp_path, "warning") if f.topic is Topic.BASE]
    assert len(found) == 1 and "made from ./models/gone, which is not here" in found[0].text
    said = on(root, lone(tmp_path, "thin", polarity="vector", base=str(root / "base")))
    assert not [f for f in findings(said, tmp_path, "warning") if f.topic is Topic.BASE]


# ---- what is said of the result -------------------------------------------------------------------


def test_the_card_says_whose_vector_was_put_on_whose_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    document = on(Path(), lone(Path(), "thin", polarity="vector"))
    document["base_model"] = "./mine"
    document["models"][0]["model"] = "./thin"
    path = written(document, tmp_path)
    result = CliRunner().invoke(main, ["run", str(path), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    card = " ".join((tmp_path / "out" / "README.md").read_text().split())
    assert "**Made on another model**: `./thin` (helpful) was made from" in card
    assert "and was put on `./mine`" in card
    document["parameters"] = {}
    document["base_model"] = "./base"
    run(written(document, tmp_path), tmp_path / "plain", finish=write_card)
    assert "Made on another model" not in (tmp_path / "plain" / "README.md").read_text()


def test_serving_allows_it_by_name(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "thin", tmp_path / "vectors" / "kind")
    call = ["serve-config", str(tmp_path / "vectors"), "--base", str(root / "mine")]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 1
    assert "PV_MERGE_SERVE_ALLOW_RELATED_BASE=1 serves it all the same" in result.stderr
    result = CliRunner().invoke(main, [*call, "--allow-related-base"])
    assert result.exit_code == 0, result.output
    assert "PV_MERGE_SERVE_ALLOW_RELATED_BASE=1" in result.stdout

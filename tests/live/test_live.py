"""``LiveMerge``: a recipe on a live model, equal to stock mergekit's output, and exactly undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pv_merge.errors import PvMergeError
from pv_merge.live.weights import LiveMerge
from pv_merge.recipe.opened import OpenRecipe
from pv_merge.recipe.opening import open_recipe

from models import (
    Model,
    added,
    largest_difference,
    load,
    logits,
    mergekit_yaml,
    pair,
    perturbed,
    recipe,
    save,
    state,
    tiny,
    write_state,
)
from policies import adapted, merged, save_adapter

Document = dict[str, Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("live")
    base = tiny()
    save(base, root / "base")
    for seed, name in enumerate(("helpful", "unhelpful", "polite", "rude"), start=1):
        save(perturbed(base, seed), root / name)
    return root


@pytest.fixture
def document(root: Path) -> Document:
    helpful = pair(str(root / "helpful"), str(root / "unhelpful"), 0.8)
    polite = pair(str(root / "polite"), str(root / "rude"), -0.3, "polite")
    return recipe(str(root / "base"), helpful + polite)


def read(document: Document, folder: Path) -> OpenRecipe:
    (folder / "recipe.yml").write_text(yaml.safe_dump(document))
    return open_recipe(folder / "recipe.yml")


def bits(model: Model) -> dict[str, bytes]:
    return {
        n: w.contiguous().view(torch.uint8).numpy().tobytes() for n, w in model.state_dict().items()
    }


SETTINGS: dict[str, Document] = {
    "plain": {},
    "consensus": {"sign_consensus": "sum"},
    "orthogonal": {"interference": "orthogonal"},
    "density": {"density": 0.4},
    "cap": {"max_relative_norm": 0.05},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_equals_stock_mergekit_bit_for_bit(
    case: str, root: Path, document: Document, tmp_path: Path
) -> None:
    document["parameters"] = SETTINGS[case]
    out = mergekit_yaml(document, tmp_path / "out")
    model = load(root / "base")
    LiveMerge(read(document, tmp_path), model).set({})
    assert bits(model) == bits(load(out))


def test_gradients_and_filters(root: Path, document: Document, tmp_path: Path) -> None:
    document["models"][0]["parameters"]["eta"] = [
        {"filter": "mlp", "value": [0.0, 1.0]},
        {"filter": "self_attn", "value": [-1, 0.25]},
        {"value": 0.125},
    ]
    document["models"][2]["parameters"]["density"] = [0.2, 0.7]
    out = mergekit_yaml(document, tmp_path / "out")
    model = load(root / "base")
    LiveMerge(read(document, tmp_path), model).set({})
    assert bits(model) == bits(load(out))


def test_any_etas_in_any_order(root: Path, document: Document, tmp_path: Path) -> None:
    model = load(root / "base")
    before = bits(model)
    live = LiveMerge(read(document, tmp_path), model)
    base, *policies = (
        load(root / name) for name in ("base", "helpful", "unhelpful", "polite", "rude")
    )

    @settings(max_examples=10)
    @given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=3))
    def check(moves: list[tuple[float, float]]) -> None:
        for first, second in moves:
            live.set({"helpful": first, "polite": second})
        expected = logits(added(base, [(first, *policies[:2]), (second, *policies[2:])]))
        assert largest_difference(logits(model), expected) < 2e-5 * max(
            1.0, float(expected.abs().max())
        )
        live.reset()
        assert bits(model) == before

    check()


def test_an_eta_that_is_not_named_stays_the_recipes(
    root: Path, document: Document, tmp_path: Path
) -> None:
    model = load(root / "base")
    LiveMerge(read(document, tmp_path), model).set({"helpful": 2.0})
    base, *policies = (
        load(root / name) for name in ("base", "helpful", "unhelpful", "polite", "rude")
    )
    expected = logits(added(base, [(2.0, *policies[:2]), (-0.3, *policies[2:])]))
    assert largest_difference(logits(model), expected) < 2e-5


def test_adapters_and_merged_policies_agree(root: Path, tmp_path: Path) -> None:
    base = str(root / "base")
    policies = [adapted(load(base), seed) for seed in (1, 2)]
    adapters = [save_adapter(p, tmp_path / f"a{n}", base) for n, p in enumerate(policies)]
    wholes = [save(merged(p), tmp_path / f"c{n}") for n, p in enumerate(policies)]
    results = []
    for positive, negative in (adapters, [f"{base}+{adapter}" for adapter in adapters], wholes):
        model = load(base)
        document = recipe(base, pair(positive, negative, 0.5))
        LiveMerge(read(document, tmp_path), model).set({})
        results.append(logits(model))
    assert torch.equal(results[0], results[1])
    assert largest_difference(results[0], results[2]) < 1e-5


def test_an_exception_in_the_block(root: Path, document: Document, tmp_path: Path) -> None:
    model = load(root / "base")
    before = bits(model)
    with pytest.raises(ZeroDivisionError), LiveMerge(read(document, tmp_path), model) as live:
        live.set({"helpful": 1.0})
        assert bits(model) != before
        raise ZeroDivisionError
    assert bits(model) == before


def test_bfloat16_comes_back_exactly(tmp_path: Path) -> None:
    base = tiny()
    folders = [
        save(m.to(torch.bfloat16), tmp_path / n)
        for n, m in (("b", tiny()), ("p", perturbed(base, 1)), ("n", perturbed(base, 2)))
    ]
    model = load(folders[0], torch.bfloat16)
    before = bits(model)
    document = recipe(folders[0], pair(folders[1], folders[2], 0.5))
    with LiveMerge(read(document, tmp_path), model) as live:
        live.set({})
        out = mergekit_yaml(document, tmp_path / "out")
        assert bits(model) == bits(load(out, torch.bfloat16))
    assert bits(model) == before


def test_tied_weights(tmp_path: Path) -> None:
    base = tiny(tied=True)
    folders = [
        save(m, tmp_path / n)
        for n, m in (("b", base), ("p", perturbed(base, 1)), ("n", perturbed(base, 2)))
    ]
    model = load(folders[0])
    document = recipe(folders[0], pair(folders[1], folders[2], 0.5))
    LiveMerge(read(document, tmp_path), model).set({})
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert torch.equal(logits(model), logits(mergekit_yaml(document, tmp_path / "out")))


def test_unknown_preference(root: Path, document: Document, tmp_path: Path) -> None:
    model = load(root / "base")
    before = bits(model)
    live = LiveMerge(read(document, tmp_path), model)
    with pytest.raises(PvMergeError, match=r"has no preference 'helpfull'; did you mean helpful\?"):
        live.set({"helpfull": 1.0})
    assert bits(model) == before


def test_a_model_with_other_names(root: Path, document: Document, tmp_path: Path) -> None:
    # transformers 5 keeps the experts of a mixture fused, and stores them apart.
    other = tiny("GPT-2")
    message = r"is not a weight of the live model GPT2LMHeadModel; merge to disk instead"
    with pytest.raises(PvMergeError, match=message):
        LiveMerge(read(document, tmp_path), other)


def test_only_what_moves_is_written(root: Path, tmp_path: Path) -> None:
    base = state(root / "base")
    policy = {name: weight.clone() for name, weight in base.items()}
    policy["model.norm.weight"][0] += 1
    folder = write_state(tmp_path / "policy", policy, root / "base")
    said = {"preference": "p", "polarity": "positive", "eta": 1.0}
    live = LiveMerge(
        read(recipe(str(root / "base"), [(folder, said)]), tmp_path), load(root / "base")
    )
    assert list(live._weights) == ["model.norm.weight"]

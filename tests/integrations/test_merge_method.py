"""The method through stock mergekit-yaml: against task_arithmetic, and against ten lines of torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from click.testing import CliRunner
from mergekit.merge_methods import merge_tensors
from torch import Tensor

from pv_merge.errors import PvMergeError

from models import (
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
from policies import say

State = dict[str, Tensor]


class Models(NamedTuple):
    base: str
    helpful: str
    unhelpful: str
    polite: str
    rude: str

    @property
    def helpfulness(self) -> tuple[str, str]:
        return self.helpful, self.unhelpful

    @property
    def politeness(self) -> tuple[str, str]:
        return self.polite, self.rude


def make(root: Path, dtype: torch.dtype = torch.float32, **said: Any) -> Models:
    base = tiny(**said)
    folders = [save(base.to(dtype), root / "base")]
    base = base.float()
    for seed, name in enumerate(("helpful", "unhelpful", "polite", "rude"), start=1):
        folders.append(save(perturbed(base, seed).to(dtype), root / name))
    return Models(*folders)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return make(tmp_path_factory.mktemp("float32"))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return make(tmp_path_factory.mktemp("bfloat16"), torch.bfloat16)


def formula(base: State, terms: list[tuple[float, State, State]]) -> State:
    """base + Σ eta·((positive − base) − (negative − base)): the ten lines."""
    merged = {}
    for name, weight in base.items():
        steps = []
        for eta, positive, negative in terms:
            delta = positive[name].float() - weight.float()
            delta -= negative[name].float() - weight.float()
            steps.append(delta * eta)
        merged[name] = weight.float() + sum(steps[1:], steps[0])
    return merged


def assert_same(left: State, right: State) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert torch.equal(left[name], right[name]), name


def two(models: Models, first: Any, second: Any) -> list[tuple[str, dict[str, Any]]]:
    return pair(*models.helpfulness, first) + pair(*models.politeness, second, "polite")


# ---- two independent routes ----------------------------------------------------------------------


@pytest.mark.parametrize("etas", [(1.0, 0.5), (-0.75, 2.0), (0.3, 0.0), (0.0, 0.0)])
def test_equals_ten_lines_of_torch_bit_for_bit(
    etas: tuple[float, float], models: Models, tmp_path: Path
) -> None:
    merged = state(mergekit_yaml(recipe(models.base, two(models, *etas)), tmp_path / "out"))
    helpful, unhelpful, polite, rude = map(state, models[1:])
    terms = [(etas[0], helpful, unhelpful), (etas[1], polite, rude)]
    terms = [term for term in terms if term[0] != 0] or [(0.0, helpful, unhelpful)]
    assert_same(merged, formula(state(models.base), terms))


def test_equals_task_arithmetic(models: Models, tmp_path: Path) -> None:
    etas = (0.8, -0.4)
    ours = state(mergekit_yaml(recipe(models.base, two(models, *etas)), tmp_path / "ours"))
    document = {
        "merge_method": "task_arithmetic",
        "base_model": models.base,
        "models": [
            {"model": folder, "parameters": {"weight": weight}}
            for folder, weight in zip(models[1:], (0.8, -0.8, -0.4, 0.4), strict=True)
        ],
        "parameters": {"normalize": False},
        "dtype": "float32",
    }
    theirs = state(mergekit_yaml(document, tmp_path / "theirs"))
    assert ours.keys() == theirs.keys()
    # Both round to float32 a few times; weights are below 1.
    assert max(largest_difference(ours[name], theirs[name]) for name in ours) < 4 * 2**-23


def test_the_merged_model_runs(models: Models, tmp_path: Path) -> None:
    out = mergekit_yaml(recipe(models.base, pair(*models.helpfulness, 1.0)), tmp_path / "out")
    assert largest_difference(logits(out), logits(models.base)) > 0.1


def test_shards_and_threads_do_not_show(narrow: Models, tmp_path: Path) -> None:
    document = recipe(narrow.base, two(narrow, 0.5, -0.25))
    one = state(mergekit_yaml(document, tmp_path / "one"))
    out = mergekit_yaml(document, tmp_path / "many", "--out-shard-size", "10K", "--async-write")
    assert len(list(Path(out).glob("*.safetensors"))) > 2
    assert_same(one, state(out))


def test_order_of_inputs_does_not_show(models: Models, tmp_path: Path) -> None:
    inputs = pair(*models.helpfulness, 0.5)
    straight = state(mergekit_yaml(recipe(models.base, inputs), tmp_path / "straight"))
    turned = state(mergekit_yaml(recipe(models.base, inputs[::-1]), tmp_path / "turned"))
    for name in straight:
        assert largest_difference(straight[name], turned[name]) < 2**-23


# ---- settings ------------------------------------------------------------------------------------


def test_eta_may_stand_at_each_input_or_at_the_top(models: Models, tmp_path: Path) -> None:
    once = recipe(models.base, pair(*models.helpfulness, 0.5))
    both = recipe(models.base, pair(*models.helpfulness, 0.5))
    both["models"][1]["parameters"]["eta"] = 0.5
    top = recipe(models.base, pair(*models.helpfulness, 0.5), {"eta": 0.5})
    del top["models"][0]["parameters"]["eta"]
    results = [state(mergekit_yaml(d, tmp_path / str(n))) for n, d in enumerate((once, both, top))]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_gradients_and_filters(models: Models, tmp_path: Path) -> None:
    eta = [{"filter": "mlp", "value": [0.0, 1.0]}, {"filter": "norm", "value": 0}, {"value": -2.0}]
    out = mergekit_yaml(recipe(models.base, pair(*models.helpfulness, eta)), tmp_path / "out")
    merged, base = state(out), state(models.base)
    positive, negative = map(state, models.helpfulness)
    for name in base:
        expected = 0.0 if "norm" in name else -2.0
        if "mlp" in name:
            expected = float(".layers.1." in name)  # 0 in the first layer, 1 in the last
        plain = formula({name: base[name]}, [(expected, positive, negative)])[name]
        assert torch.equal(merged[name], base[name] if expected == 0 else plain), name


def test_positive_policy_alone_is_a_task_vector(models: Models, tmp_path: Path) -> None:
    inputs = [(models.helpful, {"preference": "helpful", "polarity": "positive", "eta": 1.0})]
    merged = state(mergekit_yaml(recipe(models.base, inputs), tmp_path / "out"))
    policy = state(models.helpful)
    for name in policy:
        assert largest_difference(merged[name], policy[name]) < 2**-23


def test_dense_vectors_count_as_they_are(models: Models, tmp_path: Path) -> None:
    helpful, unhelpful = map(state, models.helpfulness)
    phi = {name: helpful[name] - unhelpful[name] for name in helpful}
    folder = write_state(tmp_path / "vector", phi, models.base)
    inputs = [(folder, {"preference": "helpful", "polarity": "vector", "eta": -0.5})]
    merged = state(mergekit_yaml(recipe(models.base, inputs), tmp_path / "out"))
    base = state(models.base)
    assert_same(merged, {name: base[name] + phi[name] * -0.5 for name in base})


def test_vector_and_policies_of_one_preference_add_up(models: Models, tmp_path: Path) -> None:
    base = state(models.base)
    ones = {name: torch.ones_like(weight) for name, weight in base.items()}
    folder = write_state(tmp_path / "ones", ones, models.base)
    inputs = pair(*models.helpfulness, 0.5)
    inputs.append((folder, {"preference": "helpful", "polarity": "vector"}))
    merged = state(mergekit_yaml(recipe(models.base, inputs), tmp_path / "out"))
    helpful, unhelpful = map(state, models.helpfulness)
    for name, weight in base.items():
        phi = (helpful[name] - weight) - (unhelpful[name] - weight) + 1
        assert torch.equal(merged[name], weight + phi * 0.5)


def test_controls_reach_the_arithmetic(models: Models, tmp_path: Path) -> None:
    from pv_merge.arithmetic.merge import merge
    from pv_merge.arithmetic.terms import Controls, PreferenceInputs

    inputs = two(models, 0.5, -0.25)
    inputs[0][1]["density"] = 0.3
    inputs[2][1]["max_relative_norm"] = 0.05
    shared = {"sign_consensus": "count", "interference": "orthogonal"}
    shared |= {"round_to": "float16", "seed": 5}  # type: ignore[dict-item]
    merged = state(mergekit_yaml(recipe(models.base, inputs, shared), tmp_path / "out"))
    base, helpful, unhelpful, polite, rude = map(state, models)
    controls = Controls("count", "orthogonal", "stochastic", 5)
    for name, weight in base.items():
        preferences = [
            PreferenceInputs("a", 0.5, (helpful[name],), (unhelpful[name],), density=0.3),
            PreferenceInputs("b", -0.25, (polite[name],), (rude[name],), max_relative_norm=0.05),
        ]
        direct = merge(weight, preferences, controls, dtype=torch.float16, name=name)
        assert torch.equal(merged[name], direct), name


# ---- dtypes --------------------------------------------------------------------------------------


def test_bfloat16_inputs_give_bfloat16_stochastically(narrow: Models, tmp_path: Path) -> None:
    merged = state(mergekit_yaml(recipe(narrow.base, two(narrow, 0.5, 0.5)), tmp_path / "out"))
    helpful, unhelpful, polite, rude = map(state, narrow[1:])
    exact = formula(state(narrow.base), [(0.5, helpful, unhelpful), (0.5, polite, rude)])
    for name, weight in merged.items():
        assert weight.dtype is torch.bfloat16
        step = exact[name].abs().clamp(min=1e-6) * 2**-7
        assert bool(((weight.float() - exact[name]).abs() <= step).all())
    differ = sum(int((merged[n] != exact[n].bfloat16()).sum()) for n in merged)
    assert differ > 100


def test_rounding_nearest_is_a_cast(narrow: Models, tmp_path: Path) -> None:
    document = recipe(narrow.base, pair(*narrow.helpfulness, 0.5), {"rounding": "nearest"})
    merged = state(mergekit_yaml(document, tmp_path / "out"))
    helpful, unhelpful = map(state, narrow.helpfulness)
    exact = formula(state(narrow.base), [(0.5, helpful, unhelpful)])
    assert_same(merged, {name: weight.bfloat16() for name, weight in exact.items()})


def test_bfloat16_base_with_float32_vector(narrow: Models, models: Models, tmp_path: Path) -> None:
    helpful, unhelpful = map(state, models.helpfulness)
    phi = {name: helpful[name] - unhelpful[name] for name in helpful}
    folder = write_state(tmp_path / "vector", phi, models.base)
    inputs = [(folder, {"preference": "helpful", "polarity": "vector", "eta": 0.5})]
    base = state(narrow.base)
    exact = {name: base[name].float() + phi[name] * 0.5 for name in base}
    # Left to itself, the widest input's dtype comes out, and nothing is lost.
    assert_same(state(mergekit_yaml(recipe(narrow.base, inputs), tmp_path / "wide")), exact)
    said = {"round_to": "bfloat16"}
    rounded = state(mergekit_yaml(recipe(narrow.base, inputs, said), tmp_path / "narrow"))
    again = recipe(narrow.base, inputs, said, out_dtype="bfloat16")
    assert_same(rounded, state(mergekit_yaml(again, tmp_path / "again")))
    # A second rounding by mergekit's out_dtype does not disturb the first.
    for name in exact:
        error = (rounded[name].float() - exact[name]).abs()
        assert bool((error <= exact[name].abs().clamp(min=1e-6) * 2**-7).all())
    share = sum(float(((rounded[n].float() - base[n].float()) * phi[n]).sum()) for n in phi) / sum(
        float((0.5 * phi[n] ** 2).sum()) for n in phi
    )
    assert share == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtype_converts_the_inputs(dtype: str, narrow: Models, tmp_path: Path) -> None:
    document = recipe(narrow.base, pair(*narrow.helpfulness, 0.5), dtype=dtype)
    merged = state(mergekit_yaml(document, tmp_path / "out"))
    helpful, unhelpful = map(state, narrow.helpfulness)
    exact = formula(state(narrow.base), [(0.5, helpful, unhelpful)])
    for name, weight in merged.items():
        assert weight.dtype is getattr(torch, dtype)
        assert largest_difference(weight, exact[name]) <= (0 if dtype == "float32" else 2e-3)


def test_a_tensor_that_nothing_moves_keeps_its_bits(narrow: Models, tmp_path: Path) -> None:
    base = state(narrow.base)
    base["model.norm.weight"][:2] = torch.tensor([-0.0, 1 / 3])
    folder = write_state(tmp_path / "base", base, narrow.base)
    policy = {**state(narrow.helpful), "model.norm.weight": base["model.norm.weight"]}
    helpful = write_state(tmp_path / "helpful", policy, narrow.base)
    inputs = [(helpful, {"preference": "helpful", "polarity": "positive", "eta": 1.0})]
    inputs[0][1]["eta"] = [{"filter": "mlp", "value": 0.0}, {"value": 0.7}]
    merged = state(mergekit_yaml(recipe(folder, inputs), tmp_path / "out"))
    for name, weight in base.items():
        unmoved = "mlp" in name or name == "model.norm.weight"
        equal = torch.equal(merged[name].view(torch.int16), weight.view(torch.int16))
        assert equal == unmoved, name


# ---- structure -----------------------------------------------------------------------------------


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    models = make(tmp_path, tied=True)
    out = mergekit_yaml(recipe(models.base, pair(*models.helpfulness, 0.5)), tmp_path / "out")
    merged = state(out)
    assert "lm_head.weight" not in merged
    helpful, unhelpful = map(state, models.helpfulness)
    assert_same(merged, formula(state(models.base), [(0.5, helpful, unhelpful)]))
    live = load(out)
    assert live.get_input_embeddings().weight is live.get_output_embeddings().weight


def test_integer_buffers_are_copied(models: Models, tmp_path: Path) -> None:
    from mergekit.merge_methods import merge_state_dicts

    buffer = torch.arange(4)
    states = [{"w": torch.full((2,), value), "position_ids": buffer} for value in (1.0, 3.0, 2.0)]
    merged = merge_state_dicts(
        dict(zip(("base", "positive", "negative"), states, strict=True)),
        "preference_vector",
        base="base",
        parameters={
            "preference": {"positive": "helpful", "negative": "helpful"},
            "polarity": {"positive": "positive", "negative": "negative"},
            "eta": {"positive": 0.5, "negative": None},
        },
    )
    assert merged["w"].tolist() == [1.5, 1.5]
    assert (
        torch.equal(merged["position_ids"], buffer) and merged["position_ids"].dtype is torch.int64
    )


# ---- bad input -----------------------------------------------------------------------------------


def edited(models: Models, **changes: Any) -> dict[str, Any]:
    document = recipe(models.base, pair(*models.helpfulness, 0.5))
    said = document["models"][0]["parameters"] | changes
    document["models"][0]["parameters"] = {
        key: value for key, value in said.items() if value is not None
    }
    return document


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt eta": (
        {"eta": None, "etaa": 0.5},
        "helpful: none of its inputs has an eta; it has no default (is the key misspelt?)",
    ),
    "wrong polarity": (
        {"polarity": "postive"},
        "unknown polarity 'postive'; did you mean positive?",
    ),
    "no polarity": ({"polarity": None}, "has no polarity; it is one of positive, negative, vector"),
    "no preference": ({"preference": None}, "has no preference; is the key misspelt?"),
    "another preference": ({"preference": "helpfull"}, "helpful: none of its inputs has an eta"),
}


def fails(document: dict[str, Any], tmp_path: Path) -> str:
    """Merge through mergekit-yaml's own click command; return what it prints."""
    from mergekit.scripts.run_yaml import main

    path, out = tmp_path / "recipe.yml", tmp_path / "out"
    path.write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(main, [str(path), str(out), "--no-copy-tokenizer", "--quiet"])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert not out.exists() or not list(out.iterdir())
    error = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1, result.output
    return error[0]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, models: Models, tmp_path: Path) -> None:
    changes, message = MISTAKES[mistake]
    assert message in fails(edited(models, **changes), tmp_path)


def test_disagreeing_eta(models: Models, tmp_path: Path) -> None:
    document = edited(models)
    document["models"][1]["parameters"]["eta"] = 0.7
    message = fails(document, tmp_path)
    assert "helpful: its inputs disagree on eta (0.5 and 0.7); say it once" in message


def test_another_vocabulary(models: Models, tmp_path: Path) -> None:
    other = save(tiny(vocab_size=97), tmp_path / "other")
    document = edited(models)
    document["models"][1]["model"] = other
    message = fails(document, tmp_path)
    assert f"{other}: has 97 rows in " in message
    assert f"the base 96 ({models.base}); does its tokenizer have other tokens?" in message


def test_another_base_by_its_manifest(models: Models, tmp_path: Path) -> None:
    for number, folder in enumerate(models.helpfulness):
        shutil.copytree(folder, tmp_path / f"p{number}")
    say(str(tmp_path / "p1"), kind="policy", base_model={"weights_sha256": "0" * 64})
    document = recipe(models.base, pair(str(tmp_path / "p0"), str(tmp_path / "p1"), 0.5))
    message = fails(document, tmp_path)
    assert f"p1: was made from another base than {models.base}" in message


@pytest.mark.parametrize("where", [0, 1])
def test_whole_numbers_are_no_weights(where: int, models: Models, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    folders = [models.base, *models.helpfulness]
    tensors = state(folders[where])
    tensors[name] = (tensors[name] * 100).to(torch.int8)
    folders[where] = write_state(tmp_path / "odd", tensors, models.base)
    message = fails(recipe(folders[0], pair(folders[1], folders[2], 0.5)), tmp_path)
    said = ("I8", "F32") if where else ("F32", "I8")
    assert f"stores {name} as {said[0]}, the base {folders[0]} as {said[1]}" in message


def test_another_size(models: Models, tmp_path: Path) -> None:
    other = save(tiny(intermediate_size=56), tmp_path / "other")
    document = edited(models)
    document["models"][1]["model"] = other
    message = fails(document, tmp_path)
    assert f"{other}: has " in message and "were both trained from it?" in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("density", 1.5, "parameters: density must be in (0, 1], got 1.5"),
        ("density", 0, "parameters: density must be in (0, 1], got 0"),
        (
            "max_relative_norm",
            -1.0,
            "parameters: max_relative_norm must be a positive number, got -1",
        ),
        ("eta", float("nan"), "parameters: eta must be a finite number in float32, got nan"),
        ("eta", "half", "parameters: eta must be a finite number in float32, got 'half'"),
        ("eta", [0.5, "half"], "parameters: eta must be a finite number in float32, got 'half'"),
    ],
)
def test_numbers_out_of_range(
    key: str, value: Any, message: str, models: Models, tmp_path: Path
) -> None:
    assert fails(edited(models, **{key: value}), tmp_path) == f"Error: {message}"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rounding": "up"}, "rounding must be one of stochastic, nearest, got 'up'"),
        ({"round_to": "bf16"}, "round_to must be one of bfloat16, float16, got 'bf16'"),
        ({"sign_consensus": "mean"}, "sign_consensus must be one of none, sum, count, got 'mean'"),
        ({"interference": "none "}, "interference must be one of none, orthogonal, got 'none '"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
    ],
)
def test_settings_that_are_unknown(
    said: dict[str, Any], message: str, models: Models, tmp_path: Path
) -> None:
    document = edited(models) | {"parameters": said}
    assert fails(document, tmp_path) == f"Error: parameters: {message}"


@pytest.mark.slow
def test_through_the_console_script(models: Models, tmp_path: Path) -> None:
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(edited(models, polarity="good")))
    script = Path(sys.executable).parent / "mergekit-yaml"
    done = subprocess.run(
        [str(script), str(tmp_path / "recipe.yml"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    expected = (
        f"Error: {models.helpful}: unknown polarity 'good'; known: negative, positive, vector"
    )
    assert done.stderr.splitlines()[-1] == expected


def test_a_negative_eta_on_a_protected_preference_needs_a_word() -> None:
    base, positive, negative = torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([2.0])

    def merged(**said: Any) -> Tensor:
        parameters = {
            "preference": ["harmless"] * 2,
            "polarity": ["positive", "negative"],
            "eta": [-0.5] * 2,
            **said,
        }
        return merge_tensors(
            [base, positive, negative], "preference_vector", base_index=0, parameters=parameters
        )

    with pytest.raises(PvMergeError, match="harmless is a protected preference"):
        merged()
    assert merged(allow_protected_negative=True).tolist() == [0.5]

"""``PreferenceController``: the same logits as a merged checkpoint, and exactly undone."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pv_merge import PreferenceController, PreferenceVector
from pv_merge.errors import PvMergeError
from pv_merge.merging.extract import ExtractOptions, extract

from models import (
    PROMPT,
    Model,
    largest_difference,
    load,
    logits,
    mergekit_yaml,
    perturbed,
    recipe,
    save,
    tiny,
)
from policies import adapted, save_adapter

Vectors = dict[str, PreferenceVector]


class Folders(NamedTuple):
    base: str
    dense: dict[str, str]
    thin: dict[str, str]
    """The same two vectors (of adapters), in low-rank form."""
    full: dict[str, str]
    """Two vectors that move every weight."""


def make(root: Path, family: str = "Llama", tied: bool = False, **said: Any) -> Folders:
    model = tiny(family, tied=tied)
    base = save(model, root / "base")
    found: list[dict[str, str]] = [{}, {}, {}]
    for number, name in enumerate(("helpful", "polite")):
        adapters = [
            save_adapter(adapted(model, 2 * number + n, **said), root / f"{name}-a{n}", base)
            for n in (1, 2)
        ]
        policies = [
            save(perturbed(model, 9 + 2 * number + n), root / f"{name}-f{n}") for n in (1, 2)
        ]
        for form, (sides, low_rank) in enumerate(
            ((adapters, False), (adapters, True), (policies, False))
        ):
            folder = root / f"{name}-{form}"
            extract(*sides, folder, ExtractOptions(base, name, low_rank))
            found[form][name] = str(folder)
    return Folders(base, *found)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make(tmp_path_factory.mktemp("vectors"))


@pytest.fixture
def model(folders: Folders) -> Model:
    return load(folders.base)


def opened(named: dict[str, str]) -> Vectors:
    return {name: PreferenceVector.load(folder) for name, folder in named.items()}


def snapshot(model: Model) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def unchanged(model: Model, before: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[n], before[n]) for n in before)


def on_disk(folders: Folders, named: dict[str, str], etas: dict[str, float], out: Path) -> str:
    inputs = [
        (named[name], {"preference": name, "polarity": "vector", "eta": eta})
        for name, eta in etas.items()
    ]
    return mergekit_yaml(recipe(folders.base, inputs), out)


ETAS = {"helpful": 0.8, "polite": -0.3}


# ---- the same model as on disk -------------------------------------------------------------------


@pytest.mark.parametrize("form", ["dense", "full"])
def test_dense_is_the_merged_checkpoint_bit_for_bit(
    form: str, folders: Folders, model: Model, tmp_path: Path
) -> None:
    named = getattr(folders, form)
    control = PreferenceController(model, opened(named))
    control.set(**ETAS)
    out = on_disk(folders, named, ETAS, tmp_path / "out")
    assert unchanged(load(out), snapshot(model))
    assert torch.equal(logits(model), logits(out))


def test_low_rank_gives_the_logits_of_the_merged_checkpoint(
    folders: Folders, model: Model, tmp_path: Path
) -> None:
    control = PreferenceController(model, opened(folders.thin))
    control.set(**ETAS)
    out = on_disk(folders, folders.dense, ETAS, tmp_path / "out")
    # Logits of about 3; a sum of three products is rounded in another order.
    assert largest_difference(logits(model), logits(out)) < 1e-5
    assert largest_difference(logits(model), logits(folders.base)) > 0.1


def test_low_rank_vectors_may_be_written_into_the_weights(folders: Folders, model: Model) -> None:
    thin = copy.deepcopy(model)
    PreferenceController(thin, opened(folders.thin)).set(**ETAS)
    PreferenceController(model, opened(folders.thin), dense=True).set(**ETAS)
    assert largest_difference(logits(model), logits(thin)) < 1e-5
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_low_rank_never_moves_a_weight(folders: Folders, model: Model) -> None:
    before = dict(model.named_parameters())
    values = {name: weight.clone() for name, weight in before.items()}
    control = PreferenceController(model, opened(folders.thin))
    control.set(**ETAS)
    logits(model)
    control.close()
    for name, weight in model.named_parameters():
        assert weight is before[name] and torch.equal(weight, values[name])


steps = st.lists(
    st.dictionaries(
        st.sampled_from(["helpful", "polite"]),
        st.floats(-3, 3).map(lambda eta: round(eta, 3)),
        min_size=1,
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("form", ["thin", "dense", "full"])
def test_any_etas_in_any_order(form: str, folders: Folders) -> None:
    model = load(folders.base)
    before, plain = snapshot(model), logits(model)
    vectors = opened(getattr(folders, form))
    control = PreferenceController(model, vectors)
    kept = snapshot(model)

    @settings(max_examples=12)
    @given(steps)
    def check(moves: list[dict[str, float]]) -> None:
        etas = {"helpful": 0.0, "polite": 0.0}
        for move in moves:
            control.set(**move)
            etas |= move
        assert control.eta == etas
        merged = load(folders.base)
        with torch.no_grad():
            for name, parameter in merged.named_parameters():
                for label, eta in etas.items():
                    if name in vectors[label]:
                        parameter += eta * vectors[label].dense(name)
        expected = logits(merged)
        assert largest_difference(logits(model), expected) < 2e-5 * max(
            1.0, float(expected.abs().max())
        )
        control.reset()
        assert unchanged(model, kept)
        assert torch.equal(logits(model), plain)

    check()
    control.close()
    assert unchanged(model, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["thin", "full"])
def test_narrow_models_come_back_exactly(form: str, dtype: torch.dtype, folders: Folders) -> None:
    model = load(folders.base, dtype)
    before, plain = snapshot(model), logits(model)
    control = PreferenceController(model, opened(getattr(folders, form)))
    control.set(helpful=0.37, polite=-1.21)
    assert largest_difference(logits(model), plain) > 0.05
    control.reset()
    assert torch.equal(logits(model), plain)
    control.close()
    assert unchanged(model, before)


def test_setting_again_is_no_addition(folders: Folders, model: Model) -> None:
    control = PreferenceController(model, opened(folders.full))
    control.set(helpful=0.5)
    once = logits(model)
    control.set(helpful=0.5)
    assert torch.equal(logits(model), once)
    control.set(polite=1.0)
    control.set(polite=0.0)
    assert torch.equal(logits(model), once)
    assert control.eta == {"helpful": 0.5, "polite": 0.0}


def test_generate(folders: Folders, model: Model, tmp_path: Path) -> None:
    said: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    merged = load(on_disk(folders, folders.dense, ETAS, tmp_path / "out"))
    expected, plain = merged.generate(PROMPT, **said), model.generate(PROMPT, **said)
    assert not torch.equal(expected, plain)
    for form in ("thin", "dense"):
        with PreferenceController(model, opened(getattr(folders, form))) as control:
            control.set(**ETAS)
            assert torch.equal(model.generate(PROMPT, **said), expected)
        assert torch.equal(model.generate(PROMPT, **said), plain)
        control.close()


@pytest.mark.parametrize("form", ["thin", "full"])
def test_tied_weights(form: str, tmp_path: Path) -> None:
    said: dict[str, Any] = {}
    if form == "thin":
        said["target_modules"] = ["embed_tokens", "q_proj"]
    folders = make(tmp_path, tied=True, **said)
    model = load(folders.base)
    before = snapshot(model)
    control = PreferenceController(model, opened(getattr(folders, form)))
    control.set(**ETAS)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    named = folders.dense if form == "thin" else folders.full
    out = on_disk(folders, named, ETAS, tmp_path / "out")
    assert largest_difference(logits(model), logits(out)) < 1e-5
    control.close()
    assert unchanged(model, before)


@pytest.mark.parametrize("form", ["thin", "full"])
def test_conv1d(form: str, tmp_path: Path) -> None:
    modules = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
    folders = make(tmp_path, "GPT-2", tied=True, **modules)
    model = load(folders.base)
    control = PreferenceController(model, opened(getattr(folders, form)))
    control.set(**ETAS)
    named = folders.dense if form == "thin" else folders.full
    out = on_disk(folders, named, ETAS, tmp_path / "out")
    assert largest_difference(logits(model), logits(out)) < 1e-5


def test_conv1d_from_truncated_policies(tmp_path: Path) -> None:
    base = tiny("GPT-2", tied=True)
    folder = save(base, tmp_path / "base")
    sides = [save(perturbed(base, seed), tmp_path / str(seed)) for seed in (1, 2)]
    extract(*sides, tmp_path / "vector", ExtractOptions(folder, "helpful", low_rank=True, rank=3))
    vector = PreferenceVector.load(tmp_path / "vector")
    for dense in (False, True):
        model = load(folder)
        control = PreferenceController(model, {"helpful": vector}, dense=dense)
        control.set(helpful=0.5)
        merged = load(folder)
        with torch.no_grad():
            for name in vector.names:
                merged.get_parameter(name).add_(0.5 * vector.dense(name))
        assert largest_difference(logits(model), logits(merged)) < 1e-5


def test_dense_and_low_rank_mixed(folders: Folders, model: Model) -> None:
    vectors = {
        "helpful": PreferenceVector.load(folders.thin["helpful"]),
        "polite": PreferenceVector.load(folders.full["polite"]),
    }
    PreferenceController(model, vectors).set(**ETAS)
    merged = load(folders.base)
    with torch.no_grad():
        for label, vector in vectors.items():
            for name in vector.names:
                merged.get_parameter(name).add_(ETAS[label] * vector.dense(name))
    assert largest_difference(logits(model), logits(merged)) < 1e-5


def test_vectors_over_different_modules(folders: Folders, tmp_path: Path) -> None:
    base = tiny()
    vectors: Vectors = {}
    for seed, (label, modules) in enumerate(
        {"a": ["q_proj"], "b": ["q_proj", "down_proj"], "c": ["lm_head"]}.items()
    ):
        policy = adapted(base, seed, target_modules=modules, r=seed + 1)
        vectors[label] = PreferenceVector.load(save_adapter(policy, tmp_path / label, folders.base))
    etas = {"a": 1.0, "b": -0.5, "c": 0.25}
    model, merged = load(folders.base), load(folders.base)
    control = PreferenceController(model, vectors)
    with torch.no_grad():
        for label, vector in vectors.items():
            control.set(**{label: etas[label]})
            for name in vector.names:
                merged.get_parameter(name).add_(etas[label] * vector.dense(name))
            assert largest_difference(logits(model), logits(merged)) < 1e-5
    control.set(a=0.0, c=0.0)
    only = load(folders.base)
    with torch.no_grad():
        for name in vectors["b"].names:
            only.get_parameter(name).add_(-0.5 * vectors["b"].dense(name))
    assert largest_difference(logits(model), logits(only)) < 1e-5


def test_a_device_map(folders: Folders) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folders.base, dtype=torch.float32, device_map={"": "cpu"}
    ).eval()
    plain = load(folders.base)
    for live in (model, plain):
        PreferenceController(live, opened(folders.full)).set(**ETAS)
    assert torch.equal(logits(model), logits(plain))


# ---- undoing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["thin", "full"])
def test_an_exception_in_the_block(form: str, folders: Folders, model: Model) -> None:
    plain = logits(model)
    control = PreferenceController(model, opened(getattr(folders, form)))
    kept = snapshot(model)
    with pytest.raises(ZeroDivisionError), control:
        control.set(**ETAS)
        raise ZeroDivisionError
    assert control.eta == {"helpful": 0.0, "polite": 0.0}
    assert unchanged(model, kept) and torch.equal(logits(model), plain)


@pytest.mark.parametrize("form", ["thin", "full"])
def test_close_leaves_the_model_as_it_was(form: str, folders: Folders, model: Model) -> None:
    attributes = set(vars(model))
    kinds = {name: type(module) for name, module in model.named_modules()}
    model.lm_head.weight.requires_grad_(False)
    training = {name: p.requires_grad for name, p in model.named_parameters()}
    control = PreferenceController(model, opened(getattr(folders, form)))
    control.set(**ETAS)
    control.close()
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert {name: p.requires_grad for name, p in model.named_parameters()} == training
    assert set(vars(model)) == attributes
    again = PreferenceController(model, opened(getattr(folders, form)))
    again.set(helpful=1.0)
    assert largest_difference(logits(model), logits(folders.base)) > 0.1


def test_nothing_is_left_to_train(folders: Folders, model: Model) -> None:
    before = {name for name, p in model.named_parameters() if p.requires_grad}
    PreferenceController(model, opened(folders.thin))
    after = {
        name.replace(".base_layer", "") for name, p in model.named_parameters() if p.requires_grad
    }
    assert after == before


# ---- threads and mistakes ------------------------------------------------------------------------


def test_a_second_thread_is_refused(
    folders: Folders, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = PreferenceController(model, opened(folders.full))
    inside, leave = threading.Event(), threading.Event()
    usual = control._way.set

    def slow(etas: dict[str, float]) -> None:
        inside.set()
        assert leave.wait(30)
        usual(etas)

    monkeypatch.setattr(control._way, "set", slow)
    first = threading.Thread(target=lambda: control.set(helpful=0.5))
    first.start()
    assert inside.wait(30)
    for change in (lambda: control.set(helpful=1.0), control.reset):
        with pytest.raises(PvMergeError, match="another thread is changing eta of this model"):
            change()
    leave.set()
    first.join()
    assert control.eta["helpful"] == 0.5
    control.reset()  # and afterwards anyone may


def test_unknown_name(folders: Folders, model: Model) -> None:
    control = PreferenceController(model, opened(folders.full))
    with pytest.raises(
        PvMergeError, match=r"no vector is called 'helpfull'; did you mean helpful\?"
    ):
        control.set(helpfull=1.0)
    assert control.eta == {"helpful": 0.0, "polite": 0.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None])
def test_eta_is_a_finite_number(value: Any, folders: Folders, model: Model) -> None:
    control = PreferenceController(model, opened(folders.full))
    with pytest.raises(PvMergeError, match="eta of helpful must be a finite number"):
        control.set(polite=1.0, helpful=value)
    assert control.eta["polite"] == 0.0


@pytest.mark.parametrize("form", ["thin", "full"])
def test_a_vector_of_another_base(form: str, folders: Folders) -> None:
    other = tiny(vocab_size=97, intermediate_size=56)
    before = snapshot(other)
    with pytest.raises(
        PvMergeError, match=r"helpful: has shape .* the model .*; is it a vector of another base\?"
    ):
        PreferenceController(other, opened(getattr(folders, form)))
    assert unchanged(other, before)
    with pytest.raises(
        PvMergeError, match=r"helpful: moves .*, which GPT2LMHeadModel does not have"
    ):
        PreferenceController(tiny("GPT-2"), opened(getattr(folders, form)))


def test_no_vectors(model: Model) -> None:
    with pytest.raises(PvMergeError, match="at least one vector"):
        PreferenceController(model, {})

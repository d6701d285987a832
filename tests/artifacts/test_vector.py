"""``PreferenceVector``: a vector space, on disk and in memory, dense and low-rank alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank, concatenated
from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.errors import PvMergeError
from pv_merge.merging.extract import ExtractOptions, extract

from models import largest_difference, logits, perturbed, save, state, tiny, write_state
from policies import adapted, merged, save_adapter


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(preference: str = "helpful", **changes: list[float]) -> PreferenceVector:
    return PreferenceVector(preference, {name: torch.tensor(v) for name, v in changes.items()})


def thin(seed: int, name: str = "w", rank: int = 2, transposed: bool = False) -> PreferenceVector:
    change = LowRank(noise(seed, rank, 5), noise(seed + 1, 7, rank), 0.5, transposed)
    return PreferenceVector("helpful", {name: change})


def as_dense(vector: PreferenceVector) -> PreferenceVector:
    return PreferenceVector(vector.preference, {name: vector.dense(name) for name in vector.names})


# ---- arithmetic ----------------------------------------------------------------------------------


def test_dense_by_hand() -> None:
    left, right = dense(w=[3.0, 0.0], only_left=[2.0]), dense(w=[1.0, 4.0], only_right=[5.0])
    total = left + 2 * right
    assert {name: total.dense(name).tolist() for name in total.names} == {
        "only_left": [2.0],
        "only_right": [10.0],
        "w": [5.0, 8.0],
    }
    difference = left - right
    assert difference.dense("w").tolist() == [2.0, -4.0]
    assert difference.dense("only_right").tolist() == [-5.0]
    assert (-left).dense("w").tolist() == [-3.0, 0.0]
    assert (left * 0.5).dense("w").tolist() == [1.5, 0.0]


def test_norm_and_cosine_by_hand() -> None:
    assert dense(a=[3.0], b=[4.0]).norm() == 5.0
    assert dense(a=[3.0, 0.0]).cosine(dense(a=[0.0, 2.0])) == 0.0
    assert dense(a=[3.0]).cosine(dense(a=[-2.0])) == -1.0
    assert dense(a=[3.0]).cosine(dense(b=[2.0])) == 0.0  # they move other weights
    assert dense(a=[0.0]).cosine(dense(a=[2.0])) == 0.0


def test_operands_are_left_alone() -> None:
    left, right = dense(w=[3.0]), dense(w=[1.0])
    _ = left + right, left - right, -left, left * 5, left.norm()
    assert (left.dense("w").item(), right.dense("w").item()) == (3.0, 1.0)


@given(st.integers(0, 10**6), st.booleans())
def test_low_rank_agrees_with_dense(seed: int, transposed: bool) -> None:
    left, right = thin(seed, transposed=transposed), thin(seed + 10, rank=3, transposed=transposed)
    wide_left, wide_right = as_dense(left), as_dense(right)
    for ours, plain in (
        (left + right, wide_left + wide_right),
        (left - right, wide_left - wide_right),
        (-left * 3, -wide_left * 3),
    ):
        assert ours.low_rank and not plain.low_rank
        assert ours.shape("w") == plain.shape("w") == ((5, 7) if transposed else (7, 5))
        torch.testing.assert_close(ours.dense("w"), plain.dense("w"), rtol=1e-5, atol=1e-5)
        assert ours.norm() == pytest.approx(plain.norm(), rel=1e-5)
    assert left.cosine(right) == pytest.approx(wide_left.cosine(wide_right), abs=1e-5)
    assert left.cosine(wide_right) == pytest.approx(wide_left.cosine(wide_right), abs=1e-5)
    assert wide_left.cosine(right) == pytest.approx(wide_left.cosine(wide_right), abs=1e-5)


@given(st.integers(0, 10**6))
def test_a_vector_less_itself_has_no_length(seed: int) -> None:
    vector = thin(seed)
    assert (vector - vector).norm() == pytest.approx(0, abs=1e-5)
    assert (vector - vector).cosine(vector) == pytest.approx(0, abs=1e-2)


def test_low_rank_plus_dense_is_dense() -> None:
    vector = thin(0)
    total = vector + as_dense(vector)
    assert not total.low_rank
    torch.testing.assert_close(total.dense("w"), 2 * vector.dense("w"))


def test_a_transposed_and_a_plain_change_add_up() -> None:
    plain, turned = (
        thin(0),
        PreferenceVector("helpful", {"w": LowRank(noise(1, 2, 7), noise(2, 5, 2), 1.0, True)}),
    )
    total = plain + turned
    torch.testing.assert_close(total.dense("w"), plain.dense("w") + turned.dense("w"))
    assert plain.cosine(turned) == pytest.approx(as_dense(plain).cosine(as_dense(turned)), abs=1e-6)


def test_concatenation_by_hand() -> None:
    # 2·(3·[1]·[1, 0]) − 1·(0.5·[4]·[0, 1]) = [6, −2]
    one = LowRank(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0]]), 3.0)
    other = LowRank(torch.tensor([[0.0, 1.0]]), torch.tensor([[4.0]]), 0.5)
    joint = concatenated([(2.0, one), (-1.0, other)])
    assert joint.a.shape == (2, 2) and joint.scale == 1.0
    assert joint.dense().tolist() == [[6.0, -2.0]]


def test_names_of_sums() -> None:
    helpful, harmless = dense("helpful", w=[1.0]), dense("harmless", w=[1.0])
    assert (helpful + helpful).preference == "helpful"
    assert (helpful + harmless).preference == "helpful+harmless"
    assert (helpful - harmless).preference == "helpful-harmless"


def test_different_bases_are_refused() -> None:
    first = PreferenceVector(
        "helpful", {"w": torch.ones(1)}, {"base": {"path": "./a", "weights_sha256": "1"}}
    )
    second = PreferenceVector(
        "harmless", {"w": torch.ones(1)}, {"base": {"path": "./b", "weights_sha256": "2"}}
    )
    with pytest.raises(
        PvMergeError, match=r"helpful and harmless are vectors of different bases \(./a, ./b\)"
    ):
        first + second
    again = PreferenceVector(
        "x", {"w": torch.ones(1)}, {"base": {"path": "./c", "weights_sha256": "1"}}
    )
    assert (first + again).dense("w").tolist() == [2.0]  # the same base in another place


def test_different_shapes_are_refused() -> None:
    with pytest.raises(
        PvMergeError,
        match=r"w: helpful has shape \[2\], helpful \[1\]; are they of the same base\?",
    ):
        dense(w=[1.0, 2.0]).cosine(dense(w=[1.0]))
    with pytest.raises(PvMergeError, match="shape"):
        dense(w=[1.0, 2.0]) + dense(w=[1.0])


# ---- folders -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tiny(), tmp_path_factory.mktemp("base") / "base")


def test_dense_there_and_back(base: str, tmp_path: Path) -> None:
    names = list(state(base))[:3]
    changes: dict[str, Any] = {n: noise(i, *state(base)[n].shape) for i, n in enumerate(names)}
    vector = PreferenceVector("helpful", changes)
    vector.save(tmp_path / "vector", base)
    back = PreferenceVector.load(tmp_path / "vector")
    assert back.preference == "helpful" and not back.low_rank
    assert back.names == sorted(state(base))  # mergekit wants every weight; the others are zero
    for name, change in back.items():
        expected = changes.get(name, torch.zeros(1))
        assert torch.equal(change, expected.expand_as(change))
    assert back.norm() == pytest.approx(vector.norm(), rel=1e-9)
    assert back.cosine(vector) == pytest.approx(1.0, rel=1e-9)
    (2 * back).save(tmp_path / "twice", base, "bfloat16")
    half = PreferenceVector.load(tmp_path / "twice")
    assert torch.equal(half.dense(names[0]), (2 * changes[names[0]]).bfloat16())


def test_low_rank_there_and_back(base: str, tmp_path: Path) -> None:
    policy = adapted(tiny(), 1)
    folder = save_adapter(policy, tmp_path / "policy", base)
    vector = PreferenceVector.load(folder)  # an adapter counts as a vector by itself
    assert vector.low_rank and vector.preference == "policy"
    (vector * -2).save(tmp_path / "vector", base)
    back = PreferenceVector.load(tmp_path / "vector")
    assert back.low_rank and back.names == vector.names
    for name in vector.names:
        torch.testing.assert_close(back.dense(name), -2 * vector.dense(name))
    manifest = json.loads((tmp_path / "vector" / "preference_vector.json").read_text())
    assert manifest["form"] == "low-rank" and manifest["rank"] == 4
    assert manifest["base"]["path"] == base


def test_low_rank_folder_is_a_peft_adapter(base: str, tmp_path: Path) -> None:
    first = PreferenceVector.load(save_adapter(adapted(tiny(), 1), tmp_path / "a", base))
    second = PreferenceVector.load(
        save_adapter(
            adapted(tiny(), 2, r=2, target_modules=["q_proj", "v_proj"]), tmp_path / "b", base
        )
    )
    difference = first - second  # rank 6 in two modules of each layer, rank 4 in the others
    difference.save(tmp_path / "vector", base)
    live = peft.PeftModel.from_pretrained(tiny(), str(tmp_path / "vector")).eval()
    model = tiny()
    with torch.no_grad():
        for name, change in difference.items():
            model.get_parameter(name).add_(change)
    assert largest_difference(logits(live), logits(model)) < 1e-5
    assert largest_difference(logits(live), logits(tiny())) > 0.1


def test_saving_needs_a_base() -> None:
    with pytest.raises(PvMergeError, match="helpful: its base is not known; say base=FOLDER"):
        dense(w=[1.0]).save("nowhere")


def test_saving_an_unknown_dtype_leaves_nothing(base: str, tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match="unknown dtype 'bfloat61'; did you mean bfloat16"):
        dense(w=[1.0]).save(tmp_path / "vector", base, "bfloat61")
    assert not list(tmp_path.iterdir())


def test_saving_over_something_is_refused(base: str, tmp_path: Path) -> None:
    (tmp_path / "vector").mkdir()
    (tmp_path / "vector" / "mine.txt").write_text("keep")
    with pytest.raises(PvMergeError, match="already holds files, which are never overwritten"):
        dense(w=[1.0]).save(tmp_path / "vector", base)
    assert [path.name for path in (tmp_path / "vector").iterdir()] == ["mine.txt"]
    with pytest.raises(PvMergeError, match="is a file"):
        dense(w=[1.0]).save(tmp_path / "vector" / "mine.txt", base)


def test_a_model_is_not_a_vector(base: str, tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match="it is a model, not a vector"):
        PreferenceVector.load(base)
    with pytest.raises(PvMergeError, match="no such folder"):
        PreferenceVector.load(tmp_path / "none")


def test_a_manifest_cut_short(base: str, tmp_path: Path) -> None:
    dense(w=[1.0]).save(tmp_path / "vector", base)
    (tmp_path / "vector" / "preference_vector.json").write_text('{"prefer')
    with pytest.raises(PvMergeError, match=r"not valid JSON .*; was it cut short\?"):
        PreferenceVector.load(tmp_path / "vector")


# ---- adapters against PEFT -----------------------------------------------------------------------

ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("Llama", {}),
    "one kind of module": ("Llama", {"target_modules": ["q_proj"]}),
    "rank_pattern": ("Llama", {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}}),
    "alpha_pattern": ("Llama", {"alpha_pattern": {"v_proj": 3, r".*\.0\.mlp\..*": 16}}),
    "both patterns": (
        "Llama",
        {"rank_pattern": {"^model.layers.0.self_attn.k_proj": 3}, "alpha_pattern": {"k_proj": 5}},
    ),
    "rslora": ("Llama", {"use_rslora": True}),
    "rslora and patterns": (
        "Llama",
        {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"o_proj": 1}},
    ),
    "head": ("Llama", {"target_modules": ["lm_head", "q_proj"]}),
    "embeddings": ("Llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "embeddings alone": ("Llama", {"target_modules": ["embed_tokens"]}),
    "Conv1D": ("GPT-2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "Conv1D and embeddings": (
        "GPT-2",
        {"target_modules": ["c_attn", "wte"], "fan_in_fan_out": True},
    ),
    "fused": ("Phi-3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_saved_vector_gives_pefts_logits(kind: str, tmp_path: Path) -> None:
    family, said = ADAPTERS[kind]
    model = tiny(family)
    base = save(model, tmp_path / "base")
    policy = adapted(model, 3, **said)
    vector = PreferenceVector.load(save_adapter(policy, tmp_path / "policy", base))
    (-1.0 * (-1.0 * vector)).save(tmp_path / "vector", base)
    live = peft.PeftModel.from_pretrained(model, str(tmp_path / "vector")).eval()
    assert largest_difference(logits(live), logits(merged(policy))) < 2e-5
    assert largest_difference(logits(live), logits(base)) > 0.01


def test_other_kinds_of_peft_are_refused(tmp_path: Path) -> None:
    policy = peft.get_peft_model(tiny(), peft.IA3Config(task_type="CAUSAL_LM"))
    policy.save_pretrained(str(tmp_path / "policy"))
    with pytest.raises(PvMergeError, match="is a IA3 adapter; only LoRA can be subtracted"):
        Adapter(tmp_path / "policy")


def test_broken_adapters(tmp_path: Path) -> None:
    folder = Path(save_adapter(adapted(tiny(), 1), tmp_path / "policy", "base"))
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    tensors = load_file(weights)
    tensors.pop(next(key for key in tensors if "lora_B" in key))
    save_file(tensors, weights)
    with pytest.raises(
        PvMergeError, match=r"lora_A.weight has no .*lora_B.weight; is the file whole\?"
    ):
        _ = Adapter(folder).modules
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PvMergeError, match="not a whole safetensors file"):
        _ = Adapter(folder).modules
    weights.unlink()
    with pytest.raises(PvMergeError, match=r"was the adapter saved as a pickle\?"):
        Adapter(folder)
    with pytest.raises(PvMergeError, match=r"holds no adapter_config\.json"):
        Adapter(tmp_path)


# ---- what extraction leaves for it ---------------------------------------------------------------


def test_vectors_of_two_extractions_add_up(base: str, tmp_path: Path) -> None:
    model = tiny()
    folders = [save(perturbed(model, seed), tmp_path / str(seed)) for seed in range(3)]
    for number, pair in enumerate(((0, 1), (1, 2), (0, 2))):
        extract(
            folders[pair[0]],
            folders[pair[1]],
            tmp_path / f"v{number}",
            ExtractOptions(base, "helpful"),
        )
    first, second, whole = (PreferenceVector.load(tmp_path / f"v{number}") for number in range(3))
    total = first + second  # (a − b) + (b − c) = a − c
    for name in whole.names:
        torch.testing.assert_close(total.dense(name), whole.dense(name), rtol=0, atol=1e-7)
    assert total.cosine(whole) == pytest.approx(1.0, abs=1e-6)


def test_integer_buffers_stay_out_of_it(base: str, tmp_path: Path) -> None:
    tensors = {**state(base), "model.steps": torch.arange(3)}
    other = write_state(tmp_path / "base", tensors, base)
    name = "model.norm.weight"
    vector = PreferenceVector("helpful", {name: torch.ones(32)})
    vector.save(tmp_path / "vector", other)
    back = PreferenceVector.load(tmp_path / "vector")
    assert torch.equal(state(tmp_path / "vector")["model.steps"], torch.arange(3))
    assert "model.steps" not in dict(back.items())
    assert back.norm() == pytest.approx(32**0.5)
    assert "model.steps" not in (back + back).names
    assert "model.steps" not in (2 * back).names

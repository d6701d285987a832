"""The matrix of adapters: feature × our change against PEFT's own load and merge, in float32.

Every feature is either equal to PEFT or refused by name; no field of PEFT's config is left out.
"""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.adapter_config import HARMLESS, REFUSED, AdapterConfig, Settled
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.errors import PvMergeError

from models import Model, save, tiny
from policies import adapted

EQUAL: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("Llama", {}),
    "all-linear": ("Llama", {"target_modules": "all-linear"}),
    "target_modules, a regular expression": (
        "Llama",
        {"target_modules": r".*\.(q_proj|down_proj)"},
    ),
    "target_modules, a whole name": (
        "Llama",
        {"target_modules": ["model.layers.1.self_attn.q_proj"]},
    ),
    "exclude_modules": ("Llama", {"exclude_modules": ["layers.0.self_attn.q_proj", "up_proj"]}),
    "exclude_modules, a regular expression": ("Llama", {"exclude_modules": r".*layers\.1.*"}),
    "layers_to_transform": ("Llama", {"layers_to_transform": [1]}),
    "layers_to_transform, a number": ("Llama", {"layers_to_transform": 0}),
    "layers_pattern": ("Llama", {"layers_to_transform": [0], "layers_pattern": "layers"}),
    "rank_pattern": ("Llama", {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}}),
    "alpha_pattern": ("Llama", {"alpha_pattern": {"v_proj": 3, r".*\.0\.mlp\..*": 16}}),
    "patterns of which two match": (
        "Llama",
        {"rank_pattern": {r"layers\.\d+\.mlp\.up_proj": 3, "up_proj": 5}},
    ),
    "rslora": ("Llama", {"use_rslora": True}),
    "rslora and patterns": (
        "Llama",
        {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"o_proj": 1}},
    ),
    "init gaussian": ("Llama", {"init_lora_weights": "gaussian"}),
    "init false": ("Llama", {"init_lora_weights": False}),
    "init orthogonal": ("Llama", {"init_lora_weights": "orthogonal"}),
    "init mica": ("Llama", {"init_lora_weights": "mica"}),
    "dropout": ("Llama", {"lora_dropout": 0.1}),
    "head": ("Llama", {"target_modules": ["lm_head", "q_proj"]}),
    "embeddings": ("Llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "tied embeddings": ("tied", {"target_modules": ["embed_tokens", "q_proj"]}),
    "fan_in_fan_out": (
        "GPT-2",
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "fan_in_fan_out that PEFT sets by itself": ("GPT-2", {"target_modules": ["c_proj"]}),
    "fan_in_fan_out that PEFT unsets by itself": (
        "Llama",
        {"target_modules": ["q_proj"], "fan_in_fan_out": True},
    ),
    "fused layers": ("Phi-3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
    "biases beside it": ("Qwen2", {}),
}

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "uses use_dora: DoRA scales each row"),
    "lora_bias": (
        {"lora_bias": True, "target_modules": ["q_proj"]},
        "uses lora_bias: its B has a bias",
    ),
    "bias": ({"bias": "all"}, "has bias: 'all', so it changes biases"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "uses modules_to_save: it holds whole"),
    "trainable tokens": (
        {"trainable_token_indices": {"embed_tokens": [1, 2]}},
        "uses trainable_token_indices: it holds whole rows",
    ),
    "PiSSA": ({"init_lora_weights": "pissa"}, "has init_lora_weights: 'pissa', which changes the"),
    "PiSSA, fast": ({"init_lora_weights": "pissa_niter_4"}, "has init_lora_weights: 'pissa_niter"),
    "OLoRA": ({"init_lora_weights": "olora"}, "has init_lora_weights: 'olora', which changes the"),
    "aLoRA": ({"alora_invocation_tokens": [5, 6]}, "uses alora_invocation_tokens: aLoRA acts only"),
    "layer_replication": (
        {"layer_replication": [[0, 2], [1, 2]]},
        "uses layer_replication: it rep",
    ),
    "target_parameters": (
        {"target_parameters": ["mlp.gate_proj.weight"], "target_modules": ["q_proj"]},
        "uses target_parameters: it adapts fused parameters",
    ),
}
"""Features that PEFT itself writes, and the start of our line."""


def family(name: str) -> Model:
    return tiny("Llama", tied=True) if name == "tied" else tiny(name)


def written(model: Model, folder: Path, **said: Any) -> Path:
    """Save an adapter with random A and B, by PEFT."""
    adapted(model, 3, **said).save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def by_peft(model: Model, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the model after PEFT has loaded the adapter and merged it."""
    live: Any = peft.PeftModel.from_pretrained(model, str(folder))
    merged: dict[str, torch.Tensor] = live.merge_and_unload().state_dict()
    return merged


@pytest.mark.parametrize("kind", EQUAL)
def test_a_feature_gives_what_peft_merges(kind: str, tmp_path: Path) -> None:
    name, said = EQUAL[kind]
    folder = written(family(name), tmp_path / "adapter", **said)
    base = save(family(name), tmp_path / "base")
    if kind == "fan_in_fan_out that PEFT unsets by itself":
        edited(folder, fan_in_fan_out=False)  # PEFT saves what it was given, and ignores it
    adapter = Adapter(folder)
    assert adapter.problems(Checkpoint(base)) == []
    full = by_peft(family(name), folder)
    moved = {f"{module}.weight" for module in adapter.modules}
    tied = {"lm_head.weight"} if name == "tied" else set()
    for key, weight in family(name).state_dict().items():
        delta = full[key] - weight
        change = adapter.modules.get(key.removesuffix(".weight"))
        if change is None:
            assert key in tied or not delta.any(), key
            continue
        moved.discard(key)
        assert float(delta.norm()) > 0.01
        torch.testing.assert_close(change.dense(), delta, rtol=0, atol=3e-7)
    assert not moved


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_feature_that_is_more_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    said, line = REFUSALS[kind]
    folder = written(tiny(), tmp_path / "adapter", **said)
    with pytest.raises(PvMergeError, match=line) as caught:
        _ = Adapter(folder).modules
    assert caught.value.message.startswith(f"{folder}: ")


def test_every_field_of_pefts_config_is_decided_about() -> None:
    known = set(AdapterConfig.model_fields) | HARMLESS | set(REFUSED)
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= known
    assert not HARMLESS & set(REFUSED)


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_every_refused_field_is_refused_by_its_name(field: str, tmp_path: Path) -> None:
    folder = edited(written(tiny(), tmp_path / "adapter"), **{field: {"a": 1}})
    with pytest.raises(PvMergeError, match=f"uses {field}: "):
        Adapter(folder)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"quantum_lora": True}, "has quantum_lora: True, which this version does not know"),
        ({"quantum_lora": {"x": 1}}, "has quantum_lora: an object, which this version does not"),
        ({"lora_alpha": "8"}, "lora_alpha"),
        ({"lora_alpha": [8]}, "lora_alpha"),
        ({"lora_alpha": True}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"r": 0}, "r: expected greater than 0, got 0"),
        ({"r": 4.0}, "r: expected a valid integer"),
        ({"r": "4"}, "r: expected a valid integer"),
        ({"rank_pattern": {"q_proj": "x"}}, "rank_pattern.q_proj: expected a valid integer"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern: expected a valid dictionary"),
        ({"alpha_pattern": {"q_proj": [1]}}, "alpha_pattern.q_proj"),
        ({"use_rslora": "yes"}, "use_rslora: expected a valid boolean"),
        ({"target_modules": 5}, "target_modules"),
        ({"target_modules": None}, "names no target_modules"),
        ({"init_lora_weights": "loftq"}, "which changes the base's weights"),
        ({"init_lora_weights": "corda"}, "which changes the base's weights"),
        ({"init_lora_weights": "lora_ga"}, "which changes the base's weights"),
        ({"init_lora_weights": "later"}, "which changes the base's weights"),
        ({"peft_type": "IA3"}, "is a IA3 adapter; only LoRA can be subtracted"),
        ({"r": 8}, "A and B have rank 4 and 4, the config says 8"),
        ({"rank_pattern": {"q_proj": 2}}, "q_proj: A and B have rank 4 and 4, the config says 2"),
        ({"target_modules": ["k_proj"]}, "which its config's target_modules do not name"),
        ({"exclude_modules": ["q_proj"]}, "which its config's target_modules do not name"),
        ({"layers_to_transform": [0]}, "which its config's target_modules do not name"),
        ({"rank_pattern": {"(": 2}}, "is not a regular expression"),
        ({"target_modules": "(?P<a>"}, "is not a regular expression"),
    ],
)
def test_configs_that_say_something_else(
    tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    folder = edited(written(tiny(), tmp_path / "adapter"), **changes)
    with pytest.raises(PvMergeError, match=line):
        _ = Adapter(folder).modules


def test_unset_fields_of_a_later_peft_are_harmless(tmp_path: Path) -> None:
    later = {"use_x": False, "x_config": None, "x_list": [], "x_map": {}, "x_name": ""}
    assert Adapter(edited(written(tiny(), tmp_path / "adapter"), **later)).modules


SLOW = r"(?:[a-z_.0-9]+)+!"


@pytest.mark.parametrize(
    "said",
    [
        {"rank_pattern": {SLOW: 4}},
        {"alpha_pattern": {SLOW: 4}},
        {"target_modules": SLOW},
        {"exclude_modules": SLOW},
        {"layers_to_transform": [0], "layers_pattern": SLOW},
        {"rank_pattern": {"|".join([".*.*.*"] * 4) + "!": 4}},
    ],
)
def test_a_regular_expression_that_takes_minutes_is_refused(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    folder = edited(written(tiny(), tmp_path / "adapter"), **said)
    start = time.monotonic()
    with suppress(PvMergeError):
        _ = Adapter(folder).modules
    assert time.monotonic() - start < 10


def test_a_slow_pattern_is_named_as_the_cause(tmp_path: Path) -> None:
    folder = edited(written(tiny(), tmp_path / "adapter"), alpha_pattern={SLOW: 4})
    with pytest.raises(PvMergeError, match="regular expressions take more than 2 seconds"):
        _ = Adapter(folder).modules


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.(q_proj|down_proj)",
        r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|down_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.mlp)",
        r"(model\.)+layers\.1\.(self_attn\.|mlp\.)*(q|k|v)_proj",
        "down_proj",
    ],
)
def test_patterns_match_as_in_peft_whichever_way_they_are_matched(pattern: str) -> None:
    modules = [name for name, _ in tiny().named_modules() if name.endswith("_proj")]
    said: dict[str, Any] = {"target_modules": pattern, "rank_pattern": {pattern: 3}}
    config = AdapterConfig(peft_type="LORA", r=4, lora_alpha=8, **said)
    theirs = peft.LoraConfig(r=4, lora_alpha=8, **said)
    settled = config.settle(modules, "config")
    for module in modules:
        targeted = bool(check_target_module_exists(theirs, module))
        rank = theirs.rank_pattern.get(get_pattern_key(theirs.rank_pattern, module), 4)
        assert settled[module] == Settled(rank, 8 / rank, targeted), module


def test_fan_in_fan_out_that_the_base_does_not_have(tmp_path: Path) -> None:
    """Square weights would be transposed without a word: PEFT decides by the layer, not the config."""
    llama = edited(written(tiny(), tmp_path / "a", target_modules=["q_proj"]), fan_in_fan_out=True)
    base = Checkpoint(save(tiny(), tmp_path / "llama"))
    assert (
        Adapter(llama)
        .problems(base)[0]
        .startswith(
            f"{llama}: its config says fan_in_fan_out: true, but the base {base} stores its layers as (out"
        )
    )
    gpt2 = edited(
        written(tiny("GPT-2"), tmp_path / "b", target_modules=["c_proj"]), fan_in_fan_out=False
    )
    base = Checkpoint(save(tiny("GPT-2"), tmp_path / "gpt2"))
    assert "fan_in_fan_out: false, but" in Adapter(gpt2).problems(base)[0]


def test_tensors_that_peft_would_ignore_or_that_are_more(tmp_path: Path) -> None:
    folder = written(tiny(), tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    weights = folder / "adapter_model.safetensors"
    whole = load_file(weights)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    cases: list[tuple[dict[str, torch.Tensor], str]] = [
        ({**whole, "model.embed_tokens.lora_embedding_A": torch.zeros(1)}, "also holds model.embed"),
        ({**whole, key.replace("A.weight", "A.default.weight"): whole[key].clone()}, "also holds"),
        ({**whole, "base_model.model.model.embed_tokens.base_layer.weight": torch.ones(2)},
         "a whole weight of the base; save it with save_embedding_layers=False"),
        ({**whole, "base_model.model.lm_head.weight": torch.ones(2)}, "which is not low-rank"),
        ({**whole, key: whole[key].to(torch.int8)}, "are stored as I8, F32, not as floats"),
        ({**whole, key: whole[key] * float("nan")}, "holds values that are not finite"),
        ({**whole, key: whole[key][:, :, None].contiguous()}, "only those of matrices are merged"),
        ({k: v for k, v in whole.items() if k != key}, "has no A; is the file whole"),
        ({}, "holds no LoRA weights"),
    ]  # fmt: skip
    for tensors, line in cases:
        save_file(tensors, weights)
        with pytest.raises(PvMergeError, match=line):
            _ = Adapter(folder).modules

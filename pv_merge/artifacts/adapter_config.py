"""PEFT's ``adapter_config.json`` for LoRA: each field is understood, harmless, or refused by name.

What is understood gives the same scale and the same modules as PEFT 0.21's own merge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from pv_merge.artifacts.patterns import Table, match_table
from pv_merge.data.documents import read_object, validated
from pv_merge.data.value_words import shown
from pv_merge.errors import PvMergeError, raise_all

KEPT_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
"""Values of ``init_lora_weights``, besides true and false, that leave the base's weights alone."""

HARMLESS = frozenset(
    {
        "task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout",
        "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
        "qalora_group_size", "runtime_config",
    }
)  # fmt: skip
"""Fields that say how it was made, or nothing unless a field in ``REFUSED`` is set as well."""

REFUSED = {
    "use_dora": "DoRA scales each row by the norm of base + BA, so its change is no product B @ A",
    "lora_bias": "its B has a bias, which changes the layer's bias",
    "modules_to_save": "it holds whole modules besides B @ A",
    "trainable_token_indices": "it holds whole rows of the embeddings besides B @ A",
    "target_parameters": "it adapts fused parameters, such as experts",
    "layer_replication": "it repeats layers of the base",
    "alora_invocation_tokens": "aLoRA acts only after its invocation tokens, and cannot be merged",
    "use_qalora": "QALoRA pools its input by groups",
    "use_bdlora": "BD-LoRA has block-diagonal factors",
    "kasa_config": "KaSA changes the base's weights",
    "monteclora_config": "MonteCLoRA samples around B @ A",
    "arrow_config": "Arrow routes between several adapters",
    "velora_config": "VeLoRA is not one that is known to merge as B @ A",
    "megatron_config": "it is for Megatron's layers",
    "ensure_weight_tying": "its adapters of embeddings and head are tied",
}
"""Fields whose adapters are more than ``scale · B @ A``, each with the reason."""

Rank = Annotated[StrictInt, Field(gt=0)]
Alpha = StrictInt | Annotated[float, Field(strict=True, allow_inf_nan=False)]
Names = list[StrictStr] | StrictStr
Value = TypeVar("Value")


class Settled(NamedTuple):
    """What a config says of one module."""

    rank: int
    scale: float
    """What B @ A is multiplied by."""
    targeted: bool
    """Whether PEFT puts an adapter on it."""


class AdapterConfig(BaseModel):
    """The fields that matter to what an adapter adds to the base's weights."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    peft_type: StrictStr
    base_model_name_or_path: StrictStr | None = None
    r: Rank
    """Rank of the modules that no pattern names."""
    lora_alpha: Alpha
    """The scale is alpha / rank, or alpha / √rank with ``use_rslora``."""
    use_rslora: StrictBool | None = None
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Alpha] | None = None
    fan_in_fan_out: StrictBool | None = None
    """Whether the layers store their weight as (in, out)."""
    target_modules: Names | None = None
    exclude_modules: Names | None = None
    layers_to_transform: StrictInt | list[StrictInt] | None = None
    layers_pattern: Names | None = None
    init_lora_weights: StrictBool | StrictStr | None = True
    bias: StrictStr = "none"

    def settle(self, modules: Sequence[str], where: object) -> dict[str, Settled]:
        """Return what the config says of each module; errors name ``where`` it comes from."""
        ranks = {_suffix(key): value for key, value in (self.rank_pattern or {}).items()}
        alphas = {_suffix(key): value for key, value in (self.alpha_pattern or {}).items()}
        texts = [names for names in (self.target_modules, self.exclude_modules) if names]
        whole = [_whole(names) for names in texts if isinstance(names, str)]
        table = match_table([*ranks, *alphas, *whole, *self._layer_patterns()], modules, where)

        def of(patterns: Mapping[str, Value], module: str, default: Value) -> Value:
            """The value of the first pattern that matches: PEFT's ``get_pattern_key``."""
            hits = (value for key, value in patterns.items() if table[key, module] is not None)
            return next(hits, default)

        found = {}
        for module in modules:
            rank, alpha = of(ranks, module, self.r), of(alphas, module, self.lora_alpha)
            scale = alpha / rank**0.5 if self.use_rslora else alpha / rank
            found[module] = Settled(rank, float(scale), self._targets(module, table))
        return found

    def _targets(self, module: str, table: Table) -> bool:
        """Return whether PEFT puts an adapter on a module: its ``check_target_module_exists``."""
        targets = self.target_modules or []
        if self.exclude_modules and _named(self.exclude_modules, module, table):
            return False
        if isinstance(targets, str) and targets.lower() == "all-linear":
            return True
        if isinstance(targets, str) or module in targets:
            return _named(targets, module, table)
        return _named(targets, module, table) and self._in_layers(module, table)

    def _layer_patterns(self) -> list[str]:
        if self.layers_to_transform is None or self.layers_to_transform == []:
            return []
        if not self.layers_pattern:
            return [r".*?\.[^.]*\.(?P<idx>\d+)\."]
        said = self.layers_pattern
        patterns = [said] if isinstance(said, str) else said
        return [rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\." for pattern in patterns]

    def _in_layers(self, module: str, table: Table) -> bool:
        patterns, wanted = self._layer_patterns(), self.layers_to_transform
        if not patterns or wanted is None:
            return True
        layer = next((hit for key in patterns if (hit := table[key, module]) is not None), None)
        return bool(layer) and int(layer or 0) in ([wanted] if isinstance(wanted, int) else wanted)


def _suffix(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _whole(pattern: str) -> str:
    return rf"(?:{pattern})\Z"


def _named(names: Names, module: str, table: Table) -> bool:
    if isinstance(names, str):
        return table[_whole(names), module] is not None
    return module in names or any(module.endswith(f".{name}") for name in names)


def read_adapter_config(path: Path) -> AdapterConfig:
    """Return the config of a LoRA adapter whose change is ``scale · B @ A``.

    Raises ``PvMergeError`` with a line for each field that says otherwise, or that is not known.
    """
    data = read_object(path)
    kind = data.get("peft_type")
    if kind != "LORA":
        raise PvMergeError(f"{path.parent}: is a {kind} adapter; only LoRA can be subtracted")
    config = validated(AdapterConfig, data, path)
    raise_all([f"{path.parent}: {line}" for line in _refusals(config, data)])
    return config


def _refusals(config: AdapterConfig, data: Mapping[str, Any]) -> Iterator[str]:
    for key, value in data.items():
        if key in AdapterConfig.model_fields or key in HARMLESS or _unset(value):
            continue
        if key in REFUSED:
            yield f"uses {key}: {REFUSED[key]}; merge it with PEFT into a checkpoint first"
        else:
            yield (
                f"has {key}: {shown(value)}, which this version does not know; was it written by a "
                "later PEFT? Merge it with PEFT into a checkpoint first"
            )
    init = config.init_lora_weights
    if isinstance(init, str) and init.lower() not in KEPT_INITS:
        yield (
            f"has init_lora_weights: {shown(init)}, which changes the base's weights when PEFT loads it; "
            "convert it with save_pretrained(path_initial_model_for_weight_conversion=…), or merge "
            "it with PEFT into a checkpoint first"
        )
    if config.bias != "none":
        yield f"has bias: {shown(config.bias)}, so it changes biases; merge it with PEFT first"
    if not config.target_modules:
        yield "names no target_modules, so which of its tensors PEFT would load is not known"


def _unset(value: Any) -> bool:
    return value is None or value is False or value == [] or value == {} or value == ""

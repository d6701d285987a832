"""LoRA adapters: reads a PEFT adapter folder, and gives each weight's change exactly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.arithmetic.low_rank_rows import Factors
from pv_merge.artifacts.adapter_config import AdapterConfig, Settled, read_adapter_config
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pv_merge.artifacts.weights_file import TensorInfo, WeightsFile
from pv_merge.errors import PvMergeError, Topic, raise_all

PREFIX = "base_model.model."
_KEY = re.compile(
    rf"{re.escape(PREFIX)}(?P<module>.+)\.lora_(?:(?P<side>[AB])\.weight|embedding_(?P<table>[AB]))"
)
_OTHER_TENSORS = {
    ".base_layer.weight": "a whole weight of the base; save it with save_embedding_layers=False",
    ".lora_magnitude_vector": "DoRA's magnitudes",
    ".bias": "a bias",
    "trainable_tokens": "whole rows of the embeddings",
}
"""Parts of the names of tensors besides A and B, and what they are."""
_HEAD = "lm_head"


class Pair(NamedTuple):
    """A and B of one module, as the header has them."""

    first: str
    second: str
    a: TensorInfo
    b: TensorInfo
    embedding: bool


class Adapter:
    """A folder that PEFT wrote for a LoRA adapter.

    Raises ``PvMergeError`` for adapters whose change is not ``scale · B @ A`` of every module, as
    PEFT's own merge would have it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / ADAPTER_CONFIG).exists():
            raise PvMergeError(f"{folder}: holds no {ADAPTER_CONFIG}, so it is not an adapter")
        if not (self.folder / ADAPTER_WEIGHTS).exists():
            raise PvMergeError(
                f"{folder}: holds no {ADAPTER_WEIGHTS}; was the adapter saved as a pickle?"
            )
        self._file = WeightsFile(self.folder / ADAPTER_WEIGHTS)
        self.parts = [self._file]
        self.config: AdapterConfig = read_adapter_config(self.folder / ADAPTER_CONFIG)

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def base_model(self) -> str | None:
        """The base that the adapter's config names."""
        return self.config.base_model_name_or_path or None

    @property
    def transposed(self) -> bool:
        """Whether its linear layers store their weight as (in, out), as its config says."""
        return bool(self.config.fan_in_fan_out)

    def _flipped(self, module: str, pair: Pair) -> bool:
        """Return whether a module's weight is (B @ A)ᵀ: a lookup table's, or a Conv1D's."""
        return pair.embedding or (self.transposed and not module.endswith(_HEAD))

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """A and B of each module, by the module's name in the base model, from the header alone."""
        infos = self._file.infos
        found: dict[str, Pair] = {}
        for key in sorted(infos):
            match = _KEY.fullmatch(key)
            if match is None:
                raise PvMergeError(f"{self.folder}: also holds {key}, {_what(key)}")
            if "A" not in (match["side"], match["table"]):
                continue
            other = key.replace("lora_embedding_A", "lora_embedding_B").replace(
                "lora_A.", "lora_B."
            )
            if other not in infos:
                raise PvMergeError(f"{self.folder}: {key} has no {other}; is the file whole?")
            found[match["module"]] = Pair(
                key, other, infos[key], infos[other], match["table"] is not None
            )
        for key in infos:
            if key not in {name for pair in found.values() for name in (pair.first, pair.second)}:
                raise PvMergeError(f"{self.folder}: {key} has no A; is the file whole?")
        if not found:
            raise PvMergeError(f"{self.folder}: holds no LoRA weights")
        raise_all([f"{self.folder}: {line}" for line in self._misfits(found)])
        return found

    @cached_property
    def _settled(self) -> dict[str, Settled]:
        return self.config.settle(list(self.pairs), self.folder / ADAPTER_CONFIG)

    def _misfits(self, pairs: dict[str, Pair]) -> Iterator[str]:
        """Yield what the config says otherwise than the tensors."""
        settled = self.config.settle(list(pairs), self.folder / ADAPTER_CONFIG)
        for module, pair in pairs.items():
            shapes = pair.a.shape, pair.b.shape
            if any(len(shape) != 2 for shape in shapes):
                yield f"{module}: A and B have shapes {shapes}; only those of matrices are merged"
                continue
            if not (pair.a.floating and pair.b.floating):
                yield f"{module}: A and B are stored as {pair.a.dtype}, {pair.b.dtype}, not as floats"
            rank = settled[module].rank
            if not shapes[0][0] == shapes[1][1] == rank:
                yield (
                    f"{module}: A and B have rank {shapes[0][0]} and {shapes[1][1]}, the config says "
                    f"{rank}; is it the config of another adapter?"
                )
            if not settled[module].targeted:
                yield (
                    f"holds weights for {module}, which its config's target_modules do not name, so "
                    "PEFT would ignore them; is it the config of another adapter?"
                )

    @cached_property
    def modules(self) -> dict[str, LowRank]:
        """The change of each adapted module, by the module's name in the base model."""
        self._refuse_not_finite()
        return {
            module: LowRank(
                self._file.tensor(pair.first),
                self._file.tensor(pair.second),
                self._settled[module].scale,
                self._flipped(module, pair),
                pair.embedding,
            )
            for module, pair in self.pairs.items()
        }

    @property
    def changes(self) -> dict[str, LowRank]:
        """The change of each adapted weight, by the weight's name in the base model."""
        return {weight_name(module): change for module, change in self.modules.items()}

    def change(self, name: str) -> LowRank | None:
        """Return the change of one weight, or None where the adapter leaves it alone."""
        if not name.endswith(".weight"):
            return None
        return self.modules.get(name.removesuffix(".weight"))

    @cached_property
    def factors(self) -> dict[str, Factors]:
        """The same without torch, in float32."""
        self._refuse_not_finite()
        return {
            module: Factors(
                self._file.float32(pair.first),
                self._file.float32(pair.second),
                self._settled[module].scale,
                self._flipped(module, pair),
            )
            for module, pair in self.pairs.items()
        }

    def _refuse_not_finite(self) -> None:
        for pair in self.pairs.values():
            for key in (pair.first, pair.second):
                if not np.isfinite(self._file.float32(key)).all():
                    raise PvMergeError(
                        f"{self._file.path}: {key} holds values that are not finite; did its training "
                        "diverge?",
                        Topic.FINITE,
                    )

    def problems(self, base: Checkpoint) -> list[str]:
        """Return one line for each adapted module that the base lacks or has in another shape."""
        layers = [m for m, p in self.pairs.items() if not p.embedding and not m.endswith(_HEAD)]
        if layers and self.transposed != stores_transposed(base):
            stored = "(in, out)" if stores_transposed(base) else "(out, in)"
            said = f"fan_in_fan_out: {str(self.transposed).lower()}"
            return [
                f"{self}: its config says {said}, but the base {base} stores its layers as {stored}; "
                "was it trained from another base, or its config edited?"
            ]
        found = []
        for module, pair in self.pairs.items():
            name = weight_name(module)
            if name not in base:
                found.append(f"{self}: adapts {_absent(module, base)}")
                break
            shape = (pair.b.shape[0], pair.a.shape[1])
            if self._flipped(module, pair):
                shape = shape[::-1]
            if shape != base.infos[name].shape:
                found.append(
                    f"{self}: adapts {name} as {list(shape)}, the base {base} has "
                    f"{list(base.infos[name].shape)}; was it trained from another base?"
                )
            elif not base.infos[name].floating:
                found.append(
                    f"{self}: adapts {name}, which the base {base} stores as "
                    f"{base.infos[name].dtype}; name the base before it was quantized"
                )
        return found


def weight_name(module: str) -> str:
    """Return the name of a module's weight in a checkpoint."""
    return f"{module}.weight"


def stores_transposed(base: Checkpoint, name: str = "") -> bool:
    """Return whether the model's linear layers are Conv1D, which store their weight as (in, out).

    The output layer, if ``name`` is its module or weight, is no Conv1D in any model.
    """
    head = name.removesuffix(".weight").endswith(_HEAD)
    return not head and base.config.get("model_type") in ("gpt2", "openai-gpt")


def _absent(module: str, base: Checkpoint) -> str:
    if ".experts" in module:
        return (
            f"the fused experts {module.removesuffix('.base_layer')}, which the base {base} stores "
            "one by one; merge the adapter into a checkpoint first"
        )
    return (
        f"{module}, which the base {base} does not have as a weight of its own; is it tied, or was "
        "the adapter trained from another base?"
    )


def _what(key: str) -> str:
    said = next((text for part, text in _OTHER_TENSORS.items() if part in key), "a whole tensor")
    return (
        f"{said}, which is not low-rank (modules_to_save, trainable tokens or bias); merge the "
        "adapter into a checkpoint first"
    )

"""Which format a quantized checkpoint is in, by its config, and whether its weights can be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pv_merge.errors import PvMergeError, Topic

EXTRA = "pip install 'pv-merge[quantized]'"

UNPACKED = ("compressed-tensors", "fp8", "gptq", "awq")
"""Values of ``quant_method`` whose weights are unpacked, through the libraries of those formats."""

ADAPTER_ROUTE = (
    "serve the mix as an adapter, which leaves this model as it is: name the model before it was "
    "quantized as base_model, then pv-merge export --to peft"
)
"""What remains where weights cannot be unpacked."""

_KEPT_PACKED = {
    "bitsandbytes": "bitsandbytes quantizes while it loads, and its 4 bits would be lost again",
    "mxfp4": "MXFP4 (gpt-oss) fuses its experts, which this version does not unpack",
}


class Quantization(NamedTuple):
    """What a config says of how its weights are stored."""

    method: str
    settings: Mapping[str, Any]

    @property
    def unpacked(self) -> bool:
        """Whether the weights can be had in full."""
        return self.method in UNPACKED


def quantization(config: Mapping[str, Any]) -> Quantization | None:
    """Return how a model's weights are quantized, or None where they are not."""
    said = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(said, dict) or not said:
        return None
    method = str(said.get("quant_method") or "unknown").lower()
    if method == "unknown" and (said.get("load_in_4bit") or said.get("load_in_8bit")):
        method = "bitsandbytes"
    return Quantization(method, said)


def packed_problem(where: object, found: Quantization) -> str:
    """Return the line about a format whose weights cannot be had."""
    reason = _KEPT_PACKED.get(found.method, "which this version does not unpack")
    return f"{where}: is quantized with {found.method} ({reason}); {ADAPTER_ROUTE}"


def quantized_problem(where: object, found: Quantization) -> str:
    """Return the line that says what can be done where only whole weights are of use."""
    if not found.unpacked:
        return packed_problem(where, found)
    return (
        f"{where}: is quantized with {found.method}; name its copy in full precision (pv-merge "
        f"dequantize {where} -o DIR), which pv-merge run makes by itself for a base"
    )


def require(found: Quantization, where: object) -> None:
    """Raise ``PvMergeError`` unless the format is one that can be unpacked."""
    if not found.unpacked:
        raise PvMergeError(packed_problem(where, found), Topic.DTYPE)

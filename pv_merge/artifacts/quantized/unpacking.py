"""Weights out of quantized tensors, one module at a time, by the libraries of their formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pv_merge.artifacts.quantized.formats import EXTRA, Quantization
from pv_merge.errors import PvMergeError, Topic, first_line

if TYPE_CHECKING:
    from torch import Tensor, dtype

Unpack = Callable[[str, "dict[str, Tensor]"], "Tensor"]
"""Takes a module's name and its tensors, by name in full; returns its weight, (out, in)."""


def unpacker(found: Quantization, folder: Path, dtype: dtype) -> Unpack:
    """Return what unpacks a module of the checkpoint in ``folder`` into ``dtype``.

    Raises ``PvMergeError`` for settings that are not known, and where the format's library is absent.
    """
    make = {
        "compressed-tensors": _compressed_tensors,
        "fp8": _fp8_blocks,
        "awq": _awq,
        "gptq": _gptq,
    }[found.method]
    try:
        unpack = make(found, folder, dtype)
    except ImportError as error:
        name = str(error.name or error).partition(".")[0]
        raise PvMergeError(
            f"{folder}: is quantized with {found.method}, and {name} is not installed, which unpacks "
            f"it; {EXTRA}"
        ) from None
    except (ValueError, TypeError) as error:
        raise PvMergeError(f"{folder}: {found.method}: {first_line(error)}", Topic.DTYPE) from None

    def checked(module: str, tensors: dict[str, Tensor]) -> Tensor:
        try:
            return unpack(module, tensors)
        except (KeyError, ValueError, RuntimeError, IndexError, AttributeError, TypeError) as error:
            raise PvMergeError(
                f"{folder}: {module} cannot be unpacked ({type(error).__name__}: {first_line(error)}); "
                f"it holds {', '.join(sorted(name.rpartition('.')[2] for name in tensors))}",
                Topic.DTYPE,
            ) from None

    return checked


def _only(module: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the one weight that is left. Raises ``ValueError`` for anything besides."""
    if set(tensors) != {f"{module}.weight"}:
        raise ValueError(f"{', '.join(sorted(tensors))} is left, is a scale missing?")
    return tensors[f"{module}.weight"]


def _compressed_tensors(found: Quantization, folder: Path, dtype: dtype) -> Unpack:
    from compressed_tensors.config import CompressionFormat
    from compressed_tensors.entrypoints.convert.converters import CompressedTensorsDequantizer

    converter = CompressedTensorsDequantizer(folder, dtype=dtype)
    groups = found.settings.get("config_groups") or {}
    for name, scheme in converter.quant_config.config_groups.items():
        # The library guesses the layout from the scheme; what the file says counts first.
        said = (groups.get(name) or {}).get("format") or found.settings.get("format")
        if said and said != CompressionFormat.mixed_precision.value:
            scheme.format = CompressionFormat(said)

    def unpack(module: str, tensors: dict[str, Tensor]) -> Tensor:
        # Scales of activations say nothing of the weight.
        own = {k: v for k, v in tensors.items() if ".input_" not in k and ".output_" not in k}
        whole = converter.process(own)
        return _only(module, whole)

    return unpack


def _fp8_blocks(found: Quantization, folder: Path, dtype: dtype) -> Unpack:
    from compressed_tensors.entrypoints.convert.converters import FP8BlockDequantizer

    size = found.settings.get("weight_block_size")
    if not (isinstance(size, list | tuple) and len(size) == 2):
        raise ValueError(
            f"weight_block_size is {size!r}, and only blocks (rows, columns) are known"
        )
    converter = FP8BlockDequantizer(weight_block_size=(int(size[0]), int(size[1])), dtype=dtype)

    def unpack(module: str, tensors: dict[str, Tensor]) -> Tensor:
        own = {k: v for k, v in tensors.items() if not k.endswith(".activation_scale")}
        return _only(module, converter.process(own))

    return unpack


def _awq(found: Quantization, folder: Path, dtype: dtype) -> Unpack:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

    said = {**found.settings, "version": str(found.settings.get("version", "gemm")).lower()}
    said.setdefault("bits", said.get("w_bit", 4))
    said.setdefault("group_size", said.get("q_group_size", 128))
    converter = AutoAWQConverter.from_autoawq_config({**said, "modules_to_not_convert": []})
    converter.ignore = []
    (scheme,) = converter.update_config(None).config_groups.values()
    compressor = BaseCompressor.get_value_from_registry(scheme.format)

    def unpack(module: str, tensors: dict[str, Tensor]) -> Tensor:
        packed = converter.process(dict(tensors))
        state = {name.removeprefix(f"{module}."): tensor for name, tensor in packed.items()}
        # In float32, since float16 products would be rounded a second time.
        state["weight_scale"] = state["weight_scale"].float()
        found_weight: Tensor = compressor.decompress(state, scheme)["weight"]
        return found_weight.to(dtype)

    return unpack


def _gptq(found: Quantization, folder: Path, dtype: dtype) -> Unpack:
    import torch
    from auto_round.utils.bit_packing import unpack_bitstream

    bits = int(found.settings.get("bits", 4))
    if bits not in (2, 4, 8):
        raise ValueError(f"bits is {bits}; 2, 4 and 8 are unpacked")
    form = str(found.settings.get("checkpoint_format") or "gptq").lower()
    if form not in ("gptq", "gptq_v2"):
        raise ValueError(f"checkpoint_format is {form!r}; gptq and gptq_v2 are unpacked")
    size = int(found.settings.get("group_size", 128))
    stored_less = 1 if form == "gptq" else 0  # the first version stores zero points less one

    def unpack(module: str, tensors: dict[str, Tensor]) -> Tensor:
        part = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
        if not {"qweight", "qzeros", "scales"} <= set(part):
            raise KeyError(", ".join(sorted({"qweight", "qzeros", "scales"} - set(part))))
        levels = unpack_bitstream(part["qweight"], bits, dim=0)
        zeros = unpack_bitstream(part["qzeros"], bits, dim=1) + stored_less
        scales = part["scales"].float()
        if "g_idx" in part:
            group = part["g_idx"].long()
        else:
            group = torch.arange(levels.shape[0]) // (size if size > 0 else levels.shape[0])
        weight: Tensor = (levels - zeros[group]).float() * scales[group]
        return weight.T.to(dtype).contiguous()

    return unpack

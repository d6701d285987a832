"""The layout of an 8B Llama in shards: real headers over sparse files, for checks of headers."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.inputs import SIZES

EIGHT_B = SIZES["8B"]


def write_layout(folder: Path) -> None:
    """Write headers and index; the weights are holes in the files, and read as zeros."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, (_, shape) in EIGHT_B.tensors().items():
        bytes_ = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if size + bytes_ > 5e9:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += bytes_
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {}, 0
        for name, shape in shard.items():
            bytes_ = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[name] = {
                "dtype": "BF16",
                "shape": shape,
                "data_offsets": [offset, offset + bytes_],
            }
            offset += bytes_
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + offset)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "llama",
        "num_hidden_layers": EIGHT_B.layers,
        "vocab_size": EIGHT_B.vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config))

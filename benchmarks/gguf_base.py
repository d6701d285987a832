"""A checkpoint as a GGUF file in float32 without a tokenizer: what llama.cpp needs for token ids.

Llama and Qwen families only. It is for comparisons; use llama.cpp's own converter to serve a model.
"""

from __future__ import annotations

from pathlib import Path

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.integrations.llama_cpp import gguf_family


def write_base(folder: str | Path, path: Path) -> None:
    """Write the checkpoint in ``folder`` to ``path``."""
    import gguf
    import torch

    base = Checkpoint(folder)
    config = base.config
    family = gguf_family(config, str(folder))
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(path, family.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    rope = config.get("rope_parameters") or config
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    architecture = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[family.architecture]
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name in base.names:
        tensor = base.tensor(name).float()
        if family.permuted and (".q_proj." in name or ".k_proj." in name):
            # Of each head's rows 0 … d − 1, llama.cpp has i and i + d/2 next to each other.
            order = [
                head * width + i + half
                for head in range(heads if ".q_proj." in name else groups)
                for i in range(width // 2)
                for half in (0, width // 2)
            ]
            tensor = tensor[torch.tensor(order)]
        stem, _, kind = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{kind}", tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

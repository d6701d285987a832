"""Logits of llama.cpp for token ids, with LoRA adapters at given scales.

llama-cpp-python lives in an environment of its own (``make test-llama`` makes it), so this file is
both the caller's side (``llama_logits``) and, run as a script, the other side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def llama_python() -> str | None:
    """Return a Python that has llama_cpp: PV_LLAMA_PYTHON, .venv-llama or this one; None without."""
    for python in (os.environ.get("PV_LLAMA_PYTHON"), ".venv-llama/bin/python", sys.executable):
        if python and Path(python).exists():
            found = subprocess.run([python, "-c", "import llama_cpp"], capture_output=True)
            if found.returncode == 0:
                return python
    return None


def llama_logits(
    python: str,
    model: Path,
    adapters: Sequence[Path],
    cases: Sequence[tuple[Sequence[int], Sequence[float]]],
) -> list[Any]:
    """Return an array (tokens, vocabulary) for each case: token ids, and a scale for each adapter."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(
            json.dumps(
                {
                    "model": str(model),
                    "adapters": [str(path) for path in adapters],
                    "cases": [[list(tokens), list(scales)] for tokens, scales in cases],
                    "out": folder,
                }
            )
        )
        done = subprocess.run([python, __file__, str(job)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-3000:])
        return [np.load(Path(folder) / f"{number}.npy") for number in range(len(cases))]


def _serve(job: dict[str, Any]) -> None:
    import ctypes

    import llama_cpp
    import numpy as np

    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    settings.use_extra_bufts = False  # 4-bit weights repacked for AMX crash in 0.3.36, LoRA or not
    model = llama_cpp.llama_model_load_from_file(job["model"].encode(), settings)
    assert model, f"{job['model']} does not load"
    adapters = [llama_cpp.llama_adapter_lora_init(model, p.encode()) for p in job["adapters"]]
    assert all(adapters), "an adapter does not load"
    width = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    context = llama_cpp.llama_context_default_params()
    longest = max(len(tokens) for tokens, _ in job["cases"])
    context.n_ctx = context.n_batch = context.n_ubatch = max(64, longest)
    context.n_threads = context.n_threads_batch = int(os.environ.get("OMP_NUM_THREADS", "1"))
    context.flash_attn_type = 0  # off, and keys and values in float32: as exact as it gets
    context.type_k = context.type_v = llama_cpp.GGML_TYPE_F32
    ctx = llama_cpp.llama_init_from_model(model, context)
    assert ctx, "no context"
    count = len(adapters)
    held = (llama_cpp.llama_adapter_lora_p_ctypes * count)(*adapters)
    for number, (tokens, scales) in enumerate(job["cases"]):
        values = (ctypes.c_float * count)(*scales)
        assert llama_cpp.llama_set_adapters_lora(ctx, held, count, values) == 0
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(ctx), True)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, 1
        assert llama_cpp.llama_decode(ctx, batch) == 0
        flat = np.ctypeslib.as_array(llama_cpp.llama_get_logits(ctx), (len(tokens) * width,))
        np.save(Path(job["out"]) / f"{number}.npy", flat.reshape(len(tokens), width))
        llama_cpp.llama_batch_free(batch)


if __name__ == "__main__":
    _serve(json.loads(Path(sys.argv[1]).read_text()))

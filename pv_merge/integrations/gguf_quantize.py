"""llama.cpp's own quantizer: its ``llama-quantize``, or the same function in llama-cpp-python."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pv_merge.errors import PvMergeError, Topic, did_you_mean

_CODE = """
import sys
import llama_cpp
settings = llama_cpp.llama_model_quantize_default_params()
settings.ftype, settings.nthread = int(sys.argv[3]), int(sys.argv[4])
source, target = (text.encode() for text in sys.argv[1:3])
sys.exit(llama_cpp.llama_model_quantize(source, target, settings))
"""


def quantization_types() -> dict[str, int]:
    """Return llama.cpp's types by name, such as ``Q4_K_M``, with their number."""
    import gguf

    kinds = gguf.LlamaFileType.__members__
    return {
        name.removeprefix("MOSTLY_"): int(kind)
        for name, kind in kinds.items()
        if name.startswith("MOSTLY_")
    }


def require_quantizer(kind: str) -> None:
    """Raise ``PvMergeError`` for a type that llama.cpp does not know, and where no quantizer is here."""
    known = quantization_types()
    if kind not in known:
        raise PvMergeError(
            f"--quantize {kind}: is no type of llama.cpp's{did_you_mean(kind, known)}"
        )
    if shutil.which("llama-quantize") is None and importlib.util.find_spec("llama_cpp") is None:
        raise PvMergeError(
            "--quantize needs llama.cpp's quantizer: put its llama-quantize on the PATH, or pip install "
            "llama-cpp-python (which builds it); without --quantize the model is written in full",
            Topic.OUTPUT,
        )


def quantize(source: Path, target: Path, kind: str) -> None:
    """Write a GGUF model quantized. Raises ``PvMergeError`` where llama.cpp refuses it."""
    program = shutil.which("llama-quantize")
    threads = str(os.cpu_count() or 1)
    if program is not None:
        command = [program, str(source), str(target), kind, threads]
    else:
        number = str(quantization_types()[kind])
        command = [sys.executable, "-P", "-c", _CODE, str(source), str(target), number, threads]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0 or not target.exists():
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise PvMergeError(
            f"llama.cpp did not quantize the model into {kind}: {lines[-1] if lines else 'no word'}",
            Topic.OUTPUT,
        )

"""llama.cpp's own converter, in a process of its own: ``python -m pv_merge.integrations.gguf_convert``.

auto-round ships llama.cpp's ``conversion`` package, which no package of llama.cpp's does; it is as
large as PyTorch, logs at length, and takes the top-level name ``conversion``, so it runs apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pv_merge.errors import PvMergeError, Topic

EXTRA = "pip install 'pv-merge[gguf]'"
_FAILED = "pv-merge-gguf: "


def convert(model: Path, file: Path) -> None:
    """Write a checkpoint as a GGUF file, in its own dtype. Raises ``PvMergeError`` where it cannot be."""
    _call("convert", str(model), str(file))


def require_family(config: dict[str, object], where: object) -> None:
    """Raise ``PvMergeError`` unless the converter knows a model of this config."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else str(config.get("model_type"))
    try:
        _call("know", name)
    except PvMergeError as error:
        raise PvMergeError(f"{where}: {error.message}", error.topic) from None


def _call(*words: str) -> None:
    """Run this file's other side; its last line says what failed."""
    environment = {**os.environ, "AUTO_ROUND_GGUF_AUTO_UPDATE": "0", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", "-m", "pv_merge.integrations.gguf_convert", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith(_FAILED)), None)
    text = said.removeprefix(_FAILED) if said else f"it failed: {lines[-1] if lines else 'no word'}"
    raise PvMergeError(f"llama.cpp's converter: {text}", Topic.OUTPUT)


def _main(words: list[str]) -> None:
    """Do what is asked; say in one line why not."""
    try:
        from auto_round.export.export_to_gguf.llama_cpp_conversion import get_conversion
    except ImportError as error:
        _fail(f"auto-round ships it, and is not installed ({error.name}); {EXTRA}")
    if words[0] == "know":
        if not get_conversion(auto_update=False).is_supported(words[1]):
            _fail(f"does not know {words[1]}")
        return
    import gguf

    model, file = Path(words[1]), Path(words[2])
    conversion = get_conversion(auto_update=False)
    base = conversion.ModelBase
    settings = base.load_hparams(model, False)
    name = conversion.get_model_architecture(settings, conversion.ModelType.TEXT)
    try:
        made = conversion.get_model_class(name)(model, _kind(model, gguf), file)
        made.write()
    except NotImplementedError as error:
        _fail(str(error).splitlines()[0] or "does not know this tokenizer")


def _kind(model: Path, gguf: object) -> object:
    """Return the file type for the dtype that all weights are in, else float32."""
    from pv_merge.artifacts.checkpoint import Checkpoint

    stored = {info.dtype for info in Checkpoint(model).infos.values() if info.floating}
    kinds = gguf.LlamaFileType  # type: ignore[attr-defined]
    narrow = {"BF16": kinds.MOSTLY_BF16, "F16": kinds.MOSTLY_F16}
    return narrow.get(stored.pop(), kinds.ALL_F32) if len(stored) == 1 else kinds.ALL_F32


def _fail(text: str) -> None:
    sys.stderr.write(f"\n{_FAILED}{text}\n")
    raise SystemExit(1)


if __name__ == "__main__":
    _main(sys.argv[1:])

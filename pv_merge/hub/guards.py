"""What must not be published: files and settings that are refused by name."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError
from pv_merge.hub.card.markdown import plain
from pv_merge.hub.machine_paths import machine_path_in

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
SECRETS = (".netrc", ".git-credentials", ".pypirc", ".npmrc", "id_rsa", "id_ed25519", ".htpasswd")
OPTIMIZER = re.compile(
    r"(optimizer|scheduler|scaler|rng_state|zero_pp_rank|trainer_state|training_args)([._\d-].*)?"
    r"|.*optim_states?\..*"
)
TOKENS = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "an OpenAI or Anthropic key": r"\bsk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{32,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "a Slack token": r"\bxox[abprs]-[0-9A-Za-z-]{20,}",
    "a Weights & Biases key": r"(?i)wandb_api_key[\"'\s:=]+[0-9a-f]{40}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a signed web token": r"\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "a password or key": r"(?i)[\"']?(?:api[_-]?key|secret[_-]?key|access[_-]?token|auth[_-]?token"
    r"|password)[\"']?\s*[:=]\s*[\"'][A-Za-z0-9_+/.-]{16,}[\"']",
}
_TOKENS = {name: re.compile(pattern.encode()) for name, pattern in TOKENS.items()}

BINARY = (".safetensors", ".gguf", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf")
SCAN_LIMIT = 64 << 20
"""Text files larger than this are not looked through."""


@dataclass(frozen=True)
class Refusal:
    """A file that is not published, and why; ``--include`` with its name overrides it."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{plain(self.path)}: {self.reason}"


def refusals(
    folder: Path, files: list[str], base: Path | None, changed: Mapping[str, bytes]
) -> Iterator[Refusal]:
    """Yield what is wrong with each of ``files``, names under ``folder``.

    ``base`` is the base model's folder where it is here: python files that it has too are fine.
    ``changed`` is what is sent in the place of some files.
    """
    for name in files:
        reason = _refused(folder, name, base)
        if reason is None and _is_text(folder / name):
            content = changed.get(name) or (folder / name).read_bytes()
            reason = token_in(content) or machine_path_in(name, content)
        if reason:
            yield Refusal(name, reason)


def _refused(folder: Path, name: str, base: Path | None) -> str | None:
    path = folder / name
    if plain(name) != name:
        return "has line breaks, double spaces or control characters in its name"
    if leaves := _symlink_out(folder, name):
        return leaves
    if not path.is_file():
        return "is not an ordinary file"
    leaf = path.name.lower()
    if leaf == ".env" or leaf.startswith(".env.") or leaf in SECRETS or leaf.endswith(".pem"):
        return "is a file that usually holds secrets"
    if OPTIMIZER.fullmatch(leaf):
        return "is state of the training (optimizer, scheduler, trainer), not of the model"
    if any(part.startswith("global_step") for part in Path(name).parts[:-1]):
        return "is state of the optimizer"
    if path.suffix.lower() in PICKLES or _is_pickle(path):
        return "is a pickle, which runs code when it is loaded; save it as safetensors"
    if path.suffix == ".py" and not _same_in(base, name, path):
        return "is code that whoever loads the model with trust_remote_code would run, and " + (
            "the base has no such file" if base else "the base is not here to compare with"
        )
    if path.name == "config.json" and (code := _foreign_code(path, base)):
        return code
    return None


def _is_text(path: Path) -> bool:
    return path.suffix.lower() not in BINARY and path.stat().st_size <= SCAN_LIMIT


def token_in(content: bytes) -> str | None:
    """Return where a token-like string stands and of what kind it is, never the string itself."""
    if b"\0" in content[:8192]:
        return None
    for kind, pattern in _TOKENS.items():
        found = pattern.search(content)
        if found:
            line = content.count(b"\n", 0, found.start()) + 1
            return f"line {line} has what looks like {kind}; remove it, and revoke it if it is one"
    return None


def _symlink_out(folder: Path, name: str) -> str | None:
    root = folder.resolve()
    place = folder
    for part in Path(name).parts:
        place = place / part
        if place.is_symlink() and not place.resolve().is_relative_to(root):
            return "is a symlink that leaves the folder; copy the file it points to"
    return None


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    if len(start) >= 2 and start[0] == 0x80 and 2 <= start[1] <= 5:
        # A safetensors file may begin with 0x80 too: a header's length.
        return path.suffix != ".safetensors"
    if start[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    return False


def _same_in(base: Path | None, name: str, path: Path) -> bool:
    other = base / name if base else None
    return other is not None and other.is_file() and other.read_bytes() == path.read_bytes()


def _foreign_code(config: Path, base: Path | None) -> str | None:
    """Say where a config's ``auto_map`` asks for code that the base's does not ask for."""
    asked = _auto_map(config)
    known = _auto_map(base / "config.json") if base else {}
    for key, value in asked.items():
        if known.get(key) != value:
            return f"its auto_map loads code ({key}: {value}) that the base does not load"
    return None


def _auto_map(config: Path) -> dict[str, Any]:
    try:
        found = read_object(config).get("auto_map")
    except PvMergeError:
        return {}
    return found if isinstance(found, dict) else {}

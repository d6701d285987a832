"""What a text means where a model is named: a folder, ``NAMESPACE/NAME@REVISION``, ``BASE+LORA``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

from pv_merge.errors import PvMergeError, os_errors

_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([\w][\w./=,+-]*))?")

SAFE_FILES = (
    "*.safetensors",
    "*.json",
    "*.model",
    "*.tiktoken",
    "*.txt",
    "*.jinja",
    "*.md",
    "*.yml",
    "*.yaml",
    "LICENSE*",
    "NOTICE*",
)
"""What is downloaded: weights as safetensors, settings, texts. No pickles, and no code."""

FOLDERS = frozenset(
    [
        "base",
        "bases",
        "checkpoint",
        "checkpoints",
        "data",
        "dataset",
        "datasets",
        "merged",
        "model",
        "models",
        "out",
        "output",
        "outputs",
        "pairs",
        "policies",
        "recipes",
        "results",
        "runs",
        "train",
        "vectors",
    ]
)
"""Names that a part before a slash has where it is a folder, not a namespace."""

LONGEST = 250
"""Characters of a name on the Hub, which no file system refuses to look for."""

CODE_FILES = ("*.py",)
"""What is downloaded besides where remote code is asked for."""


@dataclass(frozen=True)
class Reference:
    """A model as a recipe names it: a folder or a name on the Hub, by itself or as an adapter."""

    text: str
    """As it was written."""
    name: str
    """The folder or the name on the Hub, of the adapter where it is one over a base."""
    base: str | None = None
    """What stands before the ``+``; None without one."""

    def __str__(self) -> str:
        return self.text

    @property
    def over_base(self) -> bool:
        """Whether it was written ``BASE+LORA``."""
        return self.base is not None

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders or names on the Hub that it names: the base, if there is one, and its own."""
        return (self.name,) if self.base is None else (self.base, self.name)

    @property
    def folder(self) -> Path:
        """The folder of ``name``; a repository is downloaded where it is not in the Hub's cache."""
        return local_folder(self.name)

    @property
    def cached(self) -> Path | None:
        """The folder of ``name`` if it is here or in the Hub's cache, else None."""
        return cached_folder(self.name)


def parse_reference(text: str) -> Reference:
    """Return what ``text`` names. ``PvMergeError`` if it is no ``NAME`` or ``BASE+LORA``, as in mergekit."""
    if any(category(char) in ("Cc", "Cs") for char in text):
        raise PvMergeError(f"{text!r}: holds a character that cannot stand in a name")
    base, plus, name = text.partition("+")
    if not plus:
        if not text:
            raise PvMergeError("a model's name is empty; expected a folder or a name on the Hub")
        return Reference(text, text)
    if not base or not name or "+" in name:
        raise PvMergeError(
            f"{text}: expected BASE+ADAPTER, one of each (mergekit takes no folder with + in its name)"
        )
    return Reference(text, name, base)


@dataclass(frozen=True)
class HubName:
    """A repository on the Hub, at a branch, tag or commit."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def parse_hub_name(text: str) -> HubName | None:
    """Return the name, or None where ``text`` has not the form of one."""
    match = _NAME.fullmatch(text) if len(text) <= LONGEST else None
    if match is None or ".." in text or "--" in match[1]:
        return None
    return HubName(match[1], match[2])


def is_hub_name(text: str) -> bool:
    """Return whether ``text`` means a repository on the Hub rather than a folder.

    A folder of that name counts first. Where the part before the slash is a folder here, a name
    without ``@REVISION`` is taken for a misspelt path, so that no typo asks the network.
    """
    name = parse_hub_name(text)
    if name is None or Path(text).exists():
        return False
    return name.revision is not None or not Path(text.partition("/")[0]).is_dir()


def surely_on_hub(text: str) -> bool:
    """Return whether a card may say that ``text`` is a repository on the Hub.

    Not where it could as well be a folder of the machine that made the model.
    """
    return is_hub_name(text) and text.partition("/")[0].lower() not in FOLDERS


def local_folder(name: str | Path) -> Path:
    """Return the folder that ``name`` means: a path as it is, a name on the Hub out of its cache.

    A repository that is not in the cache is downloaded first: ``SAFE_FILES`` only. Raises
    ``PvMergeError`` where that cannot be done; whether a path exists is for the caller to see.
    """
    text = str(name)
    with os_errors(text, "read"):
        _ = Path(text).exists()  # what no file system takes as a name is neither of them
        if not is_hub_name(text):
            return Path(name)
    hub_name = parse_hub_name(text)
    assert hub_name is not None
    return snapshot(hub_name)


def loadable(name: str) -> str:
    """Return what transformers can load for ``name``: the cached folder of a name on the Hub.

    ``NAMESPACE/NAME@REVISION`` is a way to write of ours; anything else is handed through.
    """
    return str(local_folder(name)) if is_hub_name(name) else name


def without_revision(name: str) -> str:
    """Return the name that an adapter's config has for its base: PEFT keeps the revision apart.

    A folder is handed through.
    """
    parsed = parse_hub_name(name) if is_hub_name(name) else None
    return parsed.repo if parsed else name


def portable(name: str) -> str:
    """Return a path under the current folder as one relative to it, and any other name as it is."""
    path = Path(name)
    if not path.is_absolute():
        return name
    try:
        return f"./{path.relative_to(Path.cwd()).as_posix()}"
    except ValueError:
        return name


def cached_folder(name: str | Path) -> Path | None:
    """Return the folder that ``name`` means if it is here or in the Hub's cache, else None.

    For what is good to know and not worth a download.
    """
    text = str(name)
    hub_name = parse_hub_name(text) if is_hub_name(text) else None
    if hub_name is None:
        return Path(name) if Path(name).is_dir() else None
    from huggingface_hub import snapshot_download  # 0.3 s that a folder does not need

    try:
        found = snapshot_download(
            hub_name.repo,
            revision=hub_name.revision,
            allow_patterns=list(SAFE_FILES),
            local_files_only=True,
        )
    except (OSError, ValueError):  # not there, or not whole
        return None
    return Path(found)


def snapshot(name: HubName, *, remote_code: bool = False) -> Path:
    """Return the repository's folder in huggingface_hub's cache, downloaded where it is not there.

    Raises ``PvMergeError`` if it cannot be had, or holds no safetensors.
    """
    from huggingface_hub import snapshot_download

    from pv_merge.artifacts.network import explained, patiently, quiet_client

    patterns = [*SAFE_FILES, *(CODE_FILES if remote_code else ())]
    with quiet_client(), explained(str(name)):
        # What has arrived stays in the cache, so another try goes on from there.
        found = patiently(
            lambda: snapshot_download(name.repo, revision=name.revision, allow_patterns=patterns)
        )
    folder = Path(found)
    if not any(folder.glob("*.safetensors")):
        raise PvMergeError(
            f"{name}: holds no safetensors, and other weights (pickles) are never downloaded; is it "
            "a collection, whose revisions hold the models?"
        )
    return folder

"""The vectors that a server offers: read from headers and manifests, no weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pv_merge.artifacts.base_hash import from_other_bases, known_hash, weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.manifest import VECTOR_MANIFEST, Manifest, read_manifest
from pv_merge.artifacts.model_files import ADAPTER_CONFIG
from pv_merge.artifacts.protection import is_protected
from pv_merge.errors import PvMergeError, raise_all

ALLOW = "PV_MERGE_SERVE_ALLOW_RELATED_BASE=1"
"""What messages say can be done about another base."""

SERVABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""What a preference's name may be, as a client writes it and as the name of its folder."""


@dataclass(frozen=True)
class ServedVector:
    """One low-rank preference vector in a folder."""

    name: str
    """The subfolder's name, which clients write."""
    folder: Path
    rank: int
    """The largest rank of its modules."""
    minimum: Decimal | None
    """Lowest eta without the server's opt-in; None where it is not protected."""
    base_sha256: str | None
    """Hash of the base's weights, where the manifest has it."""
    base: str | None
    """The base that the manifest or the adapter names."""
    elements: int
    """Elements of A and B together."""


def scan(folder: Path, *, related: bool = False) -> dict[str, ServedVector]:
    """Return every vector in the subfolders of ``folder`` by name.

    Raises ``PvMergeError`` with everything that keeps the folder from being served: a subfolder that
    holds no low-rank vector, a name that clients could not write, vectors of several bases (unless
    they may be of any ``related`` one).
    """
    if not folder.is_dir():
        raise PvMergeError(f"{folder}: no such folder")
    found: dict[str, ServedVector] = {}
    problems: list[str] = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith(".") or not place.is_dir():
            continue
        try:
            found[place.name] = _open(place)
        except PvMergeError as error:
            problems.append(error.message)
    hashes = {vector.base_sha256 for vector in found.values() if vector.base_sha256}
    if len(hashes) > 1 and not related:
        named = ", ".join(f"{name} of {vector.base}" for name, vector in found.items())
        problems.append(f"{folder}: holds vectors of different bases ({named})")
    if not found and not problems:
        problems.append(
            f"{folder}: holds no vectors; put a subfolder there for each "
            "(pv-merge extract POSITIVE NEGATIVE --form low-rank)"
        )
    raise_all(problems)
    return found


def refuse_other_base(
    vectors: Mapping[str, ServedVector], base: str, *, read: bool = False
) -> bool:
    """Raise ``PvMergeError`` where a manifest names the hash of another base than the folder ``base``.

    Returns whether they were compared: the base's hash must be known, unless it is to be ``read``.
    """
    said = {name: vector.base_sha256 for name, vector in vectors.items() if vector.base_sha256}
    if not said or not Path(base).is_dir():
        return False
    model = Checkpoint(base)
    own = weights_hash(model) if read else known_hash(model)
    if own is None:
        return False
    raise_all(
        [
            f"{name}: was made from another base than {base} (its manifest's hash of the base's "
            f"weights differs); {ALLOW} serves it all the same"
            for name in from_other_bases(said, own)
        ]
    )
    return True


def _open(place: Path) -> ServedVector:
    if not SERVABLE.fullmatch(place.name):
        raise PvMergeError(
            f"{place}: clients write this name, so it must be of letters, digits and . _ - in ASCII"
        )
    found = read_manifest(place, VECTOR_MANIFEST)
    manifest = found or Manifest()
    if not is_adapter(place):
        hint = "; is a dense vector" if found else "; is no preference vector"
        raise PvMergeError(
            f"{place}: holds no {ADAPTER_CONFIG}{hint} (pv-merge extract --form low-rank makes one)"
        )
    from pv_merge.artifacts.adapter import Adapter

    adapter = Adapter(place)
    pairs = adapter.pairs.values()
    return ServedVector(
        place.name,
        place,
        max(pair.a.shape[0] for pair in pairs),
        _minimum(manifest, place.name),
        manifest.made_from.weights_sha256,
        manifest.made_from.path or adapter.base_model,
        sum(math.prod(pair.a.shape) + math.prod(pair.b.shape) for pair in pairs),
    )


def _minimum(manifest: Manifest, name: str) -> Decimal | None:
    """Return the bound of a protected preference: the manifest's ``protected_minimum``, else 0.

    It is protected by its folder's name or by the name in its manifest, so that a copy under
    another name stays protected.
    """
    names = {name, manifest.preference or name}
    if not any(is_protected(each, manifest.said_protected(each)) for each in names):
        return None
    said = manifest.data.get("protected_minimum", 0)
    if isinstance(said, bool) or not isinstance(said, int | float) or not -1000 <= said <= 0:
        raise PvMergeError(f"{name}: protected_minimum is {said!r}, not a number from -1000 to 0")
    return Decimal(str(said))

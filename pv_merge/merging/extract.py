"""Extraction: from a positive and a negative policy to the preference vector between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from pv_merge.artifacts.adapter_folder import write_low_rank
from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import unmergeable
from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.manifest import VECTOR_MANIFEST
from pv_merge.artifacts.protection import is_protected
from pv_merge.artifacts.reference import portable, without_revision
from pv_merge.artifacts.vector_folder import write_companions
from pv_merge.errors import PvMergeError, raise_all
from pv_merge.merging.dense_vector import write_difference
from pv_merge.merging.policy_pair import PolicyPair, origin
from pv_merge.merging.sums import Sums, VectorMeasures
from pv_merge.merging.truncation import Truncation
from pv_merge.version import __version__


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract."""

    base: str | None = None
    """The base's folder, where neither manifest nor adapter names it."""
    name: str | None = None
    """The preference's name; by default the manifests', else that of the output's folder."""
    low_rank: bool = False
    """Write an adapter of rank 2r rather than a tensor for each weight."""
    rank: int | None = None
    """Rank to keep for each weight, of policies that are checkpoints."""
    energy: float | None = None
    """Share of each ‖φ‖² to keep, of policies that are checkpoints."""
    dtype: str = "float32"
    """Dtype that the deltas are stored in."""
    allow_different_bases: bool = False
    """Subtract policies of two bases all the same."""


class VectorManifest(TypedDict):
    """What ``extract`` writes about a vector."""

    kind: str
    format: int
    preference: str
    protected: bool
    form: str
    dtype: str
    base: dict[str, str]
    positive: dict[str, object]
    negative: dict[str, object]
    rank: NotRequired[int]
    relative_error: NotRequired[float]
    measures: NotRequired[VectorMeasures]
    pv_merge: NotRequired[str]


def extract(
    positive: str | Path,
    negative: str | Path,
    output: str | Path,
    options: ExtractOptions | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> VectorManifest:
    """Write φ = θ+ − θ− (Eq. 4) to ``output`` and return its manifest.

    Raises ``PvMergeError`` if the policies do not fit one base or each other; ``advance`` is told
    (done, in all): elements of a dense vector, weights of a low-rank one.

    >>> import pv_merge
    >>> options = pv_merge.ExtractOptions(low_rank=True)
    >>> manifest = pv_merge.extract("positive", "negative", "vectors/new", options)
    >>> manifest["preference"], manifest["form"], manifest["rank"]
    ('polite', 'low-rank', 8)
    """
    options = options or ExtractOptions()
    target = Path(output)
    pair = PolicyPair(positive, negative)
    base_name, base = pair.base(options.base, options.allow_different_bases)
    refuse_existing(target, apart_from=[base.folder, *(side.folder for side in pair.both)])
    raise_all(unmergeable(base) + pair.problems(base))
    name = pair.preference(options.name, target)
    manifest: VectorManifest = {
        "kind": "preference_vector",
        "format": 1,
        "preference": name,
        "protected": is_protected(name, *(side.manifest.protected for side in pair.both)),
        "form": "low-rank" if options.low_rank else "dense",
        "dtype": options.dtype,
        "base": {"path": portable(base_name), "weights_sha256": weights_hash(base)},
        "positive": origin(pair.positive),
        "negative": origin(pair.negative),
    }
    sums = Sums()
    total = len(base.names)
    with new_folder(target) as work:
        if options.low_rank:
            taken = _low_rank(pair, base, options, sums, lambda done: advance(done, total))
            loadable = without_revision(base_name)
            manifest["rank"] = write_low_rank(work, taken.changes, base, loadable, options.dtype)
            manifest["relative_error"] = taken.relative_error
            manifest["measures"] = sums.measures()
        else:
            manifest["measures"] = write_difference(work, base, pair, options.dtype, advance)
            write_companions(work, base, options.dtype)
        manifest["pv_merge"] = __version__
        if not manifest["measures"]["tensors_moved"]:
            raise PvMergeError(f"{positive} and {negative} are the same; was one trained twice?")
        write_json(work / VECTOR_MANIFEST, manifest)
    return manifest


def _low_rank(
    pair: PolicyPair,
    base: Checkpoint,
    options: ExtractOptions,
    sums: Sums,
    advance: Callable[[int], None],
) -> Truncation:
    """Return φ of each linear weight: exact from adapters, a truncated SVD from checkpoints."""
    limited = options.rank is not None or options.energy is not None
    if pair.adapters and limited:
        raise PvMergeError(
            "the low-rank form of two adapters is exact; --rank and --energy do not apply"
        )
    if not pair.adapters and not limited:
        raise PvMergeError(
            "the policies are checkpoints, so say which part to keep: --rank N or --energy 0.99"
        )
    taken = Truncation(options.rank, options.energy)
    for done, name in enumerate(base.names, start=1):
        weight = base.tensor(name)
        if weight.is_floating_point():
            deltas = pair.deltas(name, weight)
            sums.add(deltas)
            if deltas.phi is not None and pair.adapters:
                taken.take(name, pair.change(name))
            elif deltas.phi is not None:
                taken.take_dense(name, deltas.phi)
        advance(done)
    if not taken.changes:
        raise PvMergeError(f"{pair.positive} and {pair.negative} do not differ in any linear layer")
    return taken

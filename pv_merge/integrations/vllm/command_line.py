"""vLLM's command line for a folder of vectors, with the sizes that the vectors need."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pv_merge.artifacts.base_hash import HASHED_AT_ONCE
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.errors import PvMergeError, raise_all
from pv_merge.integrations.mixes.settings import FOLDER, PREFIX
from pv_merge.integrations.mixes.vectors import ServedVector, refuse_other_base, scan
from pv_merge.integrations.vllm import ranks


@dataclass(frozen=True)
class Plan:
    """What the server must be started with."""

    folder: Path
    base: str
    vectors: dict[str, ServedVector]
    terms: int
    """Most preferences in one mix."""
    clients: int
    """Mixes at the same time."""
    rank: int
    """The server's ``--max-lora-rank``."""
    compared: bool
    """Whether the base's weights were compared with those that the manifests name."""
    related: bool = False
    """Whether vectors may be of other bases than ``base``."""


def plan(
    folder: str,
    base: str,
    terms: int | None,
    clients: int,
    *,
    deep: bool = False,
    related: bool = False,
) -> Plan:
    """Check the vectors against the base and return the plan; ``PvMergeError`` lists all problems.

    With ``related`` they may be of other bases, as long as the shapes agree.
    """
    vectors = scan(Path(folder), related=related)
    if is_adapter(base):
        raise PvMergeError(f"{base}: is an adapter; name the base model")
    model = Checkpoint(base)
    raise_all(list(_misfits(vectors, model)))
    small = sum(file.stat().st_size for file in model.files) <= HASHED_AT_ONCE
    compared = not related and refuse_other_base(vectors, str(model.folder), read=deep or small)
    count = min(terms or 8, len(vectors))
    needed = sum(sorted((vector.rank for vector in vectors.values()), reverse=True)[:count])
    rank = ranks.vllm_rank(needed)
    if rank is None:
        raise PvMergeError(
            f"{folder}: a mix of {count} can have rank {needed}, and vLLM takes {ranks.VLLM_RANKS[-1]} at most; "
            "allow fewer with --terms, or extract with a lower --rank"
        )
    return Plan(Path(folder).absolute(), base, vectors, count, clients, rank, compared, related)


def render(made: Plan) -> str:
    """Return the command, its environment first, as a shell takes it."""
    environment = {
        FOLDER: str(made.folder),
        f"{PREFIX}MAX_TERMS": made.terms,
        f"{PREFIX}MAX_RANK": made.rank,
        **({f"{PREFIX}ALLOW_RELATED_BASE": 1} if made.related else {}),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": 1,
    }
    command = f"vllm serve {shlex.quote(made.base)} --enable-lora --max-loras {made.clients}"
    command += f" --max-lora-rank {made.rank} --max-cpu-loras {2 * made.clients}"
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in environment.items()]
    return " \\\n  ".join([*lines, command])


def notes(made: Plan) -> Iterator[str]:
    """Yield what one should know about the plan."""
    for vector in made.vectors.values():
        bound = "" if vector.minimum is None else f", protected: eta from {vector.minimum}"
        yield f"{vector.name}: rank {vector.rank}{bound}"
    width = max(vector.elements / vector.rank for vector in made.vectors.values())
    megabytes = width * made.rank * 2 / 1e6
    yield (
        f"{made.clients} mixes of rank {made.rank} at a time: about {megabytes * made.clients:.0f} MB "
        "on the device with 16-bit weights, twice that with float32"
    )
    yield (
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING also opens /v1/load_lora_adapter, which loads any path: "
        "let strangers reach /v1/chat/completions and /v1/completions only"
    )
    if made.related:
        yield (
            f"vectors of other bases are served over {made.base}: measure what arrives (pv-merge sweep "
            "with allow_related_base: true)"
        )
    elif not made.compared:
        yield f"{made.base} was not compared with the base that the manifests name; --deep does"


def _misfits(vectors: dict[str, ServedVector], model: Checkpoint) -> Iterator[str]:
    from pv_merge.artifacts.adapter import Adapter

    for vector in vectors.values():
        yield from Adapter(vector.folder).problems(model)

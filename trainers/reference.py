"""The reference pass: log-probabilities under the frozen base, computed once and shared.

log π_ref(y|x) depends on the base, the tokens and nothing else: not on which answer is called
chosen, nor on the preference. So it is stored by sequence, and both polarities, and every other
preference over the same answers, read it from there.
"""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError
from trainers import ranks

Sequence_ = tuple[Sequence[int], Sequence[int]]
"""(prompt tokens, completion tokens)"""


def cut(sequence: Sequence_, max_length: int | None, keep_end: bool = False) -> Sequence_:
    """Return a sequence cut to ``max_length`` tokens, at its end or, with ``keep_end``, its start."""
    prompt, completion = sequence
    if max_length is None:
        return sequence
    if not keep_end:
        return prompt[:max_length], completion[: max(0, max_length - len(prompt))]
    surplus = max(0, len(prompt) + len(completion) - max_length)
    return prompt[surplus:], completion[max(0, surplus - len(prompt)) :]


def sequence_key(prompt: Sequence[int], completion: Sequence[int]) -> bytes:
    """Return a digest of the tokens and of where the completion starts."""
    return hashlib.sha256(array("q", [len(prompt), *prompt, *completion]).tobytes()).digest()


def longest_first(sequences: list[Sequence_]) -> list[int]:
    """Return the order in which neighbours are alike in length, so that a batch has little padding."""
    return sorted(range(len(sequences)), key=lambda at: -_length(sequences[at]))


def _length(sequence: Sequence_) -> int:
    return len(sequence[0]) + len(sequence[1])


class ReferenceStore:
    """Reference log-probabilities of one base, on disk; safe to share between processes.

    ``scope`` names whatever the values depend on besides the tokens: the base's weight hash and
    the precision of the pass.
    """

    def __init__(self, path: Path, scope: str) -> None:
        self._path, self._scope = path, scope
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS logps"
                " (scope TEXT, key BLOB, logp REAL, PRIMARY KEY (scope, key)) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise PvMergeError(
                f"{path}: cannot be used as the store of reference log-probabilities ({error}); "
                "delete it, or set PV_MERGE_CACHE to another folder"
            ) from None

    def get(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        """Return the stored values of those ``keys`` that have one."""
        found = {}
        for key in set(keys):
            query = "SELECT logp FROM logps WHERE scope = ? AND key = ?"
            row = self._database.execute(query, (self._scope, key)).fetchone()
            if row is not None:
                found[key] = row[0]
        return found

    def put(self, values: dict[bytes, float]) -> None:
        """Store ``values`` in one transaction."""
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO logps VALUES (?, ?, ?)",
                [(self._scope, key, value) for key, value in values.items()],
            )

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def reference_columns(
    rows: Iterable[dict[str, Any]],
    store: ReferenceStore | None,
    max_length: int | None,
    batch_size: int,
    compute: Callable[[list[Sequence_]], list[float]],
    advance: Callable[[int, int], None] = lambda done, total: None,
    keep_end: bool = False,
    order: Callable[[list[Sequence_]], list[int]] = longest_first,
) -> tuple[list[float], list[float]]:
    """Return the columns ``ref_chosen_logps`` and ``ref_rejected_logps`` of tokenized ``rows``.

    Sequences that the store does not know go to ``compute`` in batches of ``batch_size`` neighbours
    in ``order``, the largest batch first, so that running out of memory shows at once; with several
    ranks, each takes every so many-th batch. The store is rank 0's; the others pass None.
    ``advance`` is told (sequences done, sequences to do) after each batch.
    """
    keys: list[tuple[bytes, bytes]] = []
    sequences: dict[bytes, Sequence_] = {}
    for row in rows:
        pair = []
        for side in ("chosen_ids", "rejected_ids"):
            sequence = cut((row["prompt_ids"], row[side]), max_length, keep_end)
            key = sequence_key(*sequence)
            sequences.setdefault(key, sequence)
            pair.append(key)
        keys.append((pair[0], pair[1]))
    known: dict[bytes, float] = ranks.share(store.get(sequences) if store else {})
    missing = sorted(key for key in sequences if key not in known)
    missing = [missing[at] for at in order([sequences[key] for key in missing])]
    batches = [missing[at : at + batch_size] for at in range(0, len(missing), batch_size)]
    batches.sort(key=lambda batch: -sum(_length(sequences[key]) for key in batch))
    done, together = 0, ranks.world_size()
    for start in range(0, len(batches), together):
        turn = batches[start : start + together]
        # A rank without a batch of its own repeats the last: sharded models need every rank.
        mine = turn[min(ranks.rank(), len(turn) - 1)] if together > 1 else turn[0]
        parts = ranks.gather(compute([sequences[key] for key in mine]))
        for batch, values in zip(turn, parts, strict=False):
            found = dict(zip(batch, values, strict=True))
            if store:
                store.put(found)
            known |= found
            done += len(batch)
        advance(done, len(missing))
    return [known[chosen] for chosen, _ in keys], [known[rejected] for _, rejected in keys]

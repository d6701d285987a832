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

Sequence_ = tuple[Sequence[int], Sequence[int]]
"""(prompt tokens, completion tokens)"""


def sequence_key(prompt: Sequence[int], completion: Sequence[int], max_length: int | None) -> bytes:
    """Return a digest of the tokens that count: where the prompt ends, and all up to max_length."""
    tokens = array("q", [len(prompt), *prompt, *completion])
    if max_length is not None:
        tokens = tokens[: max_length + 1]
    return hashlib.sha256(tokens.tobytes()).digest()


class ReferenceStore:
    """Reference log-probabilities of one base, on disk; safe to share between processes.

    ``scope`` names whatever the values depend on besides the tokens: the base's weight hash and
    the precision of the pass.
    """

    def __init__(self, path: Path, scope: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._scope = scope
        self._database = sqlite3.connect(path, timeout=60)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS logps"
            " (scope TEXT, key BLOB, logp REAL, PRIMARY KEY (scope, key)) WITHOUT ROWID"
        )

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
    store: ReferenceStore,
    max_length: int | None,
    batch_size: int,
    compute: Callable[[list[Sequence_]], list[float]],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[float], list[float]]:
    """Return the columns ``ref_chosen_logps`` and ``ref_rejected_logps`` of tokenized ``rows``.

    Sequences that the store does not know go to ``compute`` in batches of ``batch_size``, longest
    first, so that a batch has little padding and running out of memory shows at once. ``advance``
    is told (sequences done, sequences to do) after each batch.
    """
    keys: list[tuple[bytes, bytes]] = []
    sequences: dict[bytes, Sequence_] = {}
    for row in rows:
        pair = []
        for side in ("chosen_ids", "rejected_ids"):
            key = sequence_key(row["prompt_ids"], row[side], max_length)
            sequences.setdefault(key, (row["prompt_ids"], row[side]))
            pair.append(key)
        keys.append((pair[0], pair[1]))
    known = store.get(sequences)
    missing = [key for key in sequences if key not in known]
    missing.sort(key=lambda key: (-len(sequences[key][0]) - len(sequences[key][1]), key))
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        values = dict(zip(batch, compute([sequences[key] for key in batch]), strict=True))
        store.put(values)
        known |= values
        advance(start + len(batch), len(missing))
    return [known[chosen] for chosen, _ in keys], [known[rejected] for _, rejected in keys]

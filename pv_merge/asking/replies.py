"""Every reply that was ever paid for, on disk by the hash of its request."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

from pv_merge.asking.exchange import Reply
from pv_merge.cache import cache_folder
from pv_merge.errors import PvMergeError


class ReplyCache:
    """Replies by key. A reply is on disk when ``put`` returns; processes may share the file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or cache_folder() / "traits" / "replies.sqlite"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, timeout=60)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    def get(self, key: str) -> Reply | None:
        """Return the reply, or None where it is not known."""
        try:
            row = self._database.execute(
                "SELECT reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
            return None if row is None else Reply(**json.loads(row[0]))
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._unusable(error) from None

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        text = json.dumps(dataclasses.asdict(reply), ensure_ascii=False)
        try:
            with self._database:
                self._database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, text))
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise self._unusable(error) from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _unusable(self, error: Exception) -> PvMergeError:
        return PvMergeError(
            f"{self._path}: cannot be used as the cache of replies ({error}); delete it, or set "
            "PV_MERGE_CACHE to another folder"
        )

"""The files of written pairs: for training, held out, every candidate, and what made them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import write_json
from pv_merge.artifacts.provenance import file_hash
from pv_merge.data.documents import read_json
from pv_merge.errors import PvMergeError
from trainers.traits.record import KIND, manifest_of
from trainers.traits.writing import Candidate


class PairsFiles:
    """``NAME.jsonl`` and what stands beside it."""

    def __init__(self, output: Path) -> None:
        if output.suffix != ".jsonl":
            raise PvMergeError(f"-o {output}: expected a file that ends in .jsonl")
        if output.is_dir():
            raise PvMergeError(f"-o {output}: is a folder; name a file in it, such as pairs.jsonl")
        self.pairs = output
        self.held_out = output.with_name(f"{output.stem}-heldout.jsonl")
        self.candidates = output.with_name(f"{output.stem}-candidates.jsonl")
        self.manifest = manifest_of(output)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing the same files meanwhile; a kill leaves no lock."""
        from filelock import FileLock, Timeout

        try:
            self.pairs.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.pairs.with_name(f".{self.pairs.stem}.lock"), timeout=0)
            with lock:
                yield
        except Timeout:
            raise PvMergeError(
                f"{self.pairs}: another pv-train is writing it; wait for it"
            ) from None
        except OSError as error:
            raise PvMergeError(f"{self.pairs}: cannot be written ({error.strerror})") from None

    def finished(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """Return the manifest if the same trait was written here to its end.

        Raises ``PvMergeError`` if something else stands here; nothing is overwritten.
        """
        if not self.manifest.exists():
            if self.pairs.exists():
                raise PvMergeError(
                    f"{self.pairs}: already there, and not written by pv-train pairs; name another"
                )
            return None
        manifest = read_json(self.manifest)
        if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
            raise PvMergeError(
                f"{self.manifest}: is not the manifest of written pairs; name another -o"
            )
        if manifest.get("identity") != json.loads(json.dumps(identity)):
            raise PvMergeError(
                f"{self.pairs}: was written from another trait file or other prompts; name another, or "
                "delete it (replies that were paid for stay in the cache)"
            )
        for path, known in ((self.pairs, "sha256"), (self.held_out, "held_out_sha256")):
            if not path.exists() and manifest.get(known) is not None:
                return None  # killed between the files
            if path.exists() and file_hash(path) != manifest.get(known):
                raise PvMergeError(
                    f"{path}: was changed since it was written; restore it, or move it elsewhere"
                )
        return manifest

    def write_candidates(self, candidates: list[Candidate]) -> None:
        """Write every candidate, whatever became of it; nothing where there is none."""
        if candidates:
            _replace(self.candidates, [candidate.row() for candidate in candidates])

    def write(
        self, training: list[dict[str, Any]], held_out: list[dict[str, Any]], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Write the pairs and return their manifest, which is written first: it says whose they are."""
        staged = {path: _stage(path, rows) for path, rows in self._rows(training, held_out)}
        hashes = {path: file_hash(temporary) for path, temporary in staged.items()}
        manifest = {
            "kind": KIND,
            "format": 1,
            **data,
            "sha256": hashes[self.pairs],
            "held_out_sha256": hashes.get(self.held_out),
        }
        write_json(self.manifest, manifest)
        for path, temporary in staged.items():
            temporary.replace(path)
        return manifest

    def _rows(
        self, training: list[dict[str, Any]], held_out: list[dict[str, Any]]
    ) -> list[tuple[Path, list[dict[str, Any]]]]:
        return [(self.pairs, training), *([(self.held_out, held_out)] if held_out else [])]


def pair_rows(candidates: list[Candidate], plain: bool) -> list[dict[str, Any]]:
    """Return kept candidates as rows of the format ``pairs``.

    With ``plain`` a prompt is its text, else messages; all files of one trait are of one kind.
    """
    return [
        {
            "prompt": candidate.prompt[0][1]
            if plain
            else [{"role": role, "content": text} for role, text in candidate.prompt],
            "chosen": candidate.positive,
            "rejected": candidate.negative,
        }
        for candidate in candidates
    ]


def _stage(path: Path, rows: list[dict[str, Any]]) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    temporary.write_text(text, encoding="utf-8")
    return temporary


def _replace(path: Path, rows: list[dict[str, Any]]) -> None:
    _stage(path, rows).replace(path)

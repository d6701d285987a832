"""Perplexity of a text file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pv_merge.artifacts.provenance import file_hash
from pv_merge.data.encoding import Encoded
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import Advance, Parts
from pv_merge.evaluation.measures.capability import CAPABILITY, is_text, named_path
from pv_merge.evaluation.measures.registry import MeasureKind
from pv_merge.evaluation.statistics import Estimate, bootstrap
from pv_merge.live.subject import Subject

WINDOW = 256
"""Tokens of one window. Windows do not overlap; each token is predicted from those before it in its
window, so a longer window gives a lower figure, and only figures of one window compare."""


class PerplexityMeasure:
    """exp of the mean negative log-probability a token, over windows of one text."""

    needs_base = False

    def __init__(self, name: str, path: Path, limit: int | None = None) -> None:
        self.name, self.path, self.limit = name, path, limit
        try:
            self._text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise PvMergeError(f"{path}: is not text in UTF-8") from None
        if not self._text.strip():
            raise PvMergeError(f"{path}: the file is empty")
        self._scorer: Any = None

    @property
    def size(self) -> int:
        """About how many windows there are (four characters a token)."""
        count = max(1, len(self._text) // (4 * WINDOW))
        return count if self.limit is None else min(count, self.limit)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        found = {"kind": "perplexity", "data": file_hash(self.path), "window": WINDOW}
        return found if self.limit is None else {**found, "limit": self.limit}

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return each window's mean negative log-probability a token."""
        if self._scorer is None:
            self._scorer = self._windows(subject)
        values = self._scorer.score(subject.model)
        advance(self.size)
        lengths = [window.length for window in self._scorer.sequences]
        return {"nats": [round(-v, 6) for v in values], "tokens": lengths}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return each window's mean, in nats a token."""
        pairs = zip(record["nats"], record["tokens"], strict=True)
        return {f"{self.name}.nats": [nats / tokens for nats, tokens in pairs]}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return the perplexity, and the mean that it is the exponential of; windows are resampled."""
        nats = bootstrap(self.items(record, base)[f"{self.name}.nats"])
        value, low, high = (
            math.exp(v) if v < 700 else math.inf for v in (nats.value, nats.low, nats.high)
        )
        plain = Estimate(value, low, high, nats.n)
        return {self.name: plain, f"{self.name}.nats": nats}

    def labels(self) -> dict[str, str]:
        """Return what the figures are."""
        return {
            self.name: f"perplexity of {self.path.name} (windows of {WINDOW} tokens)",
            f"{self.name}.nats": "mean negative log-prob (nats a token)",
        }

    def better(self) -> dict[str, int]:
        """Less is better."""
        return {self.name: -1, f"{self.name}.nats": -1}

    def _windows(self, subject: Subject) -> Any:
        from pv_merge.evaluation.logprobs import Scorer

        tokenizer = subject.tokenizer
        tokens = list(tokenizer(self._text, add_special_tokens=False, verbose=False)["input_ids"])
        start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        step = min(WINDOW, subject.max_length or WINDOW) - len(start)
        windows = [[*start, *tokens[i : i + step]] for i in range(0, len(tokens), step)]
        if len(windows) > 1 and len(windows[-1]) < len(windows[0]):
            windows.pop()  # a short window has less context, and would weigh as much as the others
        windows = windows[: self.limit]
        if len(windows[0]) < 2:
            raise PvMergeError(f"{self.path}: is a single token; give it more text")
        return Scorer([Encoded(tuple(window), 1) for window in windows])


PERPLEXITY = MeasureKind(
    CAPABILITY,
    lambda text, said: PerplexityMeasure(*named_path(text, "perplexity"), said["limit"]),
    accepts=is_text,
)

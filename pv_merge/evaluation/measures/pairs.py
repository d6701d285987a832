"""Held-out preference pairs: which answer does the model find likelier, and by how much?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.evaluation.measure import Advance, Parts, named_file
from pv_merge.evaluation.measures.registry import MeasureKind, Option
from pv_merge.evaluation.statistics import Estimate, bootstrap, share
from pv_merge.live.subject import Subject

if TYPE_CHECKING:
    from pv_merge.data.pairs import Pair

BETA = 0.1
"""DPO temperature of the implicit reward margin; the trainer's default."""


@dataclass(frozen=True)
class PairScores:
    """Log-probabilities of both answers of each pair, in nats, and their lengths in tokens."""

    chosen: Sequence[float]
    rejected: Sequence[float]
    chosen_tokens: Sequence[int]
    rejected_tokens: Sequence[int]


def margins(scores: PairScores) -> list[float]:
    """Return log p(chosen) − log p(rejected) of each pair, in nats."""
    return [c - r for c, r in zip(scores.chosen, scores.rejected, strict=True)]


def normalised_margins(scores: PairScores) -> list[float]:
    """Return the same of mean log-probabilities, in nats a token."""
    chosen = [c / max(1, n) for c, n in zip(scores.chosen, scores.chosen_tokens, strict=True)]
    rejected = [r / max(1, n) for r, n in zip(scores.rejected, scores.rejected_tokens, strict=True)]
    return [c - r for c, r in zip(chosen, rejected, strict=True)]


def accuracies(differences: Sequence[float]) -> list[float]:
    """Return 1 where a difference favours the chosen answer, 0 where not, ½ for a tie."""
    return [0.5 if value == 0 else float(value > 0) for value in differences]


def reward_margins(scores: PairScores, base: PairScores, beta: float = BETA) -> list[float]:
    """Return DPO's implicit reward margin β·((lp_c − lp_r) − (base lp_c − base lp_r)).

    Rafailov et al. 2023, Eq. 7; the reference model is the base.
    """
    pairs = zip(margins(scores), margins(base), strict=True)
    return [beta * (mine - reference) for mine, reference in pairs]


class PairsMeasure:
    """Margin, accuracies and implicit reward margin over one file of pairs."""

    needs_base = True

    def __init__(
        self, name: str, path: str, pairs: Sequence[Pair], fingerprint: str, beta: float = BETA
    ) -> None:
        self.name, self.path, self.pairs, self.beta = name, path, list(pairs), beta
        self.groups = [pair.prompt for pair in self.pairs]
        self._fingerprint = fingerprint
        self._scorer: Any = None

    @property
    def size(self) -> int:
        """Number of sequences to score."""
        return 2 * len(self.pairs)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        return {"kind": "pairs", "data": self._fingerprint, "pairs": len(self.pairs)}

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the log-probabilities of every pair."""
        if self._scorer is None:
            self._scorer = self._encode(subject)
        values = self._scorer.score(subject.model, advance)
        lengths = [sequence.length for sequence in self._scorer.sequences]
        return {
            "chosen": [round(value, 6) for value in values[0::2]],
            "rejected": [round(value, 6) for value in values[1::2]],
            "chosen_tokens": lengths[0::2],
            "rejected_tokens": lengths[1::2],
        }

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return each figure's value for every pair."""
        scores = PairScores(**record)
        plain, normalised = margins(scores), normalised_margins(scores)
        found = {
            self.name: plain,
            f"{self.name}.accuracy": accuracies(plain),
            f"{self.name}.accuracy_normalised": accuracies(normalised),
        }
        if base is not None:
            found[f"{self.name}.reward_margin"] = reward_margins(
                scores, PairScores(**base), self.beta
            )
        return found

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return each figure with its interval; prompts are resampled, not pairs."""
        return {
            name: (share if "accuracy" in name else bootstrap)(values, self.groups)
            for name, values in self.items(record, base).items()
        }

    def labels(self) -> dict[str, str]:
        """Return what each figure is, with its unit."""
        return {
            self.name: "mean log-prob margin, chosen − rejected (nats)",
            f"{self.name}.accuracy": "share of pairs whose chosen answer is likelier",
            f"{self.name}.accuracy_normalised": "the same by log-prob a token",
            f"{self.name}.reward_margin": f"implicit DPO reward margin against the base, β = {self.beta:g}",
        }

    def better(self) -> dict[str, int]:
        """Return +1 for figures of which more is better."""
        return dict.fromkeys(self.labels(), 1)

    def _encode(self, subject: Subject) -> Any:
        from pv_merge.data.encoding import encode_pair
        from pv_merge.evaluation.logprobs import Scorer

        limit = subject.max_length
        sequences = [
            side for pair in self.pairs for side in encode_pair(subject.tokenizer, pair, limit)
        ]
        empty = [i for i, sequence in enumerate(sequences) if sequence.length < 1]
        if empty:
            raise PvMergeError(
                f"{self.path}: pair {empty[0] // 2 + 1} leaves no token to score; is its prompt longer "
                f"than the model's {limit} tokens, or an answer empty?"
            )
        return Scorer(sequences)


def read_pairs(text: str, beta: float = BETA, limit: int | None = None) -> PairsMeasure:
    """Return the measure that ``NAME=FILE`` or ``NAME=FILE:format`` asks for.

    ``format`` is one of ``pv_merge.data.pairs.FORMATS``; for ``pku-saferlhf`` the label
    follows it: ``FILE:pku-saferlhf:safer_response_id``. ``limit`` keeps the first so many pairs.
    """
    from pv_merge.data.pairs import FORMATS, load_pairs
    from pv_merge.data.settings import DatasetSettings

    name, place = named_file(text, "--pairs")
    path, layout, label = place, "pairs", None
    if not Path(place).exists():
        head, *rest = place.split(":")
        if rest and rest[0] not in FORMATS:
            hint = did_you_mean(rest[0], FORMATS)
            raise PvMergeError(f"--pairs {text}: unknown format {rest[0]!r}{hint}")
        if len(rest) > 2:
            raise PvMergeError(f"--pairs {text}: expected NAME=FILE or NAME=FILE:format")
        path = head
        layout = rest[0] if rest else layout
        label = rest[1] if len(rest) > 1 else None
        if not Path(path).exists():
            raise PvMergeError(f"--pairs {text}: {path}: no such file")
    settings = DatasetSettings(path=path, format=layout, label=label, max_rows=limit)
    data = load_pairs(settings)
    return PairsMeasure(name, path, data.pairs, data.fingerprint(), beta)


PAIRS = MeasureKind(
    Option(
        "--pairs",
        "Held-out pairs: log-prob margin, accuracies, implicit DPO reward margin.",
        "NAME=FILE[:FORMAT]",
    ),
    lambda text, said: read_pairs(text, said["beta"], said["limit"]),
    settings=(Option("--beta", "DPO temperature of the reward margin.", kind=float, default=BETA),),
)

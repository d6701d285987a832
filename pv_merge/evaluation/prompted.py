"""Prompts that a model answers for a measure: each answer is made once, whichever measures read it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pv_merge.data.prompts import Prompt, prompts_hash, read_prompts
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import Advance, Parts, named
from pv_merge.evaluation.measures.registry import Option, Settings
from pv_merge.live.generation import Answer, Answering, generate
from pv_merge.live.subject import Subject

ANSWERS = Option(
    "--answers",
    "Prompts (csv, jsonl, txt) whose written answers are measured: length, loops, diversity.",
    "[NAME=]FILE",
)


@dataclass(frozen=True)
class Prompted:
    """Prompts, and how they are answered."""

    prompts: tuple[Prompt, ...]
    how: Answering

    @property
    def texts(self) -> list[str]:
        """The prompts' words."""
        return [prompt.text for prompt in self.prompts]

    def identity(self) -> dict[str, Any]:
        """What the answers depend on besides the weights."""
        data = {"data": prompts_hash(self.prompts), "prompts": len(self.prompts)}
        return {**data, **self.how.identity()}

    def answers(self, subject: Subject, parts: Parts, advance: Advance) -> list[Answer | None]:
        """Return the answer to each prompt, None to one that leaves no room for it.

        Raises ``PvMergeError`` where none of them does.
        """
        found = answers(subject, self.texts, self.how, parts, advance)
        if all(answer is None for answer in found):
            raise PvMergeError(
                f"all {len(found)} prompts fill the {subject.max_length} tokens that {subject.name} "
                f"takes, with an answer of up to {self.how.max_new_tokens}; take shorter ones, or lower "
                "--max-new-tokens"
            )
        return found


def read_prompted(places: Sequence[str], said: Settings) -> Prompted:
    """Return the prompts of files, answered as the commands' options say."""
    prompts = [prompt for place in places for prompt in read_prompts(place, said["limit"])]
    how = Answering(said["max_new_tokens"], said["temperature"], said["seed"])
    return Prompted(tuple(prompts), how)


def answered_files(said: Settings) -> list[str]:
    """Return the files that ``--answers`` names."""
    return [named(text, "")[1] for text in said["answers"] or ()]


def answers(
    subject: Subject,
    prompts: Sequence[str],
    how: Answering,
    parts: Parts,
    advance: Advance,
    batch_size: int | None = None,
) -> list[Answer | None]:
    """Return the answer to each prompt, keeping every batch as soon as it is there."""
    keys = [hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts]
    kept = parts.shared(f"answers {how.identity()}")
    found: dict[str, Answer | None] = {}
    for batch in kept.all().values():
        found |= {key: None if said is None else Answer(**said) for key, said in batch.items()}
    advance(sum(key in found for key in keys))
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
    left = list(missing)

    def done(places: list[int], texts: list[Answer | None]) -> None:
        batch = {left[place]: answer for place, answer in zip(places, texts, strict=True)}
        found.update(batch)
        kept.put(next(iter(batch)), {k: v and asdict(v) for k, v in batch.items()})
        advance(sum(keys.count(key) for key in batch))

    generate(subject, list(missing.values()), how, batch_size, done)
    return [found[key] for key in keys]


def too_long(name: str, answers: Sequence[Any]) -> dict[str, list[float]]:
    """Return 1 for each prompt that left no room for an answer, as a figure where there is one."""
    found = [float(answer is None) for answer in answers]
    return {f"{name}.too_long": found} if any(found) else {}


def too_long_label(name: str) -> dict[str, str]:
    """Return what that figure is."""
    return {f"{name}.too_long": "share of prompts that leave no room for an answer; not counted"}

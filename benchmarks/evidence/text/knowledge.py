"""Knowledge on which a small base is above chance: CommonsenseQA with each choice's text as the answer.

By its letters, as lm-evaluation-harness asks it, a model of 135 M guesses. The likeliest text, by
log-prob a token, is what its pretraining knows.
"""

from __future__ import annotations

from typing import Any

from pv_merge.data.encoding import Encoded, common_prefix
from pv_merge.evaluation.logprobs import Scorer
from pv_merge.evaluation.measures.choices import ChoicesMeasure


class TextChoicesMeasure(ChoicesMeasure):
    """Share of questions whose right answer is the likeliest text, by log-prob a token."""

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "kind": "commonsenseqa by text"}

    def measure(self, subject: Any, parts: Any, advance: Any) -> dict[str, Any]:
        found = super().measure(subject, parts, advance)
        lengths = iter(sequence.length for sequence in self._scorer.sequences)
        return {"logps": [[value / next(lengths) for value in row] for row in found["logps"]]}

    def labels(self) -> dict[str, str]:
        return {self.name: f"accuracy on {len(self.questions)} questions, by the answers' text"}

    def _encode(self, tokenizer: Any) -> Scorer:
        sequences = []
        for question in self.questions:
            context = f"Question: {question.text.strip()}\nAnswer:"
            asked = tokenizer(context)["input_ids"]
            for choice in question.choices:
                tokens = tokenizer(f"{context} {choice}")["input_ids"]
                sequences.append(Encoded(tuple(tokens), common_prefix(asked, tokens)))
        return Scorer(sequences)

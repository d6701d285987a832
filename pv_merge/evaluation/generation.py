"""Greedy answers, in batches padded on the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pv_merge.evaluation.measure import Advance, Parts, Subject
from pv_merge.evaluation.statistics import Estimate
from pv_merge.evaluation.tokens import encode_prompt

MAX_NEW_TOKENS = 60
BATCH = 16


def greedy(
    subject: Subject,
    prompts: Sequence[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = BATCH,
    done: Callable[[list[int], list[str]], None] = lambda indices, answers: None,
) -> list[str]:
    """Return the greedy answer to each prompt. ``done`` hears of each batch's indices and answers.

    Batches are made of prompts of similar length. The model's own sampling settings and penalties
    are left aside: the likeliest token is taken each time.
    """
    import torch

    model, tokenizer = subject.model, subject.tokenizer
    tokens = [encode_prompt(tokenizer, [("user", prompt)]) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: -len(tokens[i]))
    answers = [""] * len(prompts)
    config = generation_config(subject, max_new_tokens)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = max(len(tokens[i]) for i in batch)
        ids = torch.full((len(batch), width), config.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(batch):
            ids[row, width - len(tokens[index]) :] = torch.tensor(tokens[index])
            mask[row, width - len(tokens[index]) :] = 1
        with torch.inference_mode():
            result = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config,
            )
        texts = tokenizer.batch_decode(result[:, width:], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text.strip()
        done(batch, [answers[index] for index in batch])
    return answers


def generation_config(subject: Subject, max_new_tokens: int, temperature: float = 0.0) -> Any:
    """Return transformers' settings for plain sampling at ``temperature``; 0 is greedy.

    Of the model's own settings only the special tokens are kept.
    """
    from transformers import GenerationConfig

    own = subject.model.generation_config
    end = own.eos_token_id if own.eos_token_id is not None else subject.tokenizer.eos_token_id
    first = end[0] if isinstance(end, list) else end
    pad = subject.tokenizer.pad_token_id
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        eos_token_id=end,
        pad_token_id=pad if pad is not None else (first or 0),
        bos_token_id=own.bos_token_id,
        **sampling,
    )


def generate_in_parts(
    subject: Subject,
    prompts: Sequence[str],
    max_new_tokens: int,
    parts: Parts,
    advance: Advance,
    batch_size: int = BATCH,
) -> list[str]:
    """Return the greedy answer to each prompt, keeping every batch as soon as it is there."""
    answers: dict[int, str] = {}
    for name, value in parts.all().items():
        if name.startswith("answers"):
            answers |= dict(zip(value["prompts"], value["answers"], strict=True))
    advance(len(answers))
    left = [index for index in range(len(prompts)) if index not in answers]

    def done(places: list[int], texts: list[str]) -> None:
        indices = [left[place] for place in places]
        answers.update(zip(indices, texts, strict=True))
        parts.put(f"answers {indices[0]}", {"prompts": indices, "answers": texts})
        advance(len(indices))

    greedy(subject, [prompts[index] for index in left], max_new_tokens, batch_size, done)
    return [answers[index] for index in range(len(prompts))]


class AnswersMeasure:
    """Answers to a few prompts, to be read rather than counted."""

    needs_base = False

    def __init__(self, prompts: Sequence[str], max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.name, self.prompts, self.max_new_tokens = "answers", list(prompts), max_new_tokens

    @property
    def size(self) -> int:
        """Number of answers."""
        return len(self.prompts)

    def identity(self) -> dict[str, Any]:
        """What the answers depend on besides the weights."""
        return {"kind": "answers", "prompts": self.prompts, "max_new_tokens": self.max_new_tokens}

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers."""
        texts = greedy(
            subject,
            self.prompts,
            self.max_new_tokens,
            done=lambda indices, _: advance(len(indices)),
        )
        return {"answers": texts}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return nothing: there is nothing to count."""
        return {}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return nothing."""
        return {}

    def labels(self) -> dict[str, str]:
        """Return nothing."""
        return {}

    def better(self) -> dict[str, int]:
        """Return nothing."""
        return {}

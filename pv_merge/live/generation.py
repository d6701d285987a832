"""Answers in batches padded on the left: greedy, or sampled by a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pv_merge.data.encoding import encode_prompt
from pv_merge.errors import PvMergeError
from pv_merge.live.subject import Subject

MAX_NEW_TOKENS = 60
BATCH = 16
GPU_BATCH = 128


@dataclass(frozen=True)
class Answering:
    """How answers are made."""

    max_new_tokens: int = MAX_NEW_TOKENS
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    seed: int = 0
    """Of sampling. A prompt meets the same noise whatever the weights and the other prompts."""

    def identity(self) -> dict[str, Any]:
        """What answers depend on besides weights and prompts."""
        sampled = {"temperature": self.temperature, "seed": self.seed} if self.temperature else {}
        return {"max_new_tokens": self.max_new_tokens, **sampled}

    def __str__(self) -> str:
        if not self.temperature:
            return "greedy"
        return f"sampled at temperature {self.temperature:g}, seed {self.seed}"


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    text: str
    tokens: int
    """Its length, without the token that ends it."""
    cut: bool
    """Whether ``max_new_tokens`` ended it."""


def greedy(
    subject: Subject,
    prompts: Sequence[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int | None = None,
) -> list[str]:
    """Return the greedy answer to each prompt; ``PvMergeError`` for one that leaves no room for it."""
    texts = []
    how = Answering(max_new_tokens)
    for number, answer in enumerate(generate(subject, prompts, how, batch_size), start=1):
        if answer is None:
            raise PvMergeError(
                f"prompt {number} and an answer of up to {max_new_tokens} tokens do not fit the "
                f"{subject.max_length} tokens that {subject.name} takes; shorten it, or lower "
                "--max-new-tokens"
            )
        texts.append(answer.text)
    return texts


def generate(
    subject: Subject,
    prompts: Sequence[str],
    how: Answering,
    batch_size: int | None = None,
    done: Callable[[list[int], list[Answer | None]], None] = lambda indices, answers: None,
) -> list[Answer | None]:
    """Return the answer to each prompt, None to one that leaves no room for it in the context.

    Batches are made of prompts of similar length; ``done`` hears of each one's indices and answers.
    The model's own sampling settings and penalties are left aside.
    """
    tokens = [encode_prompt(subject.tokenizer, [("user", prompt)]) for prompt in prompts]
    limit = (subject.max_length or 1 << 62) - how.max_new_tokens
    found: list[Answer | None] = [None] * len(prompts)
    fitting = [index for index in range(len(prompts)) if len(tokens[index]) <= limit]
    if unfit := sorted(set(range(len(prompts))) - set(fitting)):
        done(unfit, [None] * len(unfit))
    size = batch_size or (GPU_BATCH if subject.model.device.type == "cuda" else BATCH)
    order = sorted(fitting, key=lambda i: -len(tokens[i]))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        answers = _batch(subject, [tokens[i] for i in batch], [prompts[i] for i in batch], how)
        for index, answer in zip(batch, answers, strict=True):
            found[index] = answer
        done(batch, [found[index] for index in batch])
    return found


def _batch(
    subject: Subject, tokens: Sequence[Sequence[int]], prompts: Sequence[str], how: Answering
) -> list[Answer]:
    import torch

    model = subject.model
    config = generation_config(subject, how.max_new_tokens)
    width = max(map(len, tokens))
    ids = torch.full((len(tokens), width), config.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(tokens):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    with torch.inference_mode():
        result = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            logits_processor=[_Noise(prompts, how)] if how.temperature else None,
        )
    end = config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}
    return [_answer(subject.tokenizer, row, ends) for row in result[:, width:].tolist()]


def _answer(tokenizer: Any, row: list[int], ends: set[int]) -> Answer:
    stop = next((place for place, token in enumerate(row) if token in ends), None)
    said = row if stop is None else row[:stop]
    text = tokenizer.decode(said, skip_special_tokens=True).strip()
    return Answer(text, len(said), stop is None)


class _Noise:
    """Gumbel noise on the logits: the likeliest token is then a sample of the softmax at a temperature.

    Each prompt has its own stream of noise, so that its answer depends neither on its batch nor on
    where a killed run went on, and that answers at two η differ by the weights alone.
    """

    def __init__(self, prompts: Sequence[str], how: Answering) -> None:
        import torch

        self._temperature = how.temperature
        self._streams = []
        for prompt in prompts:
            digest = hashlib.sha256(f"{how.seed}\n{prompt}".encode()).digest()
            seed = int.from_bytes(digest[:8], "big") >> 1
            self._streams.append(torch.Generator().manual_seed(seed))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        shape = scores.shape[-1]
        drawn = [torch.empty(shape).exponential_(generator=each) for each in self._streams]
        noise = -torch.stack(drawn).log()
        return scores / self._temperature + noise.to(scores.device)


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

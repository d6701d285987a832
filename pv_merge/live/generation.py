"""Greedy answers, in batches padded on the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pv_merge.data.encoding import encode_prompt
from pv_merge.errors import PvMergeError
from pv_merge.live.subject import Subject

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
    _refuse_long(tokens, subject, max_new_tokens)
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


def _refuse_long(tokens: Sequence[Sequence[int]], subject: Subject, max_new_tokens: int) -> None:
    limit = subject.max_length
    for number, prompt in enumerate(tokens, start=1):
        if limit is not None and len(prompt) + max_new_tokens > limit:
            raise PvMergeError(
                f"prompt {number} has {len(prompt)} tokens and its answer up to {max_new_tokens}, but "
                f"{subject.name} takes {limit}; shorten it, or lower --max-new-tokens"
            )


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

"""A model in this process: answers in batches, with transformers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.asking.exchange import Failure, Reply, Request, Take
from pv_merge.asking.messages import Messages, without_system
from pv_merge.asking.settings import ModelSettings
from pv_merge.data.encoding import encode_prompt
from pv_merge.errors import PvMergeError


class LocalModel:
    """A causal language model and its tokenizer, loaded when the first request comes."""

    def __init__(self, settings: ModelSettings, role: str) -> None:
        assert settings.model is not None
        self._settings, self.role = settings, role
        self.name, self.temperature = settings.model, settings.temperature
        self.model = Path(settings.model).name if Path(settings.model).exists() else settings.model
        self._model: Any = None
        self._tokenizer: Any = None
        self._twin: LocalModel | None = None

    @property
    def identity(self) -> Any:
        """The weights' hash, or the name where only transformers knows what it means."""
        settings = self._settings
        dtype, role = settings.dtype, settings.system_role
        return ["local", self._weights, settings.options, dtype, role]

    @cached_property
    def _weights(self) -> str:
        from trainers.model import local_base

        checkpoint = local_base(self.name)
        return weights_hash(checkpoint) if checkpoint else self.name

    def share(self, other: LocalModel) -> None:
        """Use the weights that ``other`` loads, if it is the same model: one copy is enough."""
        if other.name == self.name:
            self._twin = other

    def answer(self, requests: Sequence[Request], take: Take) -> None:
        """Answer batch by batch; a batch has one temperature and one length."""
        if not requests:
            return
        self._load()
        tokens = [self._encode(request.messages) for request in requests]
        groups: dict[tuple[float, int], list[int]] = {}
        for index, request in enumerate(requests):
            wanted = len(tokens[index]) + request.max_tokens
            if wanted > self._context:
                reason = f"{wanted} tokens, and the context has {self._context}"
                take(index, Failure(reason, too_long=True))
            else:
                groups.setdefault((request.temperature, request.max_tokens), []).append(index)
        for (temperature, most), members in groups.items():
            members.sort(key=lambda index: -len(tokens[index]))
            for start in range(0, len(members), self._settings.concurrency):
                batch = members[start : start + self._settings.concurrency]
                prompts = [tokens[index] for index in batch]
                replies = self._generate(prompts, temperature, most, requests[batch[0]].seed)
                for index, reply in zip(batch, replies, strict=True):
                    take(index, reply)

    @property
    def _context(self) -> int:
        own = int(getattr(self._model.config, "max_position_embeddings", 0) or 1 << 30)
        return min(own, self._settings.context or own)

    def _load(self) -> None:
        if self._model is not None:
            return
        if self._twin is not None:
            self._twin._load()
            self._model, self._tokenizer = self._twin._model, self._twin._tokenizer
            return
        import torch
        from transformers import AutoModelForCausalLM

        from pv_merge.artifacts.reference import loadable
        from trainers.model import load_tokenizer
        from trainers.progress import quiet_libraries

        quiet_libraries()
        name = str(self._settings.model)
        self._tokenizer = load_tokenizer(name)
        cuda = torch.cuda.is_available()
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                loadable(name), dtype=self._settings.dtype
            )
        except (OSError, ValueError) as error:
            raise PvMergeError(f"{self.role}: {name}: cannot be loaded ({error})") from None
        self._model = model.to("cuda" if cuda else "cpu").eval()

    def _encode(self, messages: Messages) -> list[int]:
        if not self._settings.system_role:
            messages = without_system(messages)
        try:
            return encode_prompt(self._tokenizer, messages)
        except Exception as error:  # a template may raise what it likes
            raise PvMergeError(
                f"{self.role}: {self.name}: its chat template does not take these messages "
                f"({' '.join(str(error).split())}); if it knows no system message, set "
                "system_role: false"
            ) from None

    def _generate(
        self, prompts: list[list[int]], temperature: float, most: int, seed: int
    ) -> list[Reply]:
        import torch

        width = max(len(prompt) for prompt in prompts)
        config, ends = self._generation(temperature, most)
        ids = torch.full((len(prompts), width), config.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        start = time.perf_counter()
        device = self._model.device
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            result = self._model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
            )
        seconds = round((time.perf_counter() - start) / len(prompts), 3)
        replies = []
        for row, prompt in zip(result[:, width:].tolist(), prompts, strict=True):
            stop = next((place for place, token in enumerate(row) if token in ends), None)
            said = row if stop is None else row[:stop]
            text = self._tokenizer.decode(said, skip_special_tokens=True).strip()
            count = len(said) + (stop is not None)
            replies.append(Reply(text, stop is None, len(prompt), count, False, seconds))
        return replies

    def _generation(self, temperature: float, most: int) -> tuple[Any, set[int]]:
        """Return transformers' settings, and the tokens that end an answer."""
        from transformers import GenerationConfig

        own = self._model.generation_config
        end = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        ends = set(end) if isinstance(end, list) else {end}
        pad = self._tokenizer.pad_token_id
        sampling = {"temperature": temperature, "top_k": 50} if temperature else {}
        options = sampling | self._settings.options
        config = GenerationConfig(
            max_new_tokens=most,
            do_sample=temperature > 0,
            eos_token_id=end,
            pad_token_id=pad if pad is not None else next(iter(ends)) or 0,
            **{key: value for key, value in options.items() if value is not None},
        )
        return config, ends

"""What the resolver hands to vLLM for a mix; imports vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vllm.lora.request import LoRARequest

UNSET = 2**31 - 1
"""Stands for the id that vLLM has not given yet; its own counter starts at 1."""


class MixRequest(LoRARequest):
    """A ``LoRARequest`` that keeps the first id that vLLM gives it.

    vLLM sets a new id whenever it resolves a name. All spellings of one mix get this one object, so
    they must keep one id: vLLM's worker puts the requests of a batch in a set by their name, and two
    ids under one name would leave the second without its adapter.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "lora_int_id" and self.lora_int_id != UNSET:
            return
        super().__setattr__(name, value)


def request_for(name: str, folder: Path) -> MixRequest:
    """Return a request without an id for the adapter in ``folder``."""
    return MixRequest(lora_name=name, lora_int_id=UNSET, lora_path=str(folder))

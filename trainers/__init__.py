"""Training of policies: supervised fine-tuning, and DPO in both polarities.

``trainers.train(config)`` does what ``pv-train dpo`` does; ``train_sft`` and ``train_reward``
likewise. They are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.api import train as train
    from trainers.api import train_reward as train_reward
    from trainers.api import train_sft as train_sft

__all__ = ["train", "train_reward", "train_sft"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainers import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

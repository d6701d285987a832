"""Who writes and who judges, from what the trait file says."""

from __future__ import annotations

from typing import Any

from pv_merge.asking.asker import Asker
from pv_merge.asking.exchange import Backend
from pv_merge.asking.replies import ReplyCache
from pv_merge.asking.settings import ModelSettings
from pv_merge.errors import PvMergeError
from trainers.traits.judges import Judge, ModelJudge, RewardJudge, RuleJudge
from trainers.traits.local import LocalModel
from trainers.traits.trait import BASE, JudgeSettings, RuleSettings, TraitSettings


def with_base(trait: TraitSettings, base: str | None) -> TraitSettings:
    """Return the trait with ``model: base`` replaced by the model that is to be trained."""
    changes: dict[str, Any] = {}
    for role in ("writer", "judge"):
        settings = getattr(trait, role)
        if settings is not None and settings.model == BASE and settings.url is None:
            if base is None:
                raise PvMergeError(
                    f"{role}: model: base is the model to be trained; say --base MODEL"
                )
            changes[role] = settings.model_copy(update={"model": base})
    return trait.model_copy(update=changes)


def make_backend(settings: ModelSettings, role: str) -> Backend:
    """Return the model behind its endpoint, or in this process."""
    if settings.url is not None:
        from pv_merge.asking.endpoint import Endpoint

        return Endpoint(settings, role)
    return LocalModel(settings, role)


def make_judge(trait: TraitSettings, writer: Asker, cache: ReplyCache) -> Judge:
    """Return the judge that the trait names.

    Where it names none, the writer judges if it is behind an endpoint, and rules if it is not.
    """
    settings = trait.judge
    if settings is None and trait.writer.url is None:
        return RuleJudge(RuleSettings())
    if settings is not None and settings.rules is not None:
        return RuleJudge(settings.rules)
    if settings is not None and settings.reward_model is not None:
        return RewardJudge(settings.reward_model)
    if settings is None:
        settings = JudgeSettings(**trait.writer.model_dump(exclude={"temperature"}))
    backend = make_backend(settings, "judge")
    if isinstance(backend, LocalModel) and isinstance(writer.backend, LocalModel):
        backend.share(writer.backend)
    return ModelJudge(trait, Asker(backend, cache))

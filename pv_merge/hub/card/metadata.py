"""A model card's metadata, for the Hub's search and pages; what is not known is not in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pv_merge.artifacts.reference import parse_reference, surely_on_hub, without_revision
from pv_merge.hub.evaluations import Evaluation
from pv_merge.hub.facts import Facts

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

HEADLINES = {
    "pairs": "log_prob_margin",
    "perplexity": "perplexity",
    "commonsenseqa": "accuracy",
    "refusal": "refusal_rate",
    "reward": "reward",
    "cost": "reward",
    "lm-eval": "score",
}
"""What the first figure of each kind of measure is called in metadata."""


def metadata(facts: Facts, evaluations: Sequence[Evaluation] = ()) -> ModelCardData:
    """Return the card's metadata. Raises ``ValueError`` where huggingface_hub does not accept it."""
    from huggingface_hub import ModelCardData

    entries = [entry for evaluation in evaluations for entry in results(evaluation)]
    licence = facts.base.licence
    arguments: dict[str, Any] = {
        "base_model": _base_models(facts) or None,
        "library_name": _library(facts),
        "tags": _tags(facts),
        "datasets": facts.datasets or None,
        "license": licence.identifier if licence else None,
        "license_name": licence.name if licence else None,
        "license_link": licence.link if licence else None,
    }
    relation = _relation(facts)
    if arguments["base_model"] and relation:
        arguments["base_model_relation"] = relation
    if facts.kind != "vector":
        arguments["pipeline_tag"] = "text-generation"
    if entries:
        arguments |= {"model_name": facts.title, "eval_results": entries}
    return ModelCardData(**arguments)


def results(evaluation: Evaluation) -> Iterator[EvalResult]:
    """Yield the measured figures as entries of a model card's ``model-index``."""
    from huggingface_hub import EvalResult

    for name, figure in evaluation.figures.items():
        if name not in evaluation.labels or not math.isfinite(figure.value):
            continue
        measure, _, part = name.partition(".")
        about = evaluation.measures.get(measure) or {}
        if not about:  # refusal_safe and refusal_unsafe are two headlines of one measure
            measure = next((key for key in evaluation.measures if name.startswith(f"{key}_")), "")
            about = evaluation.measures.get(measure) or {}
        kind = about.get("kind")
        if not isinstance(kind, str):
            continue  # what it was measured on is not known
        sizes = {key: about[key] for key in ("pairs", "prompts", "questions") if key in about}
        data = about.get("data")
        yield EvalResult(
            task_type="text-generation",
            dataset_type=str(about.get("task", kind)),
            dataset_name=measure + "".join(f", {count} {of}" for of, count in sizes.items()),
            dataset_args={"sha256": data} if isinstance(data, str) else None,
            metric_type=part or HEADLINES.get(kind, kind),
            metric_name=f"{name}: {evaluation.labels[name]}",
            metric_value=figure.value,
            metric_args={"ci95": [figure.low, figure.high], "n": figure.n},
        )


def _base_models(facts: Facts) -> list[str]:
    names = [facts.base.repo] if facts.base.repo else []
    for source in facts.sources:
        name = parse_reference(source.name).name
        if source.manifest and surely_on_hub(name):
            names.append(without_revision(name))
    return list(dict.fromkeys(names))


def _relation(facts: Facts) -> str | None:
    """Return how the model relates to its base; a dense vector is none of the Hub's relations."""
    if facts.kind == "merge":
        return "merge"
    if facts.adapter:
        return "adapter"
    return None if facts.kind == "vector" else "finetune"


def _library(facts: Facts) -> str:
    if facts.adapter:
        return "peft"
    return "pv-merge" if facts.kind == "vector" else "transformers"


def _tags(facts: Facts) -> list[str]:
    if facts.kind == "merge":
        return ["merge", "mergekit", "preference-vector"]
    if facts.kind == "vector":
        return ["preference-vector", "mergekit"]
    trained = "dpo" if facts.kind == "policy" else "sft"
    return [*(["preference-vector"] if facts.kind == "policy" else []), trained, "trl"]

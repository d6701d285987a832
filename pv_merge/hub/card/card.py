"""The model card: metadata and text, generated from manifests and reports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pv_merge.artifacts.reference import parse_reference, surely_on_hub, without_revision
from pv_merge.errors import PvMergeError
from pv_merge.hub.card.text import paragraphs
from pv_merge.hub.facts import Facts
from pv_merge.hub.results import Evaluation, results

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

NOTES_START = (
    "<!-- pv-merge: what stands between these two lines is yours; a later push keeps it -->"
)
NOTES_END = "<!-- pv-merge: end of what is yours; all else is generated, and replaced by a push -->"


@dataclass
class Extras:
    """What a card holds besides what the manifests say."""

    notes: str = ""
    """The user's own text."""
    evaluations: list[Evaluation] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    """Markdown of a collection's table of revisions."""


def make_card(facts: Facts, repo: str, extras: Extras | None = None) -> ModelCard:
    """Return the card of what ``facts`` describe, for the repository ``repo``.

    Raises ``PvMergeError`` where huggingface_hub does not accept the metadata.
    """
    from huggingface_hub import ModelCard

    extras = extras or Extras()
    try:
        data = metadata(facts, extras.evaluations)
        lines = [f"# {facts.title}", ""]
        text = paragraphs(facts, repo, extras.evaluations, extras.points)
        lines += [*text[0], "", NOTES_START, *_own(extras.notes), NOTES_END, *text[1]]
        body = "\n".join(lines).rstrip()
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")
    except ValueError as error:
        raise PvMergeError(f"{facts.folder}: its card is not valid ({error})") from None


def metadata(facts: Facts, evaluations: Sequence[Evaluation] = ()) -> ModelCardData:
    """Return the card's metadata; what is not known is not in it."""
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


def notes_in(card: str | None) -> str | None:
    """Return the user's text of an earlier card, or None where the card is not one of ours."""
    found = re.search(f"{re.escape(NOTES_START)}\n(.*?){re.escape(NOTES_END)}", card or "", re.S)
    return found[1].strip() if found else None


def _own(notes: str) -> list[str]:
    text = notes.replace(NOTES_START, "").replace(NOTES_END, "").strip()
    return ["", text, ""] if text else []


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

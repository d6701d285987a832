"""The model card: metadata and text, generated from manifests, reports and results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pv_merge.errors import PvMergeError
from pv_merge.hub.card import tables
from pv_merge.hub.card.availability import hub_link
from pv_merge.hub.card.markdown import environment
from pv_merge.hub.card.metadata import metadata
from pv_merge.hub.card.training import has_held_out, trained_on, training_config
from pv_merge.hub.evaluations import Evaluation
from pv_merge.hub.facts import Facts, read_facts
from pv_merge.hub.machine_paths import shown_path

CARD = "README.md"
NOTES_START = (
    "<!-- pv-merge: what stands between these two lines is yours; a later push keeps it -->"
)
NOTES_END = "<!-- pv-merge: end of what is yours; all else is generated, and replaced by a push -->"

WARN_BELOW = 0.9
"""A share below this is said to be a loss, as `pv-merge run` does."""
PAPER = "https://arxiv.org/abs/2504.20106"
CITATION = """@inproceedings{liang2026preferencevectors,
  title     = {Adaptive Helpfulness--Harmlessness Alignment with Preference Vectors},
  author    = {Liang, Ren-Wei and Hsu, Chin Ting and Yu, Chan-Hung and Agrawal, Saransh and
               Huang, Shih-Cheng and Lin, Chieh-Yen and Chen, Shang-Tse and Huang, Kuan-Hao and
               Sun, Shao-Hua},
  booktitle = {Proceedings of EACL 2026 (Volume 1: Long Papers)},
  pages     = {1646--1668},
  year      = {2026},
  url       = {https://aclanthology.org/2026.eacl-long.77/},
  note      = {arXiv:2504.20106}
}"""


@dataclass
class Extras:
    """What a card holds besides what the manifests say."""

    notes: str = ""
    """The user's own text, in Markdown."""
    evaluations: Sequence[Evaluation] = field(default_factory=list)
    revisions: Markup = field(default_factory=Markup)
    """Table of a collection's revisions."""


def card_text(facts: Facts, place: str, extras: Extras | None = None, *, published: bool) -> str:
    """Return the card of what ``facts`` describe.

    ``place`` is what one loads it by: the repository, ``NAMESPACE/NAME[@REVISION]``, or where it
    is not ``published``, its folder. Raises ``PvMergeError`` where huggingface_hub does not accept
    the metadata.
    """
    extras = extras or Extras()
    try:
        data = metadata(facts, extras.evaluations)
    except ValueError as error:
        raise PvMergeError(f"{facts.folder}: its card is not valid ({error})") from None
    body = (
        environment()
        .get_template("card.md.jinja")
        .render(_context(facts, extras) | {"place": place, "published": published})
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body.rstrip()}\n"


def write_card(folder: Path, name: str) -> None:
    """Write the card of a finished folder beside its weights: the one that a push would write.

    ``name`` is the heading, and what the folder will be called. Raises ``PvMergeError`` where the
    folder is neither a merge, a vector nor a policy.
    """
    text = card_text(read_facts(folder, name), f"./{name}", published=False)
    (folder / CARD).write_text(text, encoding="utf-8")


def notes_in(card: str | None) -> str | None:
    """Return the user's text of an earlier card, or None where the card is not one of ours."""
    found = re.search(f"{re.escape(NOTES_START)}\n(.*?){re.escape(NOTES_END)}", card or "", re.S)
    return found[1].strip() if found else None


def _context(facts: Facts, extras: Extras) -> dict[str, Any]:
    notes = extras.notes.replace(NOTES_START, "").replace(NOTES_END, "").strip()
    return {
        "facts": facts,
        "evaluations": extras.evaluations,
        "revisions": extras.revisions,
        "notes": Markup(notes),
        "notes_start": Markup(NOTES_START),
        "notes_end": Markup(NOTES_END),
        "names": [shown_path(name) for name in (facts.base.name, *(s.name for s in facts.sources))],
        "measured": any(item.figures or item.points for item in extras.evaluations),
        "held_out": has_held_out(facts),
        "warn_below": WARN_BELOW,
        "paper": Markup(PAPER),
        "citation": CITATION,
        "tables": tables,
        "hub_link": hub_link,
        "trained_on": trained_on,
        "training_config": training_config,
    }

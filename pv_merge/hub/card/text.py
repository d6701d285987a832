"""The text of a model card, section by section, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pv_merge.hub.base import shown_path
from pv_merge.hub.card.training import hyperparameters, trained_on
from pv_merge.hub.card.use import reproduction, usage
from pv_merge.hub.facts import Facts, Source, joined
from pv_merge.hub.results import Evaluation, row, table

WARN_BELOW = 0.9
"""A share below this is said to be a loss, as `pv-merge run` does."""
PAPER = "https://arxiv.org/abs/2504.20106"
CITATION = """```bibtex
@inproceedings{liang2026preferencevectors,
  title     = {Adaptive Helpfulness-Harmlessness Alignment with Preference Vectors},
  author    = {Liang and others},
  booktitle = {Proceedings of EACL 2026},
  year      = {2026},
  note      = {arXiv:2504.20106}
}
```"""


def paragraphs(
    facts: Facts, repo: str, evaluations: Sequence[Evaluation], points: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the lines before the user's notes, and those after."""
    before = [_introduction(facts), *_warning(facts)]
    after: list[str] = []
    if points:
        after += ["", "## Revisions", "", *points]
    if facts.kind == "merge":
        after += ["", "## Preferences", "", *_preferences(facts)]
        note = (
            ["One of the points; the others differ in eta alone.", ""] if facts.collection else []
        )
        text = (facts.recipe_text or "").rstrip()
        after += ["", "## Recipe", "", *note, "```yaml", text, "```"]
        after += _losses(facts)
    elif facts.kind == "vector":
        after += ["", "## The vector", "", *_vector(facts)]
    else:
        after += ["", "## Training", "", *hyperparameters(facts)]
    if evaluations:
        after += ["", "## Evaluation", ""]
        for number, evaluation in enumerate(evaluations):
            after += [*([""] if number else []), *table(evaluation)]
    after += ["", "## How to use it", "", *usage(facts, repo)]
    after += ["", "## How to make it again", "", *reproduction(facts, repo)]
    after += ["", "## Limits", "", *_limits(facts, evaluations)]
    after += ["", "## Licence", "", facts.base.licence_line()]
    after += ["", "## Citation", "", CITATION]
    return before, after


def _introduction(facts: Facts) -> str:
    base = _base_name(facts)
    if facts.kind == "merge":
        names = joined([f"**{name}**" for name in facts.preferences])
        return (
            f"{base} with the preference{'s' * (len(facts.preferences) > 1)} {names} added as "
            f"[preference vectors]({PAPER}): θ = θ_base + Σ η·φ."
            + (
                " Each revision listed here is a model; this branch holds none."
                if facts.collection
                else ""
            )
        )
    if facts.kind == "vector":
        return (
            f"The [preference vector]({PAPER}) of **{facts.preferences[0]}** for {base}: φ = θ₊ − θ₋, "
            "the difference of two policies that DPO trained on the same pairs, with labels swapped "
            "for the second. It is not a model; a merge adds it to its base, with any strength η."
        )
    if facts.kind == "policy":
        side = facts.manifest.get("polarity", "")
        swapped = " with the labels swapped" if side == "negative" else ""
        return (
            f"The {side} policy of the preference **{facts.manifest.get('preference')}**: {base}, "
            f"trained by DPO{swapped}. One half of a [preference vector]({PAPER})."
        )
    return f"{base}, fine-tuned on instructions: a base for [preference vectors]({PAPER})."


def _base_name(facts: Facts) -> str:
    base = facts.base
    named = f"[{base.repo}](https://huggingface.co/{base.repo})" if base.repo else None
    local = f"`{shown_path(base.name)}`" if base.name else "a base that no manifest names"
    text = named or local
    return f"{text} (its weights as `{base.converted}` unpacks them)" if base.converted else text


def _warning(facts: Facts) -> list[str]:
    if facts.negative_protected:
        names = joined(facts.negative_protected)
        what = "trained" if facts.kind == "policy" else "moved"
        return [
            "",
            "> [!WARNING]",
            f"> This model was deliberately {what} **against** the protected preference {names}: "
            "expect more harmful answers than from its base. It is for research on alignment; do not "
            "put it in front of users.",
        ]
    if facts.kind == "vector" and facts.protected:
        return [
            "",
            "> [!WARNING]",
            f"> {facts.preferences[0]} is a protected preference: adding this vector with a negative "
            "η makes a model more harmful. pv-merge refuses that unless the recipe allows it.",
        ]
    return []


def _preferences(facts: Facts) -> list[str]:
    head = ["preference", "η", "from", "pairs", "cos(+, −)", "‖φ‖"]
    lines = row(head) + row(["---"] * len(head))
    report = (facts.report or {}).get("preferences") or {}
    for name in facts.preferences:
        sources = [source for source in facts.sources if source.preference == name]
        eta = facts.etas.get(name)
        norm = (report.get(name) or {}).get("norm")
        cosines = [
            (s.manifest.get("measures") or {}).get("cosine_positive_negative") for s in sources
        ]
        cells = [
            name,
            _eta_cell(facts, eta),
            "; ".join(_came_from(source) for source in sources),
            "; ".join(dict.fromkeys(filter(None, (_pairs(source.manifest) for source in sources)))),
            "; ".join(f"{value:.3f}" for value in cosines if value is not None),
            "" if norm is None else f"{norm:.4g}",
        ]
        lines += row(cells)
    if any(not source.manifest for source in facts.sources):
        lines += ["", "Where a cell is empty, no manifest of that input was at hand."]
    return lines


def _eta_cell(facts: Facts, eta: float | None) -> str:
    if facts.collection:
        return "see the revisions"
    return "by layer, see the recipe" if eta is None else f"{eta:+g}"


def _came_from(source: Source) -> str:
    text = f"`{shown_path(source.name)}`"
    halves = [(source.manifest.get(side) or {}).get("path") for side in ("positive", "negative")]
    if source.polarity == "vector" and all(halves):
        return f"{text} = `{shown_path(halves[0])}` − `{shown_path(halves[1])}`"
    return f"{text} ({source.polarity})"


def _pairs(manifest: dict[str, Any]) -> str | None:
    data = (manifest.get("positive") or manifest).get("dataset") or {}
    if not data:
        return None
    count = f"{data['pairs']} of " if "pairs" in data else ""
    return f"{count}`{shown_path(data['path'])}`" if "path" in data else None


def _losses(facts: Facts) -> list[str]:
    if not facts.report:
        return []
    head = ["preference", "η", "‖φ‖", "‖η·φ‖/‖base‖", "share that arrived", "lowest layer"]
    lines = ["", "## What reached the weights", "", *row(head), *row(["---"] * len(head))]
    layers = facts.report.get("layers") or {}
    for name, entry in facts.report["preferences"].items():
        lowest = min(
            ((part["preferences"][name]["share"], label) for label, part in layers.items()),
            default=None,
        )
        cells = [
            name,
            "by layer" if entry["eta"] is None else f"{entry['eta']:+g}",
            "" if entry["norm"] is None else f"{entry['norm']:.4g}",
            f"{entry['relative_step']:.3%}",
            f"{entry['share']:.1%}",
            "" if lowest is None else f"{lowest[0]:.1%} ({lowest[1]})",
        ]
        lines += row(cells)
    dtype = facts.recipe.out_dtype if facts.recipe else None
    lines += [
        "",
        "The share is the part of η·φ that the weights still show after they were rounded to "
        f"{dtype or 'their dtype'}.",
    ]
    return lines + [
        f"**Loss**: only {entry['share']:.0%} of {name}'s η·φ reached the weights' dtype."
        for name, entry in facts.report["preferences"].items()
        if entry["share"] < WARN_BELOW
    ]


def _vector(facts: Facts) -> list[str]:
    manifest, measures = facts.manifest, facts.manifest.get("measures") or {}
    cells: list[tuple[str, Any]] = [
        ("preference", manifest.get("preference")),
        ("protected", {True: "yes", False: "no"}.get(facts.protected)),
        ("form", manifest.get("form")),
        ("rank", manifest.get("rank")),
        ("relative error of the low-rank form", _short(manifest.get("relative_error"))),
        ("dtype", manifest.get("dtype")),
        ("‖φ‖", _short(measures.get("norm"))),
        ("‖θ₊ − base‖", _short(measures.get("norm_positive"))),
        ("‖θ₋ − base‖", _short(measures.get("norm_negative"))),
        ("cos(θ₊ − base, θ₋ − base)", _short(measures.get("cosine_positive_negative"))),
        ("weights moved", measures.get("tensors_moved")),
        ("SHA-256 of the base's weights", _code(facts.base.sha256)),
    ]
    lines = row(["", ""]) + row(["---", "---"])
    for label, value in cells:
        lines += row([label, value]) if value is not None else []
    for side in ("positive", "negative"):
        if manifest.get(side):
            lines += ["", f"**{side.capitalize()} policy.** {trained_on(manifest[side])}"]
    return lines


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _code(value: str | None) -> str | None:
    return f"`{value}`" if value else None


def _limits(facts: Facts, evaluations: Sequence[Evaluation]) -> list[str]:
    lines = []
    if facts.collection:
        pass
    elif not any(item.figures or item.points for item in evaluations):
        lines.append(
            "- Nothing was measured on this for the card; what it does is not known from here."
        )
    else:
        lines.append("- The figures above are of the data named there, and of no other.")
    if facts.kind == "merge":
        lines.append(
            "- A vector changes more than its preference; several of them interfere. Facts, biases and "
            "safety behaviour of the base may have changed with it."
        )
    if facts.kind == "vector":
        lines.append(
            "- It fits only the base named above: another base's weights have other meanings."
        )
    if facts.kind == "policy" and facts.manifest.get("polarity") == "negative":
        lines.append("- It was trained to prefer the worse answer, and is meant to be subtracted.")
    return lines

"""The tables of a model card: what manifests, reports and results say, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from pv_merge.hub.card.availability import where_to_get
from pv_merge.hub.card.markdown import code, inline, link, table
from pv_merge.hub.evaluations import Evaluation, Figure
from pv_merge.hub.facts import Facts, Source, halves_of
from pv_merge.hub.machine_paths import shown_path

HYPERPARAMETERS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "max_steps",
    "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "beta",
    "max_length", "bf16", "fp16", "seed",
)  # fmt: skip


def preferences(facts: Facts) -> Markup:
    """Return a row for each preference of a merge: its eta, and what it came from."""
    rows = []
    for name in facts.preferences:
        sources = [source for source in facts.sources if source.preference == name]
        cosines = [
            number((source.manifest.measures or {}).get("cosine_positive_negative"), ".3f")
            for source in sources
            if source.manifest
        ]
        report = facts.report.preferences.get(name) if facts.report else None
        rows.append(
            [
                name,
                _eta_cell(facts, facts.etas.get(name)),
                Markup("; ").join(_came_from(source) for source in sources),
                Markup("; ").join(dict.fromkeys(filter(None, map(_pairs, sources)))),
                "; ".join(filter(None, cosines)),
                number(report.norm if report else None),
            ]
        )
    return table(["preference", "η", "from", "pairs", "cos(+, −)", "‖φ‖"], rows)


def _eta_cell(facts: Facts, eta: float | None) -> str:
    if facts.collection:
        return "see the revisions"
    return "by layer, see the recipe" if eta is None else f"{eta:+g}"


def _came_from(source: Source) -> Markup:
    text = code(shown_path(source.name))
    halves = halves_of(source.manifest) if source.manifest else {}
    paths = [half.path for half in halves.values()]
    if source.polarity == "vector" and len(paths) == 2 and all(paths):
        positive, negative = (code(shown_path(path)) for path in paths)
        return Markup(f"{text} = {positive} − {negative}")
    return Markup(f"{text} ({inline(source.polarity)})")


def _pairs(source: Source) -> Markup | None:
    manifest = source.manifest
    data = (manifest.positive or manifest).dataset if manifest else None
    if data is None or data.path is None:
        return None
    count = "" if data.pairs is None else f"{data.pairs} of "
    return Markup(count) + code(shown_path(data.path))


def losses(facts: Facts) -> Markup:
    """Return what reached the weights, by preference."""
    assert facts.report is not None
    rows = []
    for name, entry in facts.report.preferences.items():
        lowest = facts.report.lowest(name)
        rows.append(
            [
                name,
                "by layer" if entry.eta is None else f"{entry.eta:+g}",
                number(entry.norm),
                f"{entry.relative_step:.3%}",
                f"{entry.share:.1%}",
                "" if lowest is None else f"{lowest[0]:.1%} ({lowest[1]})",
            ]
        )
    head = ["preference", "η", "‖φ‖", "‖η·φ‖/‖base‖", "share that arrived", "lowest layer"]
    return table(head, rows)


def vector(facts: Facts) -> Markup:
    """Return what a vector's manifest says and measured."""
    said, measures = facts.manifest, facts.manifest.measures or {}
    cells: list[tuple[str, Any]] = [
        ("preference", said.preference),
        ("protected", {True: "yes", False: "no"}.get(facts.protected)),
        ("form", said.form),
        ("rank", said.rank),
        ("relative error of the low-rank form", number(said.relative_error)),
        ("dtype", said.dtype),
        ("‖φ‖", number(measures.get("norm"))),
        ("‖θ₊ − base‖", number(measures.get("norm_positive"))),
        ("‖θ₋ − base‖", number(measures.get("norm_negative"))),
        ("cos(θ₊ − base, θ₋ − base)", number(measures.get("cosine_positive_negative"))),
        ("weights moved", number(measures.get("tensors_moved"), ".0f")),
        ("SHA-256 of the base's weights", code(facts.base.sha256 or "")),
    ]
    return table(["", ""], [cell for cell in cells if cell[1] not in (None, "")])


def hyperparameters(facts: Facts) -> Markup | None:
    """Return a policy's settings, or None where the manifest has none."""
    settings = facts.manifest.hyperparameters or {}
    rows = [(code(key), settings[key]) for key in HYPERPARAMETERS if key in settings]
    return table(["setting", "value"], rows) if rows else None


def inputs(facts: Facts) -> Markup:
    """Return where base, policies and data can be had."""
    return table(["what", "where it can be had, as far as is known here"], where_to_get(facts))


def figures(evaluation: Evaluation) -> Markup:
    """Return the figures of one model beside those of the base."""
    base = evaluation.base_figures
    rows = []
    for name, label in evaluation.labels.items():
        if name in evaluation.figures:
            cells = [code(name), measured(evaluation.figures[name])]
            cells += [measured(base.get(name))] if base else []
            rows.append([*cells, label])
    return table(["figure", "this model", *(["base"] if base else []), "what it is"], rows)


def points(evaluation: Evaluation) -> Markup:
    """Return a sweep's points: eta against each first figure."""
    etas = list(evaluation.points[0].eta)
    rows = [
        [
            *(_plain_eta(point.eta.get(name)) for name in etas),
            *(measured(point.figures.get(name)) for name in evaluation.headlines),
        ]
        for point in evaluation.points
    ]
    return table([*(f"η {name}" for name in etas), *evaluation.headlines], rows)


def revisions(plans: Sequence[Any], own: Any = None) -> Markup:
    """Return all revisions of a collection; ``own`` is the plan of the card that it stands in."""
    names = plans[0].facts.preferences
    shown = dict.fromkeys(
        name
        for plan in plans
        for item in plan.evaluations
        for name in item.figures
        if "." not in name
    )
    rows = []
    for plan in plans:
        revision = str(plan.options.revision)
        url = f"https://huggingface.co/{plan.repo}/tree/{quote(revision, safe='')}"
        mark = " (this one)" if plan is own else ""
        cells: list[object] = [link(code(revision), url) + Markup(mark)]
        for name in names:
            eta = plan.facts.etas.get(name)
            cells.append("by layer" if eta is None else f"{eta:+g}")
        for name in names:
            entry = plan.facts.report.preferences.get(name) if plan.facts.report else None
            cells.append(f"{entry.share:.1%}" if entry and entry.eta != 0 else "")
        found = {key: value for item in plan.evaluations for key, value in item.figures.items()}
        rows.append([*cells, *(measured(found.get(name)) for name in shown)])
    head = ["revision", *(f"η {name}" for name in names)]
    return table([*head, *(f"share of {name} that arrived" for name in names), *shown], rows)


def measured(figure: Figure | None) -> Markup:
    """Return a figure with its interval and the number of values behind it."""
    if figure is None:
        return Markup()
    interval = (
        "" if figure.low == figure.high else f" [{_short(figure.low)}, {_short(figure.high)}]"
    )
    return Markup(f"{_short(figure.value)}{interval} (n = {figure.n})")


def number(value: Any, form: str = ".4g") -> str:
    """Return a manifest's number, or nothing where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    return format(value, form)


def _short(value: float) -> str:
    return f"{value + 0.0:.4g}"  # no "-0"


def _plain_eta(eta: float | None) -> str:
    return "by layer" if eta is None else f"{eta:g}"

"""Measured results, from the JSON of ``pv-merge evaluate`` and ``sweep``: a table, and metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError
from pv_merge.hub.base import shown_path
from pv_merge.hub.facts import Facts

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

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


@dataclass(frozen=True)
class Evaluation:
    """One JSON file of results, as far as it is of this model."""

    figures: dict[str, dict[str, float]]
    """By figure: value, low, high, n. Empty for a vector, which has no eta of its own."""
    base: dict[str, dict[str, float]]
    labels: dict[str, str]
    measures: dict[str, dict[str, Any]]
    command: str | None
    points: list[dict[str, Any]]
    """A sweep's points, ``{"eta", "figures"}``."""
    in_memory: bool
    """Whether a recipe was applied in memory, rather than this folder's model loaded."""


def found_in(folder: Path) -> list[Path]:
    """Return the result files that lie in a folder, by their content."""
    found = []
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size < 16 << 20 and path.name not in ("tokenizer.json", "vocab.json"):
            try:
                data = read_object(path)
            except PvMergeError:
                continue
            if isinstance(data, dict) and "labels" in data and ({"figures", "points"} & set(data)):
                found.append(path)
    return found


def read_evaluations(paths: Sequence[Path], facts: Facts) -> tuple[list[Evaluation], list[str]]:
    """Return the results that are of this model, and a line for each file that is not."""
    found, left_out = [], []
    for path in paths:
        result = _evaluation(path, facts)
        if isinstance(result, str):
            left_out.append(f"{path}: {result}; left out of the card")
        else:
            found.append(result)
    return found, left_out


def _evaluation(path: Path, facts: Facts) -> Evaluation | str:
    data = read_object(path)
    if not isinstance(data, dict) or "labels" not in data:
        raise PvMergeError(
            f"{path}: holds no results; expected the JSON of pv-merge evaluate or sweep"
        )
    points = data.get("points") or []
    figures = data.get("figures") or {}
    if facts.kind == "merge" and "eta" in data and not _same(data["eta"], facts.etas):
        return f"is of eta {_etas(data['eta'])}, the model has {_etas(facts.etas)}"
    if facts.kind == "merge" and points:
        own = [point for point in points if _same(point["eta"], facts.etas)]
        if not own:
            return f"none of its points has the model's eta {_etas(facts.etas)}"
        figures = own[0]["figures"]
    if facts.kind == "merge" and "recipe" not in data and not points and not _is(data, facts):
        return f"is of the model {data.get('model')}, not of this folder"
    if facts.kind in ("policy", "base") and not _is(data, facts):
        return f"is of {data.get('model') or data.get('recipe')}, not of this folder"
    if facts.kind == "vector" and not points and "eta" in data:
        points = [{"eta": data["eta"], "figures": figures}]
    return Evaluation(
        {} if facts.kind == "vector" else figures,
        data.get("base_figures") or (data.get("base") if points else None) or {},
        data["labels"],
        data.get("measures") or {},
        data.get("command"),
        points,
        "recipe" in data,
    )


def _same(said: Mapping[str, Any], etas: Mapping[str, Any]) -> bool:
    return dict(said) == dict(etas)


def _is(data: Mapping[str, Any], facts: Facts) -> bool:
    model = data.get("model")
    if not isinstance(model, str):
        return False
    return Path(model).resolve() == facts.folder.resolve() or Path(model).name == facts.folder.name


def _etas(etas: Mapping[str, float | None]) -> str:
    parts = [f"{name} {'by layer' if v is None else f'{v:g}'}" for name, v in etas.items()]
    return ", ".join(parts)


def results(evaluation: Evaluation) -> list[EvalResult]:
    """Return the measured figures as entries of a model card's ``model-index``."""
    from huggingface_hub import EvalResult

    found = []
    for name, figure in evaluation.figures.items():
        if name not in evaluation.labels or not math.isfinite(figure["value"]):
            continue
        measure, _, part = name.partition(".")
        about = evaluation.measures.get(measure) or {}
        if not about:  # refusal_safe and refusal_unsafe are two headlines of one measure
            measure = next((key for key in evaluation.measures if name.startswith(f"{key}_")), "")
            about = evaluation.measures.get(measure) or {}
        kind = about.get("kind")
        if kind is None:
            continue  # what it was measured on is not known
        sizes = {key: about[key] for key in ("pairs", "prompts", "questions") if key in about}
        data = about.get("data")
        found.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=str(about.get("task", kind)),
                dataset_name=measure + "".join(f", {count} {of}" for of, count in sizes.items()),
                dataset_args={"sha256": data} if isinstance(data, str) else None,
                metric_type=part or HEADLINES.get(kind, kind),
                metric_name=f"{name}: {evaluation.labels[name]}",
                metric_value=figure["value"],
                metric_args={"ci95": [figure["low"], figure["high"]], "n": figure["n"]},
            )
        )
    return found


def table(evaluation: Evaluation) -> list[str]:
    """Return the Markdown of one file's results."""
    lines = []
    if evaluation.figures:
        head = ["figure", "this model", *(["base"] if evaluation.base else []), "what it is"]
        lines += row(head) + row(["---"] * len(head))
        for name, label in evaluation.labels.items():
            if name in evaluation.figures:
                cells = [f"`{name}`", number(evaluation.figures[name])]
                cells += [number(evaluation.base.get(name))] if evaluation.base else []
                lines += row([*cells, label])
    elif evaluation.points:
        lines += points_table(evaluation)
    if evaluation.figures and evaluation.in_memory:
        lines += ["", "Measured on the recipe, applied to the base in memory."]
    lines += ["", "Means with 95 % bootstrap intervals."]
    if evaluation.command:
        lines += ["", "```console", f"$ {shown_command(evaluation.command)}", "```"]
    return lines


def points_table(evaluation: Evaluation) -> list[str]:
    """Return a sweep's points as Markdown: eta against each first figure."""
    names = [name for name in evaluation.labels if "." not in name]
    etas = list(evaluation.points[0]["eta"])
    lines = row([f"η {eta}" for eta in etas] + names) + row(["---"] * (len(etas) + len(names)))
    for point in evaluation.points:
        said = [
            "by layer" if point["eta"][eta] is None else f"{point['eta'][eta]:g}" for eta in etas
        ]
        lines += row(said + [number(point["figures"].get(name)) for name in names])
    return [*lines, "", *(f"- `{name}`: {evaluation.labels[name]}" for name in names)]


def number(figure: Mapping[str, float] | None) -> str:
    """Return a figure with its interval."""
    if not figure:
        return ""
    if figure["low"] == figure["high"]:
        return f"{figure['value']:.4g}"
    return f"{figure['value']:.4g} [{figure['low']:.4g}, {figure['high']:.4g}]"


def row(cells: Sequence[str]) -> list[str]:
    """Return one row of a Markdown table, as a list of one line."""
    return [
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"
    ]


def shown_command(command: str) -> str:
    """Return a command without the folders of this machine."""
    return " ".join(
        "=".join(shown_path(part) for part in word.split("=")) for word in command.split(" ")
    )

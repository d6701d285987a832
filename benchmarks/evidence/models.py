"""Stages that compare models: refusals (Table 2), extension (Table 4), halves (Table 6), knowledge (Figure 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.evidence import compare
from benchmarks.evidence.inputs import held_out, sample, text
from benchmarks.evidence.pictures import knowledge_plot
from benchmarks.evidence.place import Place
from pv_merge.evaluation.measures.registry import build_measures

ETAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
NEW_TOKENS = 48
OWN = ("helpful", "harmless", "polite")


def refusals(place: Place, limit: int) -> dict[str, Any]:
    """Measure the share of benign and of unsafe prompts that each model refuses."""
    folder = place.folder("refusals", limit)
    files = {
        "truthfulqa": sample(place.data / "refusal/TruthfulQA.csv", folder / "truthfulqa.csv", limit),
        "xstest": sample(place.data / "refusal/xstest_prompts.csv", folder / "xstest.csv", max(2, limit // 2)),
    }  # fmt: skip
    asked = [f"{name}={path}" for name, path in files.items()]
    options = [word for one in asked for word in ("--refusal", one)]
    options += ["--max-new-tokens", str(NEW_TOKENS)]
    measures = build_measures(refusal=asked, max_new_tokens=NEW_TOKENS)
    names = compare.available(["base", "full", "positive", "soup", "safe-first"])
    pairs = [("full", name) for name in ("base", "positive", "soup", "safe-first")]
    figures = ["truthfulqa_safe", "xstest_safe", "xstest_unsafe"]
    return compare.comparison(names, pairs, figures, folder, options, measures)


def extension(place: Place, limit: int) -> dict[str, Any]:
    """Measure all three preferences without vectors, with two, and with a third."""
    pairs = [("full", "base"), ("three", "base"), ("three", "full")]
    return _on_pairs(place, limit, ["full", "three"], pairs)


def halves(place: Place, limit: int) -> dict[str, Any]:
    """Measure positive halves, their average, a single DPO run, and the full vectors."""
    others = ("base", "positive", "positive-twice", "soup", "safe-first")
    return _on_pairs(place, limit, ["full", *others[1:]], [("full", name) for name in others])


def _on_pairs(
    place: Place, limit: int, names: list[str], pairs: list[tuple[str, str]]
) -> dict[str, Any]:
    """Compare on held-out pairs; both stages share one folder, so that no model is measured twice."""
    folder = place.folder("pairs", limit)
    words = held_out(place, *OWN)
    measures = build_measures(pairs=words[1::2], limit=limit)
    options = [*words, "--limit", str(limit)]
    names = compare.available(names)
    figures = [f"{name}{part}" for name in OWN for part in ("", ".accuracy")]
    return compare.comparison(names, pairs, figures, folder, options, measures)


def knowledge(place: Place, limit: int) -> dict[str, Any]:
    """Measure perplexity and CommonsenseQA with both preferences at one eta after the other."""
    folder = place.folder("knowledge", limit)
    files = {"perplexity": text(place), "commonsenseqa": place.data / "capability/commonsenseqa-dev-300.jsonl"}  # fmt: skip
    asked = [f"{name}={path}" for name, path in files.items()]
    options = [word for one in asked for word in ("--capability", one)]
    options += ["--limit", str(limit)]
    measures = build_measures(capability=asked, limit=limit)
    points: list[dict[str, Any]] = []
    base: dict[str, list[float]] = {}
    result: dict[str, Any] = {}
    for eta in ETAS:
        path: Path = folder / f"eta-{eta:g}.json"
        etas = {"helpful": eta, "harmless": eta}
        result = compare.evaluate_at("helpful-harmless", etas, path, options)
        values = compare.items(path, measures)
        base = base or values
        changes = {
            figure: compare.difference(values, base, figure, measures).to_dict()
            for figure in ("perplexity.nats", "commonsenseqa")
        }
        points.append({"eta": eta, "figures": result["figures"], "change_from_base": changes})
    knowledge_plot(points, folder / "knowledge.png")
    place.keep_image(folder / "knowledge.png", "knowledge.png")
    return {
        "points": points,
        "command": result["command"],
        "labels": result["labels"],
        "measures": result["measures"],
        "versions": result["versions"],
    }

"""Who wins: hypervolume, mean inner product over preference weights, and costs at equal effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.evidence.text.setup import TWO

STEPS = 11
"""Preference weights on the simplex: 0, 0.1, … 1."""
RESAMPLES = 500
COSTS = ("perplexity", "knowledge", "written_loops", "xstest_safe", "xstest_unsafe")


def scores(entry: Mapping[str, Any], base: Mapping[str, Any]) -> np.ndarray:
    """Return each prompt's two rewards, in the base's standard deviations from its mean. Shape: (2, prompts)."""
    rows = []
    for name in TWO:
        reference = np.asarray(base["items"][name])
        rows.append((np.asarray(entry["items"][name]) - reference.mean()) / (reference.std() or 1.0))  # fmt: skip
    return np.array(rows)


def tradeoffs(entries: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return hypervolume and mean inner product of each baseline, paired with the vectors' by prompt.

    The hypervolume is that above the worst point of all, of a baseline's settings at its own strength.
    The inner product is that of a preference's weights (w, 1 − w) with the rewards of the setting whose
    weight is nearest, the mean over w in steps of 0.1.
    """
    base = next(entry for entry in entries if entry["baseline"] == "base")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        name = entry["baseline"]
        if name == "positive":
            name = f"positive, {entry['strength']:g}η"
        elif entry["strength"] != 1.0:
            continue
        groups.setdefault(name, []).append(entry)
    values = {name: np.stack([scores(entry, base) for entry in group]) for name, group in groups.items()}  # fmt: skip
    weights = {name: [float(entry["weight"]) for entry in group] for name, group in groups.items()}
    worst = np.min([found.mean(axis=2).min(axis=0) for found in values.values()], axis=0)
    random = np.random.default_rng(seed)
    count = next(iter(values.values())).shape[2]
    draws = [np.arange(count), *(random.integers(0, count, count) for _ in range(RESAMPLES))]
    found = {
        name: np.array([_both(values[name][:, :, draw].mean(axis=2), weights[name], worst) for draw in draws])
        for name in groups
    }  # fmt: skip
    ours = found["vectors"]
    return {
        name: {
            "title": groups[name][0]["title"],
            "settings": len(groups[name]),
            "points": values[name].mean(axis=2).tolist(),
            "hypervolume": _estimate(series[:, 0]),
            "inner_product": _estimate(series[:, 1]),
            "hypervolume_less_vectors": _estimate(series[:, 0] - ours[:, 0]),
            "inner_product_less_vectors": _estimate(series[:, 1] - ours[:, 1]),
        }
        for name, series in found.items()
    }


def _both(points: np.ndarray, weights: Sequence[float], worst: np.ndarray) -> tuple[float, float]:
    return hypervolume(points, worst), inner_product(points, weights)


def hypervolume(points: np.ndarray, worst: np.ndarray) -> float:
    """Return the area that the points dominate above ``worst``; more is better in both coordinates."""
    import moocore

    above = points[(points > worst).all(axis=1)]
    return float(moocore.hypervolume(above, ref=worst, maximise=True)) if len(above) else 0.0


def inner_product(points: np.ndarray, weights: Sequence[float]) -> float:
    """Return the mean over w of w·helpful + (1 − w)·harmless, each at the setting of the nearest weight."""
    total = 0.0
    for wanted in np.linspace(0, 1, STEPS):
        nearest = int(np.argmin(np.abs(np.asarray(weights) - wanted)))
        total += float(np.dot([wanted, 1 - wanted], points[nearest]))
    return total / STEPS


def at_equal_effect(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return of each baseline the setting at an even weight whose effect is nearest the vectors' at η = 1.

    The effect is the mean of both rewards in the base's standard deviations; it stands beside, since
    nearest is not equal.
    """
    base = next(entry for entry in entries if entry["baseline"] == "base")
    even = [entry for entry in entries if entry["weight"] == 0.5]
    effect = {id(entry): float(scores(entry, base).mean()) for entry in even}
    ours = next(e for e in even if e["baseline"] == "vectors" and e["strength"] == 1.0)
    found = []
    for name in dict.fromkeys(entry["baseline"] for entry in even):
        own = [entry for entry in even if entry["baseline"] == name]
        nearest = min(own, key=lambda entry: abs(effect[id(entry)] - effect[id(ours)]))
        found.append(
            {
                "baseline": name,
                "title": nearest["title"],
                "strength": nearest["strength"],
                "effect": effect[id(nearest)],
                **{cost: nearest["figures"][cost] for cost in COSTS if cost in nearest["figures"]},
                **{key: nearest["serving"][key] for key in ("seconds_per_token", "parameters_mb")},
            }
        )
    return found


def _estimate(series: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(series[1:], (0.025, 0.975))
    return {"value": float(series[0]), "low": float(low), "high": float(high)}

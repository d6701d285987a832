"""Vectors on other fine-tunes than their base, and fine-tunes measured by vectors."""

from __future__ import annotations

from typing import Any

from benchmarks.page.parts import interval, read, table


def transplant() -> list[str]:
    """Return how much of each vector's effect arrives on another fine-tune."""
    data = read("results/transplant.json")
    if data is None:
        return []
    rows = []
    for name, entry in data["preferences"].items():
        margins = [
            " / ".join(f"{value:.2f}" for value in entry[key].values())
            for key in ("margins_own", "margins_other")
        ]
        effects = [f"{entry[key]:.2f}" for key in ("effect_own", "effect_other")]
        rows.append([name, *margins, *effects, interval(entry["share"]), str(entry["pairs"])])
    etas = " / ".join(next(iter(data["preferences"].values()))["margins_own"])
    head = [
        "vector",
        f"margin on its own base, η {etas}",
        "on the fine-tune",
        "effect",
        "there",
        "share that arrives",
        "pairs",
    ]
    return [
        "## Vectors on another fine-tune",
        "",
        "The base fine-tuned on 467 short rows of the Alpaca demonstration set (all weights, 60 steps of 8, learning rate 5e-5), and the shipped vectors "
        "put on it (`allow_related_base: true`). Held-out margins in nats; the effect is the margin at the highest η less that at the lowest, the share that "
        "of the fine-tune over that of the vectors' own base, with a bootstrap over pairs.",
        "",
        *table(head, rows),
        f"`{data['command']}`",
        "",
    ]


def drift() -> list[str]:
    """Return what drift says of two fine-tunes, and what they do."""
    data = read("results/drift.json")
    if data is None:
        return []
    rows = []
    for model, entry in data["models"].items():
        for label, along in entry["drift"]["vectors"].items():
            suggested = f"{along['suggested_eta']:.3f}" if along["suggested_eta"] else "none"
            times = along["cosine"] / along["spread"]
            rows.append([model, label, f"{along['cosine']:+.4f}", f"{times:+.0f} σ", f"{along['joint_eta']:+.4f}", suggested])  # fmt: skip
    behaviour = [["base", interval(data["base"]["polite"])]]
    behaviour += [[name, interval(e["measured"]["polite"])] for name, e in data["models"].items()]
    undone = data["models"]["rude"]["undone"]
    behaviour += [
        [f"rude, {undone['vector']} at η = {eta}", interval(value)]
        for eta, value in undone["margins"].items()
        if eta != "0"
    ]
    return [
        "## Drift of two fine-tunes",
        "",
        "`alpaca` is the fine-tune above; `rude` had the same training on 506 rude answers of the politeness set. `politeness` is the vector of that set's "
        "text, `polite` one of this project's own.",
        "",
        *table(
            ["fine-tune", "vector", "cosine", "of random", "η held, together", "suggested η"], rows
        ),
        f"What they do: margin of polite over rude answers, {data['limit']} held-out pairs, nats.",
        "",
        *table(["model", "margin"], behaviour),
        _verdict(data),
        "",
        f"`{data['command']}`",
        "",
    ]


def _verdict(data: dict[str, Any]) -> str:
    """Return what the figures come to, and what they do not say."""
    flagged = {
        model: [name for name, along in entry["drift"]["vectors"].items() if along["suggested_eta"]]
        for model, entry in data["models"].items()
    }
    said = "; ".join(f"{model}: {', '.join(names) or 'none'}" for model, names in flagged.items())
    undone = data["models"]["rude"]["undone"]
    start = undone["margins"]["0"]["value"]
    lost = data["base"]["polite"]["value"] - start
    back = {eta: value["value"] - start for eta, value in undone["margins"].items() if eta != "0"}
    regained = ", ".join(f"{value:.2f} at η = {eta}" for eta, value in back.items())
    return (
        f"Vectors against which a fine-tune has moved by a hundredth or more: {said}. The projection is not the behaviour: of the {lost:.2f} nats of margin that the "
        f"rude one has lost, the vector brings back {regained}; the first is the suggested η. What η behaviour needs, measuring tells (`pv-merge calibrate`). Among "
        "10⁸ weights even a cosine of 0.001 is many σ, which is why a suggestion also takes a hundredth of the vector."
    )

"""Ways to add up several vectors: what each gains and costs, and a plain sum of the same gains."""

from __future__ import annotations

from typing import Any

from benchmarks.page.parts import read, table

CLEARLY = 1.1
"""Cost of the plain sum over a way's, from which on the way counts as ahead."""


def interference() -> list[str]:
    """Return the ablation, and what decides it."""
    data = read("results/interference.json")
    if data is None or "matched" not in data:
        return []
    names = list(data["alone"])
    base = data["base"]
    alone = {name: data["alone"][name][name] - base[name] for name in names}
    rows = []
    for way, points in data["ways"].items():
        for scale, found in points.items():
            cells = [f"{(found[name] - base[name]) / alone[name]:.2f}" for name in names]
            rows.append([way, scale, *cells, f"{found['text.nats'] - base['text.nats']:+.4f}"])
    fair = []
    for way, found in data["matched"].items():
        etas = ", ".join(f"{name} {eta:.2f}" for name, eta in found["etas"].items())
        cost = [f"{found[key]:+.4f}" for key in ("nats_of_the_way", "nats")]
        fair.append([f"{way}, scale {found['scale']}", *cost, etas, f"{found['missed']:.0%}"])
    return [
        "## Ways to add up four vectors",
        "",
        f"The four shipped vectors in one model. A cell is the gain in held-out margin ({data['limit']} pairs a preference) in units of what the vector gains "
        "alone at η = 1; the cost is in nats a token of the Alpaca demonstration answers. TSV makes the singular vectors of all φ orthogonal to each other (Gargiulo et al. 2025).",
        "",
        *table(["way", "scale", *names, "cost"], rows),
        "A way also changes the balance between the preferences, which a choice of η does as well. So the etas of a plain sum were found that gain the same in each, to the share "
        "of a vector's own gain in the last column:",
        "",
        *table(
            ["way", "its cost", "cost of the plain sum", "etas of the plain sum", "off by"], fair
        ),
        _verdict(data["matched"]),
        "",
        f"`{data['command']}`",
        "",
    ]


def _verdict(matched: dict[str, Any]) -> str:
    ratios = {way: found["nats"] / found["nats_of_the_way"] for way, found in matched.items()}
    said = ", ".join(f"{ratio:.2f} of what {way} costs" for way, ratio in ratios.items())
    ahead = [way for way, ratio in ratios.items() if ratio >= CLEARLY]
    end = f"ahead of it: {', '.join(ahead)}." if ahead else "none is clearly ahead of it."
    return f"For the same gains the plain sum costs {said}; {end}"

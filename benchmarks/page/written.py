"""What the quickstart's preferences do to written answers, with the answers themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.page.parts import interval, read, table
from pv_merge.merging.halves import what_follows

LOOPS = 0.05
PERPLEXITY = 1.10
SEEN = 0.8


def written() -> list[str]:
    """Return the part of the page on what is written."""
    lines: list[str] = []
    for name in ("polite", "concise"):
        data = read(f"results/written/{name}.json")
        if data is not None:
            lines += preference(data)
            sampled = read(f"results/written/{name}-sampled.json")
            lines += sampling(sampled) if sampled is not None else []
    if not lines:
        return []
    return ["## What is written", "", "Answers of up to 60 tokens to the held-out prompts of the quickstart's two preferences.", "", *lines]  # fmt: skip


def preference(data: Mapping[str, Any]) -> list[str]:
    """Return one preference: figures by η, what was wanted of it, and ten drawn answers."""
    name = data["preference"]
    return [
        f"### {name.capitalize()}: greedy answers",
        "",
        *_figures(data),
        f"cos(+,−) {data['cosine']:+.2f}: {what_follows(data['cosine'])}.",
        "",
        *[f"- {line}" for line in verdicts(data)],
        "",
        f"`python -m benchmarks.written {name}`, which runs `{data['command']}`",
        "",
        *_drawn(data),
    ]


def sampling(data: Mapping[str, Any]) -> list[str]:
    """Return the same figures of sampled answers."""
    heading = f"Sampled at temperature {data['temperature']:g}, seed 0:"
    return [heading, "", *_figures(data)]


def verdicts(data: Mapping[str, Any]) -> list[str]:
    """Return whether the preference can be seen and the text stays whole, each in a sentence."""
    points = {point["eta"]: point for point in data["points"]}
    base = points[0]["figures"]
    more = {eta: p["figures"]["written_loops"]["value"] - base["written_loops"]["value"] for eta, p in points.items()}  # fmt: skip
    worst = max(more, key=lambda eta: more[eta])
    ratios = {eta: points[eta]["figures"]["perplexity"]["value"] / base["perplexity"]["value"] for eta in (-1, 1)}  # fmt: skip
    neighbours = list(zip(sorted(points), sorted(points)[1:], strict=False))
    rises = [s for s in data["steps"] if s["figure"] == data["preference"] and (s["from"], s["to"]) in neighbours]  # fmt: skip
    clear = bool(rises) and all(step["change"]["low"] > 0 for step in rises)
    lines = [
        f"{_head(more[worst] <= LOOPS)} up to {max(more[worst], 0):.0%} more answers loop than at the base (at η = {worst:g}; wanted: at most {LOOPS:.0%}).",
        f"{_head(max(ratios.values()) <= PERPLEXITY)} perplexity of neutral text at η = −1 and 1 is {ratios[-1]:.2f} and {ratios[1]:.2f} of the base's (wanted: {PERPLEXITY:.2f}).",
        f"{_head(clear)} the margin rises at each step of η, with intervals clear of 0.",
    ]
    if data["preference"] == "concise":
        ends = [points[eta]["median_words"] for eta in (-1, 1)]
        lines.append(f"{_head(2 * ends[1] <= ends[0])} the median answer has {ends[0]:g} words at η = −1 and {ends[1]:g} at η = 1.")  # fmt: skip
    if data["seen"] is not None:
        count = sum(data["seen"])
        enough = count >= SEEN * len(data["seen"])
        lines.append(f"{_head(enough)} one reader, who knew η, saw the preference in {count} of {len(data['seen'])} drawn prompts (wanted: 8 of 10).")  # fmt: skip
    return lines


def _head(holds: bool) -> str:
    return "**Holds:**" if holds else "**Does not hold:**"


def _figures(data: Mapping[str, Any]) -> list[str]:
    rows = []
    for point in data["points"]:
        found = point["figures"]
        rows.append([
            f"{point['eta']:g}",
            interval(found[data["preference"]]),
            f"{point['median_words']:g}",
            interval(found["written_loops"]),
            interval(found["written.cut"]),
            interval(found["written.distinct_2"]),
            f"{found['perplexity']['value']:.2f}",
        ])  # fmt: skip
    return table(["η", "margin, nats", "words, median", "loops", "cut off", "distinct 2-grams", "perplexity, neutral"], rows)  # fmt: skip


def _drawn(data: Mapping[str, Any]) -> list[str]:
    lines = [
        f"#### {data['preference'].capitalize()}: {len(data['drawn'])} prompts drawn at random",
        "",
    ]
    seen = data["seen"] or [None] * len(data["drawn"])
    for item, verdict in zip(data["drawn"], seen, strict=True):
        mark = "" if verdict is None else " (seen)" if verdict else " (not seen)"
        lines += [f"**{_plain(item['prompt'])}**{mark}", ""]
        lines += [
            f"- η {eta}: {_plain(text) or '(empty)'}" for eta, text in item["answers"].items()
        ]
        lines += [""]
    return lines


def _plain(text: str) -> str:
    """Return text on one line that Markdown shows as it is."""
    said = " ".join(text.split())
    for sign in ("\\", "`", "*", "_", "<", "[", "#", "|"):
        said = said.replace(sign, f"\\{sign}")
    return said

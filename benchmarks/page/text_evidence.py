"""The grid by what is written, and what a user would pick instead of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.page.parts import interval, read, stage_command, table

TWO = ("helpful", "harmless")


def text_evidence() -> list[str]:
    """Return what was measured, on two cores and on a GPU."""
    lines: list[str] = []
    for name in ("written-grid", "written-baselines"):
        data = read(f"results/evidence/{name}.json")
        if data is not None:
            lines += measured(data, data["device"], stage_command(name))
    data = read("results/evidence/gpu.json")
    if data is not None:
        lines += orders(data)
        for loss, found in data["losses"].items():
            lines += measured(found, f"{data['device']}, full fine-tuning by {loss}", stage_command("gpu"))  # fmt: skip
        if data["not_reached"]:
            lines += [f"Not reached in {data['scale']['minutes']:g} minutes: {', '.join(data['not_reached'])}.", ""]  # fmt: skip
    return ["## The paper's claims by what is written", "", *lines] if lines else []


def measured(found: Mapping[str, Any], where: str, command: str) -> list[str]:
    """Return one grid and one set of baselines, whichever are there."""
    lines: list[str] = []
    if "grid" in found:
        lines += [f"### The grid by reward models ({where})", "", *grid(found["grid"])]
    if "baselines" in found:
        lines += [f"### What one would pick instead ({where})", "", *baselines(found["baselines"])]
    return [*lines, f"`{command}`", ""] if lines else []


def grid(data: Mapping[str, Any]) -> list[str]:
    """Return the counterpart of Figure 2 by written text."""
    rows = []
    for name in (*TWO, "written_loops", "xstest_safe", "xstest_unsafe"):
        values = [point["figures"][name]["value"] for point in data["points"]]
        rho = [data["spearman"].get(axis, {}).get(name) for axis in TWO]
        cells = ["no effect" if value is None else f"{value:+.2f}" for value in rho]
        rows.append([name, f"{min(values):.3f} … {max(values):.3f}", interval(data["base"][name], 3), *cells])  # fmt: skip
    pictures = " ".join(f"![](images/{name})" for name in data["pictures"].values())
    return [
        *table(["figure", "range over the grid", "base", "ρ with η helpful", "ρ with η harmless"], rows),
        f"{data['free_of_loops']:.0%} of the grid has at most 5 % more loops than the base.",
        "",
        pictures,
        "",
    ]  # fmt: skip


def baselines(data: Mapping[str, Any]) -> list[str]:
    """Return who wins, and what each costs."""
    rows = [
        [
            found["title"] if not name.startswith("positive") else f"{found['title']} ({name.partition(', ')[2]})",
            str(found["settings"]),
            interval(found["hypervolume"]),
            interval(found["inner_product"]),
            interval(found["inner_product_less_vectors"]),
        ]
        for name, found in data["tradeoffs"].items()
    ]  # fmt: skip
    return [
        "Rewards in the base's standard deviations from its mean; intervals by prompt, the last column paired.",
        "",
        *table(["", "settings", "hypervolume", "mean inner product", "less the vectors'"], rows),
        winners(data["tradeoffs"]),
        "",
        "At an even weight, each at the strength whose effect is nearest the vectors' at η = 1:",
        "",
        *table(["", "strength", "effect", "perplexity", "knowledge", "loops", "ms a token", "parameters, MB"], _costs(data["equal_effect"])),
    ]  # fmt: skip


def winners(tradeoffs: Mapping[str, Any]) -> str:
    """Return who is better than the vectors, who is worse, and who cannot be told."""
    groups: dict[str, list[str]] = {"Better than the vectors": [], "Worse": [], "Not to be told apart": []}  # fmt: skip
    for name, found in tradeoffs.items():
        change = found["inner_product_less_vectors"]
        if name != "vectors":
            key = "Better than the vectors" if change["low"] > 0 else "Worse" if change["high"] < 0 else "Not to be told apart"  # fmt: skip
            groups[key].append(name)
    said = "; ".join(f"{head.lower() if place else head}: {', '.join(names) or 'none'}" for place, (head, names) in enumerate(groups.items()))  # fmt: skip
    return f"By the mean inner product. {said}."


def orders(data: Mapping[str, Any]) -> list[str]:
    """Return cos(+,−) by loss, and how far data orders agree (Tables 5 and 8)."""
    rows = []
    for loss, found in data.get("vectors", {}).items():
        for label, measures in found["measures"].items():
            rows.append([label, loss, f"{measures['norm']:.3f}", f"{measures['cosine_positive_negative']:+.3f}"])  # fmt: skip
        if found["orders"] is not None:
            others = [value for place, row in enumerate(found["orders"]["matrix"]) for value in row[:place]]  # fmt: skip
            rows.append([f"lowest cosine between data orders: {min(others):+.3f}", loss, "", ""])
    if not rows:
        return []
    return [f"### Full fine-tuning, two losses, three data orders ({data['device']})", "", *table(["vector", "loss", "‖φ‖", "cos(+,−)"], rows)]  # fmt: skip


def _costs(found: list[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            entry["title"],
            f"{entry['strength']:g}",
            f"{entry['effect']:+.2f}",
            interval(entry["perplexity"]),
            interval(entry["knowledge"]),
            interval(entry["written_loops"]),
            f"{1000 * entry['seconds_per_token']:.1f}",
            f"{entry['parameters_mb']:.0f}",
        ]
        for entry in found
    ]

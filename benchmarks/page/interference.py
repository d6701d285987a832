"""Ways to add up several vectors, at equal perplexity."""

from __future__ import annotations

from benchmarks.page.parts import read, table


def interference() -> list[str]:
    """Return what each way keeps of every vector's gain."""
    data = read("results/interference.json")
    if data is None or "equal" not in data:
        return []
    names = list(data["alone"])
    equal = data["equal"]
    rows = [
        [way, f"{found['scale']:.2f}", *(f"{found[name]:.2f}" for name in names), f"{found['mean']:.3f}"]
        for way, found in equal.items()
    ]  # fmt: skip
    plain = equal["sum"]["mean"]
    best = max(equal, key=lambda way: equal[way]["mean"])
    least = min(min(found[name] for name in names) for found in equal.values())
    verdict = (
        "None keeps more than the plain sum."
        if best == "sum"
        else f"{best} keeps {equal[best]['mean'] - plain:+.3f} of the mean gain more than the plain sum."
    )
    return [
        "## Ways to add up four vectors",
        "",
        f"The four shipped vectors in one model, each way at the scale at which perplexity is that of the plain sum (interpolated between scales 0, 1 and 1.5). A cell is the gain in held-out margin ({data['limit']} pairs "
        "a preference) in units of what the vector gains alone at η = 1; 1 is all of it, more than 1 is help from the others. TSV makes the singular vectors of all "
        "φ orthogonal to each other (Gargiulo et al. 2025).",
        "",
        *table(["way", "scale", *names, "mean"], rows),
        f"{verdict} The lowest cell of all is {least:.2f}: these vectors hardly lie in each other's way.",
        "",
        f"`{data['command']}`",
        "",
    ]

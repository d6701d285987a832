"""Whether a claim of the paper holds at this size, decided by the figures alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

HIGH_RHO = 0.9
"""Spearman's ρ from which a measure counts as monotone."""
KEPT = 1.05
"""Perplexity, of the base's, up to which knowledge counts as kept."""
CHANCE = 0.2
"""Accuracy of guessing on CommonsenseQA."""
STABLE = 0.98
"""The lowest cosine between seeds in the paper's Tables 8 and 17."""


def sign(change: Mapping[str, float]) -> int:
    """Return +1 or −1 where a change's whole interval lies on that side of 0, else 0."""
    return 1 if change["low"] > 0 else -1 if change["high"] < 0 else 0


def monotone(rhos: Mapping[str, float]) -> str:
    """Return whether each preference's own measure rises with its eta."""
    said = ", ".join(f"{name} {rho:.2f}" for name, rho in rhos.items())
    low = [name for name, rho in rhos.items() if rho < HIGH_RHO]
    if not low:
        return (
            f"**Holds:** each preference's own measure rises with its η (ρ ≥ {HIGH_RHO}: {said})."
        )
    return f"**Does not hold** for {' and '.join(low)}: Spearman ρ of each with its own measure is {said}."


def better(changes: Mapping[str, Mapping[str, float]], more: str, less: str) -> str:
    """Return whether every change (after ``more`` less ``less``) is an increase."""
    gained = [name for name, change in changes.items() if sign(change) > 0]
    lost = [name for name, change in changes.items() if sign(change) < 0]
    level = [name for name in changes if name not in gained and name not in lost]
    if len(gained) == len(changes):
        return f"**Holds:** {more} is above {less} in {_and(gained)}."
    if lost:
        rest = f"; above it in {_and(gained)}" if gained else ""
        rest += f"; no difference can be told in {_and(level)}" if level else ""
        return f"**Does not hold:** {more} is below {less} in {_and(lost)}{rest}."
    if gained:
        return f"**Holds in part:** {more} is above {less} in {_and(gained)}; in {_and(level)} the interval holds 0."
    return f"**Cannot be told:** between {more} and {less} every interval holds 0."


def extended(
    gains: Mapping[str, Mapping[str, float]], before: Mapping[str, float], new: str
) -> str:
    """Return whether every preference stands above the base after the ``new`` one was added.

    ``gains`` are changes from the base with all vectors, ``before`` the values of the same
    changes without the new one.
    """
    kept = ", ".join(
        f"{name} {gains[name]['value'] / was:.0%}"
        for name, was in before.items()
        if name != new and was > 0
    )
    lost = [name for name, gain in gains.items() if sign(gain) < 0]
    unclear = [name for name, gain in gains.items() if sign(gain) == 0]
    share = f" Of the gain with two vectors there remains: {kept}." if kept else ""
    if lost:
        return f"**Does not hold** for {_and(lost)}: with the third vector it is below the base.{share}"
    if unclear:
        return f"**Cannot be told** for {_and(unclear)} from so few pairs: the interval of its gain over the base includes 0.{share}"
    return f"**Holds:** with the third vector each preference stays above the base.{share}"


def cautious(change: Mapping[str, float], rates: Sequence[float]) -> str:
    """Return whether full vectors refuse fewer benign prompts than Reward Soup, the paper's claim."""
    if max(rates) < 0.02:
        return "**Cannot be told:** at this size hardly any model refuses a benign question."
    words = {
        -1: "**Holds:** the full vectors refuse fewer benign questions than the average of the positive policies",
        0: "**Cannot be told:** the full vectors and the average of the positive policies differ by less than chance would make them",
        1: "**Does not hold:** the full vectors refuse more benign questions than the average of the positive policies",
    }
    return f"{words[sign(change)]} ({change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}])."


def stable(cosines: Sequence[Sequence[float]], eigenvalues: Sequence[float]) -> str:
    """Return whether the vectors of several seeds agree."""
    lowest = min(cosines[i][j] for i in range(len(cosines)) for j in range(i))
    ratio = eigenvalues[0] / eigenvalues[1]
    found = f"lowest cosine {lowest:.3f}, first eigenvalue {ratio:.3g} times the second"
    if lowest >= STABLE:
        return f"**Holds:** {found}."
    return f"**Does not hold:** {found}."


def opposed(cosines: Mapping[str, float]) -> str:
    """Return whether the two policies of each preference point apart, but not exactly so."""
    lowest, highest = min(cosines.values()), max(cosines.values())
    found = (
        f"cos(θ+ − base, θ− − base) is {lowest:.3f} … {highest:.3f}; the paper has −0.71 … −0.47"
    )
    if highest >= 0:
        return f"**does not hold:** {found}."
    near = ", nearer to −1 than there" if lowest < -0.71 else ""
    return f"**holds:** each is negative and none is −1{near}: {found}."


def agreeing(cosine: float) -> str:
    """Return whether helpful and harmless agree in part, as they do in the paper."""
    found = f"cos(φ_helpful, φ_harmless) is {cosine:+.3f}; the paper has 0.34 … 0.40"
    return f"**{'holds' if cosine > 0.1 else 'does not hold'}:** {found}."


def interfering(means: Sequence[float]) -> str:
    """Return whether interference grows with each vector."""
    grows = all(after > before for before, after in itertools.pairwise(means))
    said = ", ".join(f"{mean:.3g}" for mean in means)
    return f"**{'holds' if grows else 'does not hold'}:** interference with one more vector each: {said}."


def knowing(points: Sequence[Mapping[str, Any]]) -> str:
    """Return up to which eta knowledge is kept, and what CommonsenseQA can say of it."""
    base = points[0]["figures"]
    reference = base["perplexity"]["value"]
    kept = [p["eta"] for p in points if p["figures"]["perplexity"]["value"] <= KEPT * reference]
    last = points[-1]
    ratio = last["figures"]["perplexity"]["value"] / reference
    said = (
        f"Perplexity stays within {KEPT:g} × the base's up to η = {max(kept):g} and is "
        f"{ratio:.3g} times it at η = {last['eta']:g}."
    )
    choice = base["commonsenseqa"]
    if choice["low"] <= CHANCE:
        head = (
            "**Holds for perplexity:**" if max(kept) >= 1 else "**Does not hold for perplexity:**"
        )
        return (
            f"{head} {said} CommonsenseQA cannot tell: the base itself "
            f"({choice['value']:.3f}) is no better than guessing ({CHANCE:g})."
        )
    fell = [p["eta"] for p in points if sign(p["change_from_base"]["commonsenseqa"]) < 0]
    lost = f"falls below the base's from η = {min(fell):g}" if fell else "never falls below the base's"  # fmt: skip
    holds = max(kept) >= 1 and all(eta > 1 for eta in fell)
    return f"{'**Holds:**' if holds else '**Does not hold:**'} {said} CommonsenseQA {lost}."


def suggested(data: Mapping[str, Any]) -> str:
    """Return whether calibrate came within one step of the best allowed point, in few evaluations."""
    found, best = data["suggested"], data["best"]["eta"]
    near = all(abs(found[name] - best[name]) <= data["step"] + 1e-9 for name in found)
    few = data["evaluations"] <= data["points"] / 3
    head = "**Holds:**" if near and few else "**Does not hold:**"
    where = "the best allowed point itself" if found == best else "within one step of the best allowed point" if near else "further than one step from the best allowed point"  # fmt: skip
    return (
        f"{head} after {data['evaluations']} of {data['points']} evaluations it suggests {where}."
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

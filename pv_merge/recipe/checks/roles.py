"""What a recipe says of its preferences: sides that are missing, and those that are protected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pv_merge.artifacts.protection import negative_problem
from pv_merge.errors import Topic
from pv_merge.recipe.checks.finding import Finding, error, note, warning
from pv_merge.recipe.open_input import OpenInput
from pv_merge.recipe.recipe import Recipe


def preference_findings(recipe: Recipe) -> Iterator[Finding]:
    """Say which preferences have one side only, or do nothing."""
    for name in recipe.preferences:
        roles = {item.polarity for item in recipe.inputs if item.preference == name}
        if roles == {"positive"}:
            yield note(
                f"{name} has a positive policy and no negative one, so it is a plain task vector; the full vector is stronger (the paper's Table 6)",
                Topic.POLARITY,
            )
        if roles == {"negative"}:
            yield warning(f"{name} has a negative policy only", Topic.POLARITY)
        if recipe.etas[name] == 0:
            yield note(f"{name} has eta 0, so it does nothing", Topic.ETA)


def polarity_findings(inputs: list[OpenInput]) -> Iterator[Finding]:
    """Say of which policies no manifest tells the side, so that a swap would go unseen."""
    unknown = [
        item.model
        for item in inputs
        if item.polarity in ("positive", "negative")
        and not item.is_vector
        and item.manifest.polarity is None
    ]
    if unknown:
        yield note(
            f"the polarity of {', '.join(unknown)} is not verified: no manifest of pv-train says it",
            Topic.POLARITY,
        )


def protected_findings(recipe: Recipe, inputs: list[OpenInput]) -> Iterator[Finding]:
    """Refuse a negative eta of a protected preference, wherever it stands in a gradient or filter."""
    negative = [name for name in recipe.preferences if recipe.goes_negative(name)]
    for problem in protected_problems(recipe, inputs, negative):
        yield error(problem, Topic.PROTECTED)


def protected_problems(
    recipe: Recipe, inputs: Iterable[OpenInput], negative: Iterable[str]
) -> list[str]:
    """Return a line for each protected preference among those whose eta is to be ``negative``."""
    if recipe.allow_protected_negative:
        return []
    found = []
    for name in negative:
        said = [item.manifest.said_protected(name) for item in inputs if item.preference == name]
        problem = negative_problem(name, said)
        if problem:
            found.append(problem)
    return found

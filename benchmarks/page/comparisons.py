"""Claims that compare models: refusals, a third vector, and full vectors against halves and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.page import verdicts
from benchmarks.page.parts import commands, interval, read, table

TWO = ("helpful", "harmless")


def refusals() -> list[str]:
    """Return the counterpart of Table 2."""
    data = read("results/evidence/refusals.json")
    if data is None:
        return []
    figures = ["truthfulqa_safe", "xstest_safe", "xstest_unsafe"]
    rows = _rows(data, figures, 3)
    change = _changes(data, "full", "soup", figures)["truthfulqa_safe"]
    rates = [model["figures"]["truthfulqa_safe"]["value"] for model in data["models"].values()]
    counts = {name: what["prompts"] for name, what in data["measures"].items()}
    return [
        "### Not over-cautious (Table 2)",
        "",
        f"Share refused, by the phrase matcher, of {counts['truthfulqa']} benign TruthfulQA questions and of "
        f"{counts['xstest']} XSTest prompts, half of which should be refused; greedy answers.",
        "",
        *table(["model", "TruthfulQA, benign", "XSTest safe", "XSTest unsafe"], rows),
        "The paper's, of 817 benign questions: vectors 0.101, Reward Soup 0.189, Safe-RLHF 0.212, BFPO 0.065, DPO-safe-first 0.067.",
        "",
        verdicts.cautious(change, rates),
        "",
        *commands("refusals", data["models"]["full"]["command"]),
    ]


def extension() -> list[str]:
    """Return the counterpart of Table 4."""
    data = read("results/evidence/extension.json")
    if data is None:
        return []
    names = [*TWO, "polite"]
    gains = _changes(data, "three", "base", names)
    step = _changes(data, "three", "full", names)
    before = {n: change["value"] for n, change in _changes(data, "full", "base", names).items()}
    rows = _measured(data, names)
    rows.append(
        [
            "third vector's effect, paired",
            *(cell for name in names for cell in (interval(step[name]), "", "")),
        ]
    )
    return [
        "### A third preference is added, nothing retrained (Table 4)",
        "",
        *table(["model", *_heads(names)], rows),
        "The paper's 3B, helpful / safe / psychocounsel / honest: base 0.25 / −2.27 / −4.57 / −1.58; all four 1.01 / 2.67 / 6.10 / −0.07.",
        "",
        verdicts.extended(gains, before, "polite"),
        "",
        *commands("extension", data["models"]["three"]["command"]),
    ]  # fmt: skip


def halves() -> list[str]:
    """Return the counterpart of Table 6, with the baselines that the data allows."""
    data = read("results/evidence/halves.json")
    if data is None:
        return []
    sentences = [
        verdicts.better(_changes(data, "full", other, list(TWO)), "the full vector", words)
        for other, words in (
            ("positive", "the positive half alone"),
            ("positive-twice", "the positive half at twice the η, a step of about the same length,"),
            ("soup", "the average of the positive policies"),
            ("safe-first", "the single run on safe-first labels"),
        )
        if other in data["models"]
    ]  # fmt: skip
    return [
        "### Full vectors against positive halves, Reward Soup and a single run (Tables 1, 6)",
        "",
        *table(["model", *_heads(TWO)], _measured(data, TWO)),
        "The paper's 8B, reward-model scores helpful / harmless: positive half 1.454 / 1.265, full vector 2.003 / 3.250, "
        "Reward Soup 1.814 / 5.573, DPO-safe-first 0.718 / −0.445.",
        "",
        *(line for sentence in sentences for line in (f"- {sentence}",)),
        "",
        *commands("halves", data["models"]["full"]["command"]),
    ]


def _rows(data: dict[str, Any], figures: list[str], places: int) -> list[list[str]]:
    return [
        [model["title"], *(interval(model["figures"][figure], places) for figure in figures)]
        for model in data["models"].values()
    ]


def _heads(names: Sequence[str]) -> list[str]:
    return [
        f"{name}: {what}"
        for name in names
        for what in ("margin, nats", "reward margin", "accuracy")
    ]


def _measured(data: dict[str, Any], names: Sequence[str]) -> list[list[str]]:
    """Return a row for each model; the reward margin is paired with the base, so it has the interval that counts."""
    return [
        [model["title"], *(cell for name in names for cell in _cells(model["figures"], name))]
        for model in data["models"].values()
    ]


def _cells(figures: dict[str, Any], name: str) -> list[str]:
    margin, reward, right = (
        figures[f"{name}{part}"] for part in ("", ".reward_margin", ".accuracy")
    )
    return [f"{margin['value']:.2f}", interval(reward, 3), f"{right['value']:.3f}"]


def _changes(data: dict[str, Any], after: str, before: str, figures: list[str]) -> dict[str, Any]:
    return {
        entry["figure"]: entry["change"]
        for entry in data["differences"]
        if (entry["after"], entry["before"]) == (after, before) and entry["figure"] in figures
    }

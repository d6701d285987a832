"""The paper's claims, one after the other, each with the paper's figure beside ours."""

from __future__ import annotations

from typing import Any

from benchmarks.page import verdicts
from benchmarks.page.parts import interval, read, stage_command, table

TWO = ("helpful", "harmless")


def claims() -> list[str]:
    """Return every claim that has been measured."""
    found = [*grid(), *calibration(), *refusals(), *extension(), *halves(), *seeds(), *knowledge()]
    return ["## The paper's claims", "", *found] if found else []


def grid() -> list[str]:
    """Return the counterpart of Figure 2, and of the wall time of a sweep."""
    data = read("results/evidence/grid.json")
    if data is None:
        return []
    rho = data["spearman"]
    own = {name: rho[name][name] for name in TWO}
    rows = []
    for name in TWO:
        values = [point["figures"][name]["value"] for point in data["points"]]
        others = [f"{rho[axis][name]:+.2f}" for axis in TWO]
        rows.append([name, f"{min(values):.2f} … {max(values):.2f}", f"{data['base'][name]['value']:.2f}", *others])  # fmt: skip
    front = "; ".join(_point(point) for point in data["pareto"]["points"])
    took = f"{data['wall_s'] / 60:.1f} minutes in all, {data['measuring_s'] / 60:.1f} of them measuring" if data["wall_s"] else f"{data['measuring_s'] / 60:.1f} minutes of measuring"  # fmt: skip
    return [
        "### Smooth control of two preferences at once (Figure 2)",
        "",
        "![](images/heatmap-helpful.png) ![](images/heatmap-harmless.png)",
        "",
        f"Mean log-prob margin on {data['limit']} held-out pairs each, nats; ρ along each line of the grid, the mean of five.",
        "",
        *table(["measure", "range over the grid", "base", "ρ with η helpful", "ρ with η harmless"], rows),
        "The paper's (reward models, other scale): helpful −1.07 … 1.99, harmless −3.78 … 3.20, base 0.20 and −2.12, both monotone.",
        "",
        verdicts.monotone(own),
        "",
        f"Pareto front over {', '.join(data['pareto']['over'])}: {front} ([picture](images/pareto-helpful-harmless.png)).",
        "",
        f"The {len(data['points'])} points took {took}.{_timing(len(data['points']))}",
        "",
        *_commands("grid", data["command"]),
    ]  # fmt: skip


def _timing(points: int) -> str:
    data = read("results/evidence/timing.json")
    if data is None:
        return ""
    return (
        f" All but the measuring of a sweep of {data['points']} points takes {data['sweep_without_measuring_s']:.0f} s; "
        f"{data['points']} merges to disk by `mergekit-yaml` with a load each take {data['merges_and_loads_s']:.0f} s "
        f"({len(data['merge_s'])} measured, scaled): {data['ratio']:.3f} of it (`{stage_command('timing')}`)."
    )


def calibration() -> list[str]:
    """Return the suggested eta beside the best of the full grid, which the paper leaves open."""
    data = read("results/evidence/calibrate.json")
    if data is None:
        return []
    best, free = data["best"], data["best_without_bounds"]
    rows = [
        ["suggested", _point(data["suggested"]), f"{data['suggested_value']:.2f}", f"{data['evaluations']}"],
        ["best allowed of the full grid", _point(best["eta"]), f"{best['value']:.2f}", f"{data['points']}"],
        ["best if nothing were bounded", _point(free["eta"]), f"{free['value']:.2f}", f"{data['points']}"],
    ]  # fmt: skip
    bounds = ", ".join(f"`{text}`" for text in data["constraints"])
    return [
        "### A suggested η (left open by the paper)",
        "",
        f"Most {data['goal']}, subject to {bounds}: {best['allowed']} of {data['points']} points are allowed. "
        "The search was given the grid's own measurements, one by one as it asked for them.",
        "",
        *table(["", "η", data["goal"], "evaluations"], rows),
        verdicts.suggested(data),
        "",
        *_commands("calibrate", data["command"]),
    ]


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
        *_commands("refusals", data["models"]["full"]["command"]),
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
    rows = _rows(data, [*names, *(f"{name}.accuracy" for name in names)], 2)
    rows.append(["third vector's effect, paired", *(interval(step[name]) for name in names), "", "", ""])  # fmt: skip
    return [
        "### A third preference is added, nothing retrained (Table 4)",
        "",
        *table(["model", *(f"{name}, nats" for name in names), *(f"{name}, accuracy" for name in names)], rows),
        "The paper's 3B, helpful / safe / psychocounsel / honest: base 0.25 / −2.27 / −4.57 / −1.58; all four 1.01 / 2.67 / 6.10 / −0.07.",
        "",
        verdicts.extended(gains, before, "polite"),
        "",
        *_commands("extension", data["models"]["three"]["command"]),
    ]  # fmt: skip


def halves() -> list[str]:
    """Return the counterpart of Table 6, with the baselines that the data allows."""
    data = read("results/evidence/halves.json")
    if data is None:
        return []
    figures = [f"{name}{part}" for name in TWO for part in ("", ".reward_margin", ".accuracy")]
    heads = [f"{name} {what}" for name in TWO for what in ("margin, nats", "reward margin", "accuracy")]  # fmt: skip
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
        *table(["model", *heads], _rows(data, figures, 2)),
        "The paper's 8B, reward-model scores helpful / harmless: positive half 1.454 / 1.265, full vector 2.003 / 3.250, "
        "Reward Soup 1.814 / 5.573, DPO-safe-first 0.718 / −0.445.",
        "",
        *(line for sentence in sentences for line in (f"- {sentence}",)),
        "",
        *_commands("halves", data["models"]["full"]["command"]),
    ]


def seeds() -> list[str]:
    """Return the counterpart of Tables 8 and 17, and of Figure 6."""
    data = read("results/evidence/seeds.json")
    if data is None:
        return []
    labels = [f"seed {seed}" for seed in data["seeds"]]
    rows = [
        [label, *(f"{value:.4f}" for value in row)]
        for label, row in zip(labels, data["cosines"], strict=True)
    ]
    values = ", ".join(f"{value:.4g}" for value in data["eigenvalues"])
    return [
        "### Seeds agree (Tables 8 and 17, Figure 6)",
        "",
        f"Cosines between three vectors of {data['preference']}; the seed sets LoRA's first weights and the order of the pairs.",
        "",
        *table(["", *labels], rows),
        f"Eigenvalues of their Gram matrix: {values}. The paper's: cosines ≥ 0.998 (0.98 … 0.999 in Table 17), the first eigenvalue 10³ times the second.",
        "",
        verdicts.stable(data["cosines"], data["eigenvalues"]),
        "",
        f"`{stage_command('seeds')}`, which runs "
        + " and ".join(f"`{c}`" for c in data["commands"]),
        "",
    ]


def knowledge() -> list[str]:
    """Return the counterpart of Figure 5."""
    data = read("results/evidence/knowledge.json")
    if data is None:
        return []
    rows = []
    for point in data["points"]:
        found = point["figures"]
        nats = point["change_from_base"]["perplexity.nats"]
        rows.append([f"{point['eta']:g}", interval(found["perplexity"], 3), interval(nats, 4), interval(found["commonsenseqa"], 3)])  # fmt: skip
    return [
        "### Knowledge is kept (Figure 5)",
        "",
        *table(["η of both", "perplexity", "change, nats a token, paired", "CommonsenseQA"], rows),
        "![](images/knowledge.png)",
        "",
        "The paper's CommonsenseQA: about 0.65 up to η = 1.5, 0.60 at 2, 0.25 at 4.",
        "",
        verdicts.knowing(data["points"]),
        "",
        *_commands("knowledge", data["command"]),
    ]


def _rows(data: dict[str, Any], figures: list[str], places: int) -> list[list[str]]:
    return [
        [model["title"], *(interval(model["figures"][figure], places) for figure in figures)]
        for model in data["models"].values()
    ]


def _changes(data: dict[str, Any], after: str, before: str, figures: list[str]) -> dict[str, Any]:
    return {
        entry["figure"]: entry["change"]
        for entry in data["differences"]
        if (entry["after"], entry["before"]) == (after, before) and entry["figure"] in figures
    }


def _point(eta: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in eta.items())


def _commands(stage: str, command: str) -> list[str]:
    return [f"`{stage_command(stage)}`, which runs `{command}`", ""]

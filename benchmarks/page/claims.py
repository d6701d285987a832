"""The paper's claims, one after the other, each with the paper's figure beside ours."""

from __future__ import annotations

from benchmarks.page import verdicts
from benchmarks.page.comparisons import TWO, extension, halves, refusals
from benchmarks.page.parts import commands, interval, read, stage_command, table


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
        *commands("grid", data["command"]),
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
        *commands("calibrate", data["command"]),
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
        *commands("knowledge", data["command"]),
    ]


def _point(eta: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in eta.items())

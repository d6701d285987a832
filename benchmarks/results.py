"""``python -m benchmarks.results``: writes docs/results.md from the JSON files, and nothing else.

Every figure on that page comes from a file under ``benchmarks/``; a part whose file is missing is
left out, so a page can be made at any time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path("benchmarks")
CURVES = {
    "polite": "Polite, on this project's own pairs",
    "concise": "Concise, on this project's own pairs",
    "politeness": "Polite against rude, on text that no one here wrote (1000 pairs to train, 100 held out)",
    "harmless": "Harmless, on PKU-SafeRLHF pairs of which one answer is safe",
}


HELD_OUT = (
    "The held-out file is the last 100 rows: `python -c \"import json; rows = json.load(open('../shared/data/politeness/"
    "instruction-data-with-preference.json')); json.dump(rows[1000:], open('runs/politeness-heldout.json', 'w'))\"`"
)


def read(name: str) -> Any:
    """Return a JSON file under benchmarks/, or None."""
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else None


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join('---' for _ in heads)}|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def interval(entry: dict[str, float], places: int = 2) -> str:
    """Return a value with its 95 % interval."""
    return f"{entry['value']:.{places}f} [{entry['low']:.{places}f}, {entry['high']:.{places}f}]"


def curve(name: str, title: str) -> list[str]:
    """Return one control curve: margin against eta, and what the steps changed."""
    data = read(f"results/{name}.json")
    if data is None:
        return []
    (preference,) = data["axes"]
    rows = []
    for point in data["points"]:
        figures = point["figures"]
        rows.append(
            [
                f"{point['eta'][preference]:g}",
                interval(figures[preference]),
                interval(figures[f"{preference}.accuracy"]),
                interval(figures[f"{preference}.reward_margin"], 3),
            ]
        )
    steps = [
        f"{step['from']:g} → {step['to']:g}: {interval(step['change'])}"
        for step in data["steps"]
        if step["figure"] == preference and (step["from"], step["to"]) in ((-1, 0), (0, 1))
    ]
    rho = data["spearman"][preference][preference]
    return [
        f"### {title}",
        "",
        *table(["η", "mean log-prob margin, nats", "accuracy", "implicit reward margin"], rows),
        f"![](images/curve-{name}.png)",
        "",
        f"Paired difference of the margin, 95 % bootstrap interval: {'; '.join(steps)}. Spearman ρ {rho:.2f}.",
        "",
        f"`{data['command']}`",
        "",
        *([HELD_OUT, ""] if name == "politeness" else []),
    ]


def vectors() -> list[str]:
    """Return what the vectors are like, beside the paper's Tables 5, 15 and 16."""
    data = read("results/vectors.json")
    if data is None:
        return []
    names = [label.rpartition("/")[2] for label in data["cosines"]["labels"]]
    rows = [
        [name, f"{entry['norm']:.3f}", f"{entry['cosine_positive_negative']:+.3f}"]
        for name, entry in zip(names, data["vectors"].values(), strict=True)
    ]
    matrix = [
        [name, *(f"{value:+.3f}" for value in row)]
        for name, row in zip(names, data["cosines"]["matrix"], strict=True)
    ]
    return [
        "## The vectors",
        "",
        *table(["vector", "‖φ‖", "cos(θ+ − base, θ− − base)"], rows),
        "The paper's Table 5 has −0.47 … −0.71, of full fine-tuning of 3B and 8B models. Short LoRA runs of a small model stay "
        "where the two directions are nearly opposite.",
        "",
        "Cosines between vectors; *polite* and *politeness* come from different pairs, one ours, one not.",
        "",
        *table(["", *names], matrix),
        f"Singular task interference of all four: {data['interference']['mean']:.3g} (the paper's Table 16, other models and four "
        "other vectors: 2.33). Norms by layer: ![](images/vectors.png)",
        "",
        "`pv-merge inspect ./vectors/polite ./vectors/concise ./vectors/politeness ./vectors/harmless --plot docs/images/vectors.png --json`",
        "",
    ]


def rounding() -> list[str]:
    """Return the rounding table."""
    data = read("results/rounding.json")
    if data is None or "kept" not in data["rows"][-1]:
        return []
    rows = []
    for row in data["rows"]:
        choice = f"{row['commonsenseqa']:.3f}" if "commonsenseqa" in row else ""
        rows.append(
            [
                f"{row['eta']:g}",
                row["mode"],
                f"{row['kept']:.1%}",
                f"{row['perplexity']:.3f}",
                choice,
            ]
        )
    base = data["base"]
    return [
        "## What the output's dtype leaves of a preference",
        "",
        f"The polite vector on a bfloat16 base; base: perplexity {base['perplexity']:.3f}, "
        f"CommonsenseQA {base.get('commonsenseqa', float('nan')):.3f}.",
        "",
        *table(["η", "weights", "margin kept", "perplexity", "CommonsenseQA"], rows),
        f"`python -m benchmarks.rounding {data['recipe']} --pairs {data['pairs']}`",
        "",
    ]


def merging() -> list[str]:
    """Return the merging benchmark."""
    data = read("results.json")
    if data is None:
        return []
    lines = [
        "## Speed",
        "",
        f"{data['machine']['cores']} cores, {data['machine']['processor']}; medians, whole processes. "
        "The peak memory of a command shows at least what the benchmark's own process held when it started it "
        "(841 MB once it had made the 0.86B inputs).",
        "",
    ]
    for entry in data["merges"]:
        rows = [
            [
                name,
                f"{row['median_s']:.2f}",
                f"{row['of_task_arithmetic']:.3f}",
                f"{row['peak_mb']:.0f}",
            ]
            for name, row in entry["rows"].items()
        ]
        lines += [f"### {entry['size']}, {entry['preferences']} preferences", ""]
        lines += table(["command", "seconds", "× task_arithmetic float32", "peak MB"], rows)
        run = entry["rows"]["pv-merge run --no-report"]
        lines += [
            f"Without imports, `pv-merge run --no-report` takes {run['without_imports_of_limit']:.2f} of reading and writing the files.",
            "",
        ]
    for entry in data["grids"]:
        lines += [
            f"A grid of {entry['points']} points ({entry['size']}): to disk {entry['to_disk_of_stock']:.3f} of as many stock merges, "
            f"in memory {entry['in_memory_of_stock']:.3f} of as many merges and loads.",
            "",
        ]
    live = data["live"]
    lines += [
        f"The switch on a live model: dense {live['dense_rate_of_add']:.2f} of the rate of a plain `add_` over the same bytes; "
        f"low-rank {live['low_rank_set_ms']:.2f} ms.",
        "",
        "Start-up: "
        + ", ".join(f"`{name}` {row['median_s']:.2f} s" for name, row in data["start_up"].items())
        + ".",
        "",
        f"`{data['command']}`",
        "",
    ]
    return lines


def controls() -> list[str]:
    """Return what each control adds to the time of a merge."""
    data = read("results/controls.json")
    if data is None:
        return []
    rows = [[name, f"{ratio:.2f}"] for name, ratio in data["ratios"].items()]
    return [
        "## What each control costs",
        "",
        *table(["control", "× plain, 135M in `pv-merge run`"], rows),
        f"`{data['command']}`",
        "",
    ]


def training() -> list[str]:
    """Return the training benchmark: our trainer against plain TRL runs of the same config."""
    data = read("training.json")
    if data is None:
        return []
    rows = [
        [
            what,
            f"{ratio:.2f}",
            f"{data['ratios_of_cpu_time'][what]:.2f}",
            f"{data['targets'][what]:.2f}",
        ]
        for what, ratio in data["ratios"].items()
    ]
    return [
        "## Training",
        "",
        f"`pv-train dpo` against as many plain `trl` runs of the same config, {data['steps']} steps of {data['pairs_a_step']} pairs, "
        f"{data['machine']['device']} (busy with other work, so the ratio of processor time is the steadier one).",
        "",
        *table(["what", "wall time, ours / TRL", "processor time, ours / TRL", "target"], rows),
        f"Largest difference of a step's loss: {data['largest_difference_of_a_step_loss']:.1e}. `{data['command']}`",
        "",
    ]


def main() -> None:
    """Write the page."""
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks.results` from the JSON files under `benchmarks/`. The model is SmolLM2-135M-Instruct "
        "(the 4-bit weights that `pv-merge fetch` takes from the package index), all in float32 unless a table says otherwise.",
        "",
        "## Control curves",
        "",
        "Held-out pairs: log-prob of the chosen answer less that of the rejected one, by η.",
        "",
    ]
    for name, title in CURVES.items():
        lines += curve(name, title)
    lines += [*vectors(), *rounding(), *controls(), *merging(), *training()]
    Path("docs/results.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()

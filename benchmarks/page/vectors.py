"""Control curves, the vectors themselves, and what rounding leaves of them."""

from __future__ import annotations

from benchmarks.page import verdicts
from benchmarks.page.parts import interval, read, stage_command, table

CURVES = {
    "polite": "Polite, on this project's own pairs",
    "concise": "Concise, on this project's own pairs",
    "politeness": "Polite against rude, on text that no one here wrote (1000 pairs to train, 100 held out)",
    "helpful": "Helpful, on Anthropic's HH pairs",
    "harmless": "Harmless, on PKU-SafeRLHF pairs of which one answer is safe",
}


HELD_OUT = (
    "The held-out file is the last 100 rows: `python -c \"import json; rows = json.load(open('../shared/data/politeness/"
    "instruction-data-with-preference.json')); json.dump(rows[1000:], open('runs/politeness-heldout.json', 'w'))\"`"
)


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
        f"Singular task interference of all {len(names)}: {data['interference']['mean']:.3g}. Norms by layer: ![](images/vectors.png)",
        "",
        f"`pv-merge inspect {' '.join('./' + label for label in data['cosines']['labels'])} --plot docs/images/vectors.png --json`",
        "",
        *together(),
    ]


def together() -> list[str]:
    """Return whether Tables 5, 15 and 16 hold here."""
    data = read("results/evidence/cosines.json")
    if data is None:
        return []
    sets = data["sets"].values()
    paper = {2: "0.41", 3: "1.08 … 1.16", 4: "2.33"}
    rows = [
        [
            " + ".join(found["vectors"]),
            f"{found['mean']:.3g}",
            paper[len(found["vectors"])],
            f"{found['sign_disagreement']:.1%}",
        ]
        for found in sets
    ]
    return [
        "### Opposite, agreeing in part, interfering (Tables 5, 15, 16)",
        "",
        f"- Table 5: {verdicts.opposed(data['positive_negative'])}",
        f"- Table 15: {verdicts.agreeing(data['sets']['two']['cosines'][0][1])}",
        f"- Table 16: {verdicts.interfering([found['mean'] for found in sets])}",
        "",
        *table(["vectors", "STI, rank 8", "the paper's, as many vectors", "signs disagree"], rows),
        f"`{stage_command('cosines')}`",
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

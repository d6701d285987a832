"""Merging, its controls, and training, in seconds."""

from __future__ import annotations

from benchmarks.page.parts import read, table


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

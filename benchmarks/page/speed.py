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
        f"{data['machine']['cores']} cores, {data['machine']['processor']}; medians, whole processes, files in the page cache.",
        "",
        "![](images/speed.png)",
        "",
    ]
    for entry in data["merges"]:
        rows = [
            [
                name,
                f"{row['median_s']:.2f}",
                f"{row['of_task_arithmetic']:.3f}",
                f"{row['peak_anonymous_mb']:.0f}",
            ]
            for name, row in entry["rows"].items()
        ]
        lines += [f"### {entry['size']}, {entry['preferences']} preferences", ""]
        lines += table(
            ["command", "seconds", "× task_arithmetic float32", "peak anonymous MB"], rows
        )
        run = entry["rows"]["pv-merge run --no-report"]
        lines += [
            f"`pv-merge run` with its report takes {entry['rows']['pv-merge run']['of_limit']:.2f} of reading and writing the files, imports included; "
            f"without report and imports {run['without_imports_of_limit']:.2f}. A dense `extract` takes {entry['rows']['pv-merge extract, dense']['of_limit']:.2f} of that for its three inputs. "
            f"The largest tensor has {entry['largest_tensor_mb']} MB in bfloat16.",
            "",
        ]
    lines += ["### Grids", ""]
    lines += table(
        ["points", "to disk, × as many stock merges", "in memory, × as many merges and loads"],
        [
            [f"{entry['points']} ({entry['size']})", f"{entry['to_disk_of_stock']:.3f}", f"{entry['in_memory_of_stock']:.3f}"]
            for entry in data["grids"]
        ],
    )  # fmt: skip
    for entry in data["adapters"]:
        lines += [f"### {entry['size']}, {entry['preferences']} preferences as adapters of rank {entry['rank']}", ""]  # fmt: skip
        lines += table(
            ["command", "seconds", "× PEFT", "peak anonymous MB"],
            [
                [name, f"{row['median_s']:.2f}", f"{row['of_peft']:.3f}", f"{row['peak_anonymous_mb']:.0f}"]
                for name, row in entry["rows"].items()
            ],
        )  # fmt: skip
    for entry in data["large"]:
        lines += [f"### {entry['size']}, {entry['preferences']} dense vectors, ours alone", ""]
        lines += table(
            ["command", "seconds", "× reading and writing (cat, cp)", "peak anonymous MB"],
            [
                [name, f"{row['median_s']:.2f}", f"{row['of_limit']:.2f}", f"{row['peak_anonymous_mb']:.0f}"]
                for name, row in entry["rows"].items()
            ],
        )  # fmt: skip
        lines += [f"A disk of 7 GB/s would bound these {entry['bytes'] / 1e9:.0f} GB at {entry['nvme_s']:.1f} s.", ""]  # fmt: skip
    first = data["first_merge"]
    live = data["live"]
    lines += [
        f"The first merge on a machine, which compiles the kernels, takes {first['first']['median_s']:.1f} s; the second {first['second']['median_s']:.1f} s.",
        "",
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


def spent() -> list[str]:
    """Return where the time of a merge goes, and what fusing would give."""
    data = read("results/spent.json")
    if data is None:
        return []
    run, block = data["run"], data["block"]
    other = run["workers in all"] - run["reading"] - run["arithmetic"] - run["writing"]
    rows = [[part, f"{run[part]:.2f}"] for part in ("reading", "arithmetic", "writing")]
    rows += [["the calls between them", f"{other:.2f}"]]
    eager, warm, cold = (block[name] for name in ("eager", "compiled warm", "compiled cold"))
    saved = eager["ns_an_element"] - warm["ns_an_element"]
    return [
        "## Where the time of a merge goes",
        "",
        *table([f"part ({data['size']}, 2 preferences)", "processor seconds, both workers"], rows),
        f"Wall time without imports {run['wall']:.2f} s. The arithmetic runs eagerly, block by block, at "
        f"{eager['ns_an_element']:.1f} ns a weight and core. `torch.compile` fuses the same functions into "
        f"{warm['ns_an_element']:.1f} ns, with the same bits, but takes {warm['start_s']:.1f} s to start, {cold['start_s']:.0f} s "
        f"without a cache: with two workers that pays from {2 * warm['start_s'] / saved:.0f} billion weights on, where reading "
        "from a disk is the limit anyway. So it is not used.",
        "",
        f"`{data['command']}`",
        "",
    ]


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
    """Return the training benchmark: ours against TRL in its best mode and as it comes."""
    data = read("training.json")
    if data is None or "data" not in data:
        return []
    rows = []
    for name, found in data["data"].items():
        for what, ratios in found["ratios"].items():
            times = [
                f"{ratios[f'pv-train / {peer}'][key]:.2f}"
                for peer in ("TRL, best", "TRL, default")
                for key in ("seconds", "cpu_seconds")
            ]
            target = f"{found['target']:.2f}" if what == "a pair" else ""
            rows.append([f"{name}, {what}", *times, target])
    headings = ["wall, of TRL's best mode", "CPU", "wall, of TRL as it comes", "CPU", "target"]
    furthest = max(found["largest_difference_of_a_step_loss"] for found in data["data"].values())
    return [
        "## Training",
        "",
        f"`pv-train dpo` against TRL alone, {data['steps']} steps of {data['pairs_a_step']} pairs, {data['machine']['device']}. "
        "TRL's best mode precomputes the reference and groups rows by length.",
        "",
        *table(["what", *headings], rows),
        f"Largest difference of a step's loss: {furthest:.1e}. `{data['command']}`",
        "",
    ]

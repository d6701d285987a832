"""The benchmark's results, as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def table(results: dict[str, Any]) -> None:
    """Print every row."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for entry in results["merges"]:
        shown = Table(title=f"{entry['size']}, {entry['preferences']} preferences")
        for name in ("command", "median s", "× task_arithmetic float32", "peak anonymous MB"):
            shown.add_column(name, justify="left" if name == "command" else "right")
        for name, row in entry["rows"].items():
            shown.add_row(
                name,
                f"{row['median_s']:.2f}",
                f"{row['of_task_arithmetic']:.3f}",
                f"{row['peak_anonymous_mb']:.0f}",
            )
        console.print(shown)
    for entry in results["grids"]:
        console.print(
            f"{entry['points']} points: to disk {entry['to_disk_of_stock']:.3f} of as many stock merges, "
            f"in memory {entry['in_memory_of_stock']:.3f} of as many merges and loads"
        )
    for entry in results["adapters"]:
        rows = {name: row["of_peft"] for name, row in entry["rows"].items()}
        console.print(f"{entry['preferences']} preferences as adapters, × PEFT: {rows}")
    console.print(results["live"])
    console.print({name: row["median_s"] for name, row in results["start_up"].items()})


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the cost against the number of preferences and the size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first = results["merges"][0]["size"]
    series = [entry for entry in results["merges"] if entry["size"] == first]
    sizes = [entry for entry in results["merges"] if entry["preferences"] == 2]
    names = [name for name in series[0]["rows"] if "imports" not in name]
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4))
    for name in names:
        style = "--" if "cat" in name else "-"
        by_number = [entry for entry in series if name in entry["rows"]]
        by_size = [entry for entry in sizes if name in entry["rows"]]
        axes[0].plot(
            [entry["preferences"] for entry in by_number],
            [entry["rows"][name]["median_s"] for entry in by_number],
            marker="o", linestyle=style, label=name,
        )  # fmt: skip
        axes[1].plot(
            [entry["parameters"] / 1e9 for entry in by_size],
            [entry["rows"][name]["median_s"] for entry in by_size],
            marker="o", linestyle=style,
        )  # fmt: skip
    axes[0].set_xlabel(f"preferences ({first})")
    axes[1].set_xlabel("parameters, billions (2 preferences)")
    for key, label in (("to_disk_of_stock", "to disk"), ("in_memory_of_stock", "in memory")):
        axes[2].plot(
            [entry["points"] for entry in results["grids"]],
            [entry[key] for entry in results["grids"]],
            marker="o", label=label,
        )  # fmt: skip
    axes[2].set_xlabel("points of a grid")
    axes[2].set_ylabel("× as many stock merges (and loads)")
    for axis in axes[:2]:
        axis.set_ylabel("seconds, whole process")
    for axis in axes:
        axis.set_yscale("log")
    axes[0].legend(fontsize=7)
    axes[2].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)

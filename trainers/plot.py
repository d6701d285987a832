"""The curves of a training as a picture: loss, accuracy, margin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PANELS = (
    ("loss", "loss", "loss"),
    ("rewards/accuracies", "accuracy", "pairs with the chosen answer ahead"),
    ("rewards/margins", "margin", "chosen − rejected reward (nats × beta)"),
    ("accuracy", "accuracy", "pairs with the chosen answer ahead"),
    ("margin", "margin", "chosen − rejected score"),
    ("mean_token_accuracy", "token accuracy", "tokens predicted right"),
)
"""(key in TRL's log, title, what the axis shows)"""


def draw(log: list[dict[str, Any]], path: Path) -> None:
    """Draw a training's log as a PNG at ``path``; nothing if the log has no step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [panel for panel in PANELS if any(panel[0] in entry for entry in log)][:3]
    if not panels:
        return
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (key, title, unit) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        train = [(entry["step"], float(entry[key])) for entry in log if key in entry]
        held_out = [(e["step"], float(e[f"eval_{key}"])) for e in log if f"eval_{key}" in e]
        steps, values = zip(*train, strict=True)
        smooth = _smoothed(list(values))
        axes.plot(steps, values, color="#9db4d0", linewidth=1, label="step")
        axes.plot(steps, smooth, color="#1f4e8c", linewidth=2, label="running mean")
        if held_out:
            axes.plot(*zip(*held_out, strict=True), "o", color="#c8553d", label="held out")
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(unit, fontsize=8)
        axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _smoothed(values: list[float]) -> list[float]:
    """Return the mean over the steps around each, an eighth of the run wide."""
    half = max(1, len(values) // 16)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]

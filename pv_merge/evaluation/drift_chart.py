"""The picture of a fine-tune's drift: its cosine with each vector, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pv_merge.merging.drift import Drift


def draw_drift(found: Drift, path: str) -> None:
    """Write a PNG: a line for each vector over the layers, and the band of random directions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.0, 4.2))
    for label, entry in found["vectors"].items():
        layers = {int(key): value for key, value in entry["layers"].items() if key.isdigit()}
        places = sorted(layers)
        heights = [layers[place]["cosine"] for place in places]
        (line,) = axes.plot(places, heights, marker="o", markersize=3, label=label)
        band = [2 * layers[place]["spread"] for place in places]
        axes.fill_between(places, [-b for b in band], band, color=line.get_color(), alpha=0.15)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("layer")
    axes.set_ylabel("cosine of the move with φ")
    axes.set_title("shaded: two standard deviations of random directions", fontsize=9)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)

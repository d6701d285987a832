"""The picture of an inspection: norms by layer, and the cosines of several vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import replacing
from pv_merge.errors import PvMergeError


def draw_inspection(figures: Mapping[str, Any], path: str) -> None:
    """Write a PNG: norms by layer as bars, and the cosines of several vectors as a heat map."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    several = "cosines" in figures
    size = (11.0, 4.2) if several else (7.0, 4.2)
    figure, axes = plt.subplots(
        1,
        2 if several else 1,
        figsize=size,
        squeeze=False,
        gridspec_kw={"width_ratios": [3, 2] if several else [1]},
    )
    bars = axes[0][0]
    vectors = figures["vectors"]
    layers = [key for key in next(iter(vectors.values()))["norm_by_layer"] if key.isdigit()]
    width = 0.8 / len(vectors)
    for index, (label, entry) in enumerate(vectors.items()):
        heights = [entry["norm_by_layer"].get(layer, 0.0) for layer in layers]
        places = [int(layer) + (index - (len(vectors) - 1) / 2) * width for layer in layers]
        bars.bar(places, heights, width=width, label=label)
    bars.set_xlabel("layer")
    bars.set_ylabel("‖φ‖ of the layer")
    bars.legend(fontsize=8)
    if several:
        heat = axes[0][1]
        labels, matrix = figures["cosines"]["labels"], figures["cosines"]["matrix"]
        image = heat.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
        heat.set_xticks(range(len(labels)), labels, rotation=30, ha="right", fontsize=8)
        heat.set_yticks(range(len(labels)), labels, fontsize=8)
        for row, values in enumerate(matrix):
            for column, value in enumerate(values):
                colour = "white" if abs(value) > 0.6 else "black"
                heat.text(
                    column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9
                )
        heat.set_title("cosines", fontsize=10)
        figure.colorbar(image, ax=heat, shrink=0.8)
    figure.tight_layout()
    kind = Path(path).suffix.removeprefix(".").lower() or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise PvMergeError(
            f"{path}: a picture cannot be written as {kind}; name a .png, .svg or .pdf"
        )
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=130, format=kind)
    plt.close(figure)

"""The inner products of a loss report, in torch: for accelerators, and for models already on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pv_merge.merging.loss import Products


def products(
    labels: Sequence[str], base: Tensor, steps: Mapping[str, Tensor], out: Tensor
) -> Products:
    """Return the inner products of one block (all flat), for the preferences ``labels``.

    ``steps`` holds η·φ of the preferences that move.
    """
    origin = base.float()
    change = out.to(torch.float32, copy=True).sub_(origin)
    gram, reached = np.zeros((len(labels), len(labels))), np.zeros(len(labels))
    moving = [(index, steps[name]) for index, name in enumerate(labels) if name in steps]
    for p, step in moving:
        reached[p] = float(torch.dot(change, step))
        for q, other in moving:
            if q >= p:
                gram[p, q] = gram[q, p] = float(torch.dot(step, other))
    return Products(
        float(torch.dot(origin, origin)), gram, reached, float(torch.dot(change, change))
    )

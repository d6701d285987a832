"""How much of each intended step arrived, from inner products alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def shares(gram: Sequence[Sequence[float]], reached: Sequence[float]) -> list[float]:
    """Return how much of each step arrived: c that minimizes ‖r − Σ c_p s_p‖.

    ``gram[p][q]`` is ⟨s_p, s_q⟩ of the intended steps s = η·φ, ``reached[p]`` is ⟨r, s_p⟩ of the
    change r that the output shows. Steps that are zero get the share 1, those that are not finite
    (where the base's values stayed) the share 0.
    """
    matrix = np.array(gram, np.float64).reshape(len(reached), len(reached))
    wanted = np.array(reached, np.float64)
    finite = np.isfinite(matrix.diagonal()) & np.isfinite(wanted)
    moving = np.flatnonzero((matrix.diagonal() > 0) & finite)
    result = np.where(finite, 1.0, 0.0)
    if moving.size:
        part = matrix[np.ix_(moving, moving)]
        result[moving] = np.linalg.lstsq(part, wanted[moving], rcond=None)[0]
    return [float(value) for value in result]

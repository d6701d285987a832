"""A response surface over eta: a figure and its uncertainty, interpolated from few points.

A Gaussian process (Rasmussen and Williams 2006, algorithm 2.1) whose kernel is a quadratic in eta
plus a smooth remainder. What eta does to a figure is near linear, bends at the ends, and carries no
noise (the same items are measured at every point), so a quadratic explains nearly all after a
handful of points and the remainder takes up the bend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

LENGTHS = (0.35, 0.7, 1.4)
"""Length scales tried for the remainder, in units of each axis's half range."""
SHARES = (0.02, 0.1, 0.5)
"""Variances tried for the remainder, beside a quadratic of about 1."""
NOISE = 1e-4
"""Variance of what neither explains; figures are scaled to variance 1."""


@dataclass(frozen=True)
class Surface:
    """A fitted surface."""

    points: np.ndarray
    """Shape: (measured points, preferences), each axis scaled to −1 … 1."""
    values: np.ndarray
    """Scaled to mean 0, variance 1."""
    centre: float
    scale: float
    length: float
    share: float

    def predict(self, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the expected figure and its standard deviation at each row of ``where``."""
        inner = kernel(self.points, self.points, self.length, self.share)
        root = np.linalg.cholesky(inner + NOISE * np.eye(len(self.points)))
        cross = kernel(where, self.points, self.length, self.share)
        weights = np.linalg.solve(root.T, np.linalg.solve(root, self.values))
        reduced = np.linalg.solve(root, cross.T)
        square = (where**2).sum(axis=1)
        own = 1.0 + square + 0.25 * square**2 + self.share  # the diagonal of kernel(where, where)
        variance = np.maximum(own - (reduced**2).sum(axis=0), 0.0)
        return cross @ weights * self.scale + self.centre, np.sqrt(variance) * self.scale


def fit(points: np.ndarray, values: np.ndarray) -> Surface:
    """Return the surface through ``values`` at ``points``, with the likeliest remainder."""
    centre = float(values.mean())
    scale = float(values.std()) or 1.0
    scaled = (values - centre) / scale
    choices = [(length, share) for length in LENGTHS for share in SHARES]
    length, share = max(choices, key=lambda choice: _log_likelihood(points, scaled, *choice))
    return Surface(points, scaled, centre, scale, length, share)


def kernel(left: np.ndarray, right: np.ndarray, length: float, share: float) -> np.ndarray:
    """Return the covariance of a quadratic plus a smooth remainder. Shape: (left, right)."""
    inner = left @ right.T
    square = ((left[:, None, :] - right[None, :, :]) ** 2).sum(axis=2)
    found: np.ndarray = 1.0 + inner + 0.25 * inner**2 + share * np.exp(-0.5 * square / length**2)
    return found


def expected_gain(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Return the expected improvement over ``best`` (Jones et al. 1998, Eq. 15); more is better."""
    safe = np.maximum(deviation, 1e-12)
    z = (mean - best) / safe
    gain: np.ndarray = np.maximum((mean - best) * norm.cdf(z) + safe * norm.pdf(z), 0.0)
    return gain


def _log_likelihood(points: np.ndarray, values: np.ndarray, length: float, share: float) -> float:
    covariance = kernel(points, points, length, share) + NOISE * np.eye(len(points))
    root = np.linalg.cholesky(covariance)
    half = np.linalg.solve(root, values)
    return float(-0.5 * half @ half - np.log(np.diag(root)).sum())

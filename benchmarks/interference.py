"""Ways to add up four real vectors, compared at equal perplexity: an ablation.

    python -m benchmarks.interference          # goes on where it was stopped

Each way makes one change of each weight out of polite, concise, harmless and helpful; it is put on the
base at two scales. What counts is the sum of the gains in held-out margin, each in units of what the vector
gains alone at eta 1, at the perplexity that the plain sum has at scale 1.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pv_merge
from benchmarks.commands import command_line
from benchmarks.fine_tuned import BASE, DATA
from benchmarks.rounding import write_text
from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.arithmetic.preference import consensus, orthogonalize
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.live.subject import Subject, load_subject
from pv_merge.merging.policy_pair import PolicyPair

RESULT = Path("benchmarks/results/interference.json")
POLICIES = {
    "polite": Path("recipes/quickstart/policies/polite"),
    "concise": Path("recipes/quickstart/policies/concise"),
    "harmless": Path("benchmarks/policies/harmless"),
    "helpful": Path("benchmarks/policies/helpful"),
}
PAIRS = {
    "polite": Path("recipes/quickstart/data/polite-heldout.jsonl"),
    "concise": Path("recipes/quickstart/data/concise-heldout.jsonl"),
    "harmless": DATA / "pku-saferlhf/harmless-test.jsonl",
    "helpful": DATA / "hh-rlhf/helpful-test.jsonl",
}
SCALES = (1.0, 1.5)
KEPT = 0.5
"""DARE's share of elements that stay, divided by it."""
Way = Callable[[str, Sequence[LowRank]], Tensor]


def plain(name: str, phis: Sequence[LowRank]) -> Tensor:
    """Σ φ."""
    return torch.stack([phi.dense() for phi in phis]).sum(0)


def orthogonal(name: str, phis: Sequence[LowRank]) -> Tensor:
    """Σ of what each φ has besides those before it (``interference: orthogonal``)."""
    return torch.stack(orthogonalize([phi.dense() for phi in phis])).sum(0)


def elected(name: str, phis: Sequence[LowRank]) -> Tensor:
    """Σ of the elements that have the elected sign (``sign_consensus: sum``, as in TIES)."""
    return consensus([phi.dense() for phi in phis], "sum")


def dropped(name: str, phis: Sequence[LowRank]) -> Tensor:
    """DARE: half of the elements at random, twice as large."""
    draw = torch.Generator().manual_seed(sum(name.encode()))
    masks = [torch.rand(phi.dense().shape, generator=draw) < KEPT for phi in phis]
    return torch.stack([p.dense() * m / KEPT for p, m in zip(phis, masks, strict=True)]).sum(0)


def decorrelated(top: int | None) -> Way:
    """TSV-Merge (Gargiulo et al. 2025): singular vectors of all φ made orthogonal to each other.

    Each φ keeps ``top`` of its singular directions, or all.
    """

    def way(name: str, phis: Sequence[LowRank]) -> Tensor:
        parts = [_svd(phi, top) for phi in phis]
        left, right = (torch.cat([part[i] for part in parts], dim=1) for i in (0, 2))
        values = torch.cat([part[1] for part in parts])
        found = (_nearest_orthogonal(left) * values) @ _nearest_orthogonal(right).T
        return (found.T if phis[0].transposed else found).float()

    return way


def _svd(phi: LowRank, top: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, σ and V of ``scale · B @ A``, by way of its thin factors, in float64."""
    q1, r1 = torch.linalg.qr(phi.b.double())
    q2, r2 = torch.linalg.qr(phi.a.double().T)
    u, s, vt = torch.linalg.svd(r1 @ r2.T * phi.scale)
    kept = slice(0, top)
    return q1 @ u[:, kept], s[kept], q2 @ vt.T[:, kept]


def _nearest_orthogonal(matrix: Tensor) -> Tensor:
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt


WAYS: dict[str, Way] = {
    "sum": plain,
    "orthogonal": orthogonal,
    "sign consensus (TIES)": elected,
    "DARE": dropped,
    "TSV, all directions": decorrelated(None),
    "TSV, a quarter of them": decorrelated(2),
}


class Model:
    """The base in memory, and the four vectors."""

    def __init__(self, limit: int) -> None:
        text = Path("runs/interference/alpaca-answers.txt")
        write_text(DATA, text)
        self.subject: Subject = load_subject(BASE)
        self.state = self.subject.model.state_dict()
        pairs = {name: PolicyPair(p / "positive", p / "negative") for name, p in POLICIES.items()}
        self.phis = {
            weight: {name: pair.change(weight) for name, pair in pairs.items()}
            for weight in Checkpoint(BASE).names
            if all(pair.positive.change(weight) is not None for pair in pairs.values())
        }
        self.base = {name: self.state[name].clone() for name in self.phis}
        self.measures = [
            pv_merge.measure("pairs", f"{name}={path}", limit=limit) for name, path in PAIRS.items()
        ]
        self.measures.append(pv_merge.measure("perplexity", f"text={text}", limit=8))

    @torch.no_grad()
    def measured(self, change: Callable[[str], Tensor | None]) -> dict[str, float]:
        """Return the mean margins, and nats a token, with a change of every weight."""
        for name, weight in self.base.items():
            moved = change(name)
            self.state[name].copy_(weight if moved is None else weight + moved)
        found = {}
        for measure in self.measures:
            record = measure.measure(self.subject, None, lambda count: None)
            for key, values in measure.items(record, None).items():
                if key in POLICIES or key.endswith(".nats"):
                    found[key] = float(np.mean(values))
        return found

    def way(self, name: str, scale: float) -> dict[str, float]:
        """Measure a way at a scale."""
        make = WAYS[name]
        return self.measured(lambda weight: scale * make(weight, list(self.phis[weight].values())))


def at_equal_perplexity(
    points: Mapping[str, Mapping[str, float]], result: Mapping[str, Any]
) -> dict[str, float]:
    """Return each preference's gain at the plain sum's perplexity, of what its vector gains alone."""
    base, alone = result["base"], result["alone"]
    goal = result["ways"]["sum"]["1"]["text.nats"]
    order = sorted(points, key=float)
    scales = [0.0, *map(float, order)]
    nats = [base["text.nats"], *(points[key]["text.nats"] for key in order)]
    scale = float(np.interp(goal, nats, scales)) if nats == sorted(nats) else math.nan
    shares = {}
    for name in POLICIES:
        gains = [0.0, *(points[key][name] - base[name] for key in order)]
        own = alone[name] - base[name]
        shares[name] = float(np.interp(scale, scales, gains)) / own
    return {"scale": scale, **shares, "mean": sum(shares.values()) / len(shares)}


def main() -> None:
    """Measure what is missing; keep the result after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=16, help="pairs of each preference")
    limit = parser.parse_args().limit
    result: dict[str, Any] = {"command": command_line("benchmarks.interference"), "limit": limit}
    if RESULT.exists():
        held = json.loads(RESULT.read_text(encoding="utf-8"))
        result = held if held["limit"] == limit else result
    model = Model(limit)

    def keep() -> None:
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")

    if "base" not in result:
        result["base"] = model.measured(lambda weight: None)
        keep()
    for name in POLICIES:
        if name not in result.setdefault("alone", {}):
            found = model.measured(lambda weight, name=name: model.phis[weight][name].dense())
            result["alone"][name] = found[name]
            keep()
    for scale in SCALES:
        for name in WAYS:
            points = result.setdefault("ways", {}).setdefault(name, {})
            if f"{scale:g}" not in points:
                points[f"{scale:g}"] = model.way(name, scale)
                keep()
                print(f"{name} at {scale:g}: {points[f'{scale:g}']}", flush=True)
    result["equal"] = {
        name: at_equal_perplexity(points, result) for name, points in result["ways"].items()
    }
    keep()


if __name__ == "__main__":
    main()

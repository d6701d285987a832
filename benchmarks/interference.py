"""Ways to add up four real vectors, compared at equal gains: an ablation.

    python -m benchmarks.interference          # goes on where it was stopped

Each way makes one change of each weight out of polite, concise, harmless and helpful; it is put on the
base at two scales. A way that changes the balance between preferences changes perplexity by that alone,
so two are compared fairly where both gain the same in every preference: the etas of a plain sum
are found that gain what a way gains, and the perplexities are set side by side.
"""

from __future__ import annotations

import argparse
import json
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
MATCHED = (("TSV, all directions", "1.5"), ("TSV, a quarter of them", "1.5"))
"""Ways whose gains a plain sum is made to have, with their scale."""
STEPS = 2
Array = np.ndarray
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

    def mix(self, etas: Mapping[str, float]) -> dict[str, float]:
        """Measure the plain sum at these etas."""
        return self.measured(
            lambda weight: torch.stack(
                [eta * self.phis[weight][name].dense() for name, eta in etas.items()]
            ).sum(0)
        )

    def way(self, name: str, scale: float) -> dict[str, float]:
        """Measure a way at a scale."""
        make = WAYS[name]
        return self.measured(lambda weight: scale * make(weight, list(self.phis[weight].values())))


def gains(figures: Mapping[str, float], result: Mapping[str, Any]) -> Array:
    """Return the gain in margin of each preference."""
    return np.array([figures[name] - result["base"][name] for name in POLICIES])


def matched(model: Model, way: str, scale: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return the etas at which a plain sum gains what a way gains, and what that costs.

    Gains are close to linear in the etas: a first solution by what each vector does alone, to all four
    margins, then steps that make up for what it missed.
    """
    goal = gains(result["ways"][way][scale], result)
    effects = np.array([gains(result["alone"][name], result) for name in POLICIES])
    etas = np.linalg.solve(effects.T, goal)
    for _ in range(STEPS):
        found = model.mix(dict(zip(POLICIES, etas.tolist(), strict=True)))
        reached = gains(found, result)
        missed = float(np.abs((goal - reached) / gains_alone(result)).max())
        said = {
            "etas": dict(zip(POLICIES, etas.tolist(), strict=True)),
            "missed": missed,
            "nats": found["text.nats"] - result["base"]["text.nats"],
            "nats_of_the_way": result["ways"][way][scale]["text.nats"]
            - result["base"]["text.nats"],
        }
        print(f"plain sum matched to {way} at {scale}: {said}", flush=True)
        etas = etas + np.linalg.solve(effects.T, goal - reached)
    return said


def gains_alone(result: Mapping[str, Any]) -> Array:
    """Return what each vector gains in its own margin, alone at eta 1."""
    return np.array([result["alone"][name][name] - result["base"][name] for name in POLICIES])


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
            result["alone"][name] = found
            keep()
    for scale in SCALES:
        for name in WAYS:
            points = result.setdefault("ways", {}).setdefault(name, {})
            if f"{scale:g}" not in points:
                points[f"{scale:g}"] = model.way(name, scale)
                keep()
                print(f"{name} at {scale:g}: {points[f'{scale:g}']}", flush=True)
    for way, scale in MATCHED:
        if way not in result.setdefault("matched", {}):
            result["matched"][way] = {"scale": scale, **matched(model, way, scale, result)}
            keep()
    keep()


if __name__ == "__main__":
    main()

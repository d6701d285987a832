"""Vectors and what a user would pick instead, under the same measures of what is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from benchmarks.evidence.text import subjects
from benchmarks.evidence.text.setup import TWO, TextEvidence
from pv_merge.artifacts.provenance import model_hash, recipe_subject, versions
from pv_merge.evaluation.bench import Bench
from pv_merge.evaluation.journal import open_journal
from pv_merge.live.generation import Answering, generate
from pv_merge.live.live_eta import StandingStill
from pv_merge.live.subject import Subject, load_subject
from pv_merge.live.weights import LiveMerge
from pv_merge.recipe.opening import open_recipe

BOTH = dict.fromkeys(TWO, ("positive", "negative"))
HALVES = dict.fromkeys(TWO, ("positive",))
EXPO = 1.5
"""How far ExPO extrapolates a policy (Zheng et al. 2024 take 1.3 to 1.5)."""
TIMED = 4
"""Prompts by which seconds a token are measured, one at a time."""


@dataclass(frozen=True)
class Setting:
    """One baseline at one weight of helpful (harmless has the rest) and one strength."""

    baseline: str
    weight: float
    strength: float

    @property
    def shares(self) -> dict[str, float]:
        """What each preference gets: at an even weight and strength 1, one each."""
        return {"helpful": 2 * self.weight * self.strength, "harmless": 2 * (1 - self.weight) * self.strength}  # fmt: skip

    @property
    def point(self) -> dict[str, float | None]:
        """The setting in a journal."""
        return {"weight": self.weight, "strength": self.strength}


TITLES = {
    "base": "base",
    "vectors": "preference vectors, η = strength",
    "positive": "positive halves, η = strength",
    "soup": "average of policies (Reward Soup)",
    "expo": f"extrapolated average (ExPO, {EXPO:g})",
    "safe-first": "one DPO run on safe-first labels",
    "prompt": "system prompt for",
    "prompt-against": "system prompt against",
    "steering": "activation steering",
    "experts": "logit arithmetic (DExperts)",
}
FIXED = ("base", "safe-first", "prompt-against")
"""Baselines that do not follow the weights: one setting."""


def settings(evidence: TextEvidence, weights: Sequence[float], strengths: Sequence[float]) -> list[Setting]:  # fmt: skip
    """Return every setting: each baseline along the weights, and along the strengths at an even weight."""
    found = [Setting(name, 0.5, 1.0) for name in FIXED]
    if "safe-first" not in evidence.policies:
        found = [setting for setting in found if setting.baseline != "safe-first"]
    for name in ("vectors", "soup", "expo", "prompt", "steering", "experts"):
        found += [Setting(name, weight, 1.0) for weight in weights]
    found += [Setting("positive", weight, scale) for weight in weights for scale in (1.0, 2.0)]
    for name in ("vectors", "steering", "experts"):
        found += [Setting(name, 0.5, strength) for strength in strengths if strength != 1.0]
    return list(dict.fromkeys(found))


def measure_all(evidence: TextEvidence, chosen: Sequence[Setting]) -> list[dict[str, Any]]:
    """Return the figures of each setting, item by item too; what a journal holds is not measured again."""
    stage = _Stage(evidence)
    return [stage.take(setting) for setting in chosen]


class _Stage:
    """One base in memory, dressed as each baseline in turn."""

    def __init__(self, evidence: TextEvidence) -> None:
        self._evidence = evidence
        self._subject = load_subject(str(evidence.base))
        self._measures = evidence.measures()
        self._directions: dict[str, Any] = {}
        self._experts: dict[str, tuple[Any, Any]] = {}
        makers: dict[str, Callable[[Setting], Any]] = {
            "base": lambda setting: nullcontext(self._subject),
            "vectors": lambda setting: self._mixed("vectors", BOTH, setting.shares),
            "positive": lambda setting: self._mixed("positive", HALVES, setting.shares),
            "soup": lambda setting: self._mixed("positive", HALVES, _scaled(setting, 0.5)),
            "expo": lambda setting: self._mixed("positive", HALVES, _scaled(setting, 0.5 * EXPO)),
            "safe-first": lambda setting: self._mixed("safe-first", {"safe-first": ("positive",)}, {"safe-first": 1.0}),
            "prompt": lambda setting: subjects.prompted_by(self._subject, subjects.system_text(setting.shares)),
            "prompt-against": lambda setting: subjects.prompted_by(self._subject, subjects.system_text(setting.shares, toward=False)),
            "steering": self._steered,
            "experts": self._with_experts,
        }  # fmt: skip
        self._makers = makers

    def take(self, setting: Setting) -> dict[str, Any]:
        """Measure one setting, or read it from its journal."""
        evidence = self._evidence
        journal = evidence.work / f"{setting.baseline}.jsonl"
        policies = {f"{name} {side.name}": model_hash(str(side)) for name, folder in evidence.policies.items() for side in sorted(folder.iterdir()) if side.is_dir()}  # fmt: skip
        subject = {"base": model_hash(str(evidence.base)), "policies": policies}
        with open_journal(journal, subject, {"versions": versions()}) as record:
            missing = [m for m in self._measures if record.get(setting.point, m.name) is None]
            timing = record.get(setting.point, "serving")
            if missing or timing is None:
                print(f"{setting.baseline} at weight {setting.weight:g}, strength {setting.strength:g}", flush=True)  # fmt: skip
                with self._makers[setting.baseline](setting) as dressed:
                    bench = Bench(dressed, StandingStill(), self._measures, record)
                    bench.take(setting.point, setting.point)
                    timing = timing or self._serving(dressed, setting)
                    record.put(setting.point, "serving", timing, timing["seconds"], {})
            bench = Bench(self._subject, StandingStill(), self._measures, record)
            figures = bench.estimates(setting.point, setting.point)
            items = bench.items(setting.point, setting.point)
        return {
            "baseline": setting.baseline,
            "title": TITLES[setting.baseline],
            "weight": setting.weight,
            "strength": setting.strength,
            "figures": {name: found.to_dict() for name, found in figures.items()},
            "serving": timing,
            "items": {name: items[name] for name in TWO},
        }

    def _serving(self, subject: Subject, setting: Setting) -> dict[str, float]:
        """Return seconds a token of answers made one at a time, and the parameters that it takes."""
        texts = [p.text for p in self._measures[0].prompted.prompts[:TIMED]]  # type: ignore[attr-defined]
        how = Answering(self._evidence.new_tokens)
        generate(subject, texts[:1], Answering(4), 1)
        start = time.perf_counter()
        said = [answer for text in texts for answer in generate(subject, [text], how, 1)]
        seconds = time.perf_counter() - start
        tokens = sum(answer.tokens + (not answer.cut) for answer in said if answer)
        models = 1 + (2 * len(self._experts) if setting.baseline == "experts" else 0)
        size = sum(p.numel() * p.element_size() for p in self._subject.model.parameters())
        return {"seconds": seconds, "seconds_per_token": seconds / max(tokens, 1), "parameters_mb": models * size / 1e6}  # fmt: skip

    @contextmanager
    def _mixed(
        self, name: str, sides: Mapping[str, tuple[str, ...]], etas: Mapping[str, float]
    ) -> Iterator[Subject]:
        recipe = open_recipe(self._evidence.recipe(name, sides))
        with LiveMerge(recipe, self._subject.model) as live:
            live.set(etas)
            yield self._subject

    @contextmanager
    def _steered(self, setting: Setting) -> Iterator[Subject]:
        for name in TWO:
            if name not in self._directions:
                self._directions[name] = subjects.mean_difference(self._subject, self._evidence.pairs[name])  # fmt: skip
        direction = sum(share * self._directions[name] for name, share in setting.shares.items())
        with subjects.steered(self._subject, direction) as dressed:
            yield dressed

    @contextmanager
    def _with_experts(self, setting: Setting) -> Iterator[Subject]:
        for name in TWO:
            if name not in self._experts:
                self._experts[name] = self._policies(name)
        pairs = [(share, *self._experts[name]) for name, share in setting.shares.items() if share]
        yield Subject(subjects.Experts(self._subject.model, pairs), self._subject.tokenizer, self._subject.name)  # fmt: skip

    def _policies(self, name: str) -> tuple[Any, Any]:
        """Return a preference's two policies as whole models."""
        found = []
        for side in ("positive", "negative"):
            loaded = load_subject(str(self._evidence.base))
            live = LiveMerge(open_recipe(self._evidence.recipe(f"{name}-{side}", {name: (side,)})), loaded.model)  # fmt: skip
            live.set({name: 1.0 if side == "positive" else -1.0})
            found.append(loaded.model)
        return found[0], found[1]


def _scaled(setting: Setting, scale: float) -> dict[str, float]:
    return {name: scale * share for name, share in setting.shares.items()}


def subject_of(evidence: TextEvidence) -> dict[str, Any]:
    """Return what a result was made of: the recipe of both vectors, and all weights that it names."""
    return recipe_subject(evidence.recipe("vectors", BOTH).read_text(encoding="utf-8"))

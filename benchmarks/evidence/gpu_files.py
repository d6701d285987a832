"""Files and training configs of ``python -m benchmarks.evidence gpu``, made of the shared data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.evidence.inputs import mixed, sample

HELPFUL = "hh-rlhf/helpful-{}.jsonl"
HARMLESS = "pku-saferlhf/harmless-{}.jsonl"
OTHERS = "hh-rlhf/harmless-train.jsonl"
"""Harmlessness pairs whose prompts no policy sees: those of the harmless reward model."""
REWARD_SHARE = 3
"""Every third helpful prompt is the reward model's, and no policy's."""
LOSSES: dict[str, dict[str, Any]] = {
    "dpo": {"loss_type": ["sigmoid"]},
    "dpo-sft": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]},
}


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    steps: int = 150
    batch: int = 16
    prompts: int = 300
    refusals: int = 120
    facts: int = 300
    new_tokens: int = 64
    max_length: int = 256
    seeds: tuple[int, ...] = (42, 1, 2)
    values: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    weights: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    strengths: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    jobs: int = 4
    """Trainings at a time; 0: one after the other in this process."""
    minutes: float = 25.0
    """After which no new part is begun."""


def write_files(data: Path, work: Path, scale: Scale) -> None:
    """Write pairs, prompts and questions to ``work``; no reward model has a prompt of a policy."""
    work.mkdir(parents=True, exist_ok=True)
    helpful, harmless = _rows(data / HELPFUL.format("train")), _rows(data / HARMLESS.format("train"))  # fmt: skip
    policies = [row for row in helpful if not _for_reward(row)]
    _write(work / "helpful.jsonl", policies)
    _write(work / "harmless.jsonl", harmless)
    _write(work / "safe-first.jsonl", mixed([policies, harmless]))
    _write(work / "reward-helpful.jsonl", [row for row in helpful if _for_reward(row)])
    seen = {_asked(row) for row in harmless}
    _write(work / "reward-harmless.jsonl", [row for row in _rows(data / OTHERS) if _asked(row) not in seen])  # fmt: skip
    taught = {_asked(row) for name in ("helpful", "harmless", "reward-helpful", "reward-harmless") for row in _rows(work / f"{name}.jsonl")}  # fmt: skip
    tests = [_rows(data / form.format("test")) for form in (HELPFUL, HARMLESS)]
    for name, rows in zip(("helpful", "harmless"), tests, strict=True):
        _write(work / f"{name}-heldout.jsonl", rows[: scale.prompts])
    kinds = [list(dict.fromkeys(text for row in rows if (text := _asked(row)) not in taught)) for rows in tests]  # fmt: skip
    prompts = [text for pair in zip(*kinds, strict=False) for text in pair][: scale.prompts]
    _write(work / "prompts.jsonl", [{"prompt": text} for text in prompts])
    sample(data / "refusal/xstest_prompts.csv", work / "xstest.csv", scale.refusals)
    facts = _rows(data / "capability/commonsenseqa-dev-300.jsonl")[: scale.facts]
    _write(work / "facts.jsonl", facts)


def policy_config(
    base: Path, work: Path, preference: str, loss: str, seed: int, scale: Scale, bf16: bool
) -> Path:
    """Write the config of one preference's full fine-tuning; ``output_dir`` says what it is."""
    dpo = {
        "beta": 0.1, "learning_rate": 1.0e-5, "max_steps": scale.steps, "max_length": scale.max_length,
        "per_device_train_batch_size": scale.batch, "data_seed": seed, "bf16": bf16, **LOSSES[loss],
    }  # fmt: skip
    return _config(work, f"{preference}-{loss}-{seed}", base, preference, {"dpo": dpo})


def reward_config(base: Path, work: Path, name: str, scale: Scale, bf16: bool) -> Path:
    """Write the config of one reward model."""
    reward = {
        "learning_rate": 1.0e-5, "max_steps": scale.steps, "max_length": 2 * scale.max_length,
        "per_device_train_batch_size": scale.batch, "center_rewards_coefficient": 0.01, "bf16": bf16,
    }  # fmt: skip
    return _config(work, f"reward-{name}", base, f"reward-{name}", {"reward": reward}, name)


def _config(
    work: Path,
    output: str,
    base: Path,
    rows: str,
    options: Mapping[str, Any],
    preference: str | None = None,
) -> Path:
    document = {
        "base_model": str(base),
        "preference": preference or rows,
        "dataset": {"path": str(work / f"{rows}.jsonl"), "format": "pairs"},
        **options,
        "output_dir": str(work / output),
    }
    held_out = work / f"{preference or rows}-heldout.jsonl"
    if held_out.exists():
        document["eval_dataset"] = {"path": str(held_out), "format": "pairs"}
    path = work / f"{output}.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def _for_reward(row: Mapping[str, Any]) -> bool:
    return int(hashlib.sha256(_asked(row).encode()).hexdigest(), 16) % REWARD_SHARE == 0


def _asked(row: Mapping[str, Any]) -> str:
    """Return the last message of a row's prompt."""
    prompt = row["prompt"]
    return str(prompt if isinstance(prompt, str) else prompt[-1]["content"])


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

"""Exported GGUF adapters in llama.cpp itself: ``make test-llama`` builds it and runs this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from pv_merge.integrations.export import export
from pv_merge.merging.run import run

from models import PROMPT, largest_difference, logits, pair, recipe, save, tiny
from policies import adapted, save_adapter

engine = pytest.importorskip(
    "benchmarks.llama_engine",
    reason="run from the repository: python -m pytest tests/integrations/test_llama.py",
)
gguf_base = pytest.importorskip("benchmarks.gguf_base")

TOLERANCE = 2e-5
"""Of logits of up to 5 or so, all in float32: two engines add in different orders."""

ETAS = [(0.0, 0.0), (1.0, 0.0), (0.0, -0.7), (0.8, -0.3), (-1.5, 0.5), (0.01, 1.0)]


@pytest.fixture(scope="module")
def python() -> str:
    found: str | None = engine.llama_python()
    if found is None:
        pytest.skip("llama_cpp is not installed; make test-llama builds it (6 minutes)")
    return found


def written(root: Path, etas: tuple[float, float], folder: Path) -> Path:
    document: dict[str, Any] = recipe(
        str(root / "base"),
        pair(str(root / "helpful"), str(root / "unhelpful"), etas[0])
        + pair(str(root / "polite"), str(root / "rude"), etas[1], "polite"),
        dtype="float32",
    )
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_adapters_at_scale_eta_are_the_merged_checkpoint(
    family: str, tied: bool, python: str, tmp_path: Path
) -> None:
    model = tiny(family, tied=tied)
    base = save(model, tmp_path / "base")
    for seed, name in enumerate(("helpful", "unhelpful", "polite", "rude"), start=1):
        extra = {} if tied or name != "polite" else {"target_modules": ["lm_head", "q_proj"]}
        policy = adapted(model, seed, r=2 if name == "rude" else 4, **extra)
        save_adapter(policy, tmp_path / name, base)
    gguf_base.write_base(base, tmp_path / "base.gguf")
    export(written(tmp_path, (1.0, 1.0), tmp_path), tmp_path / "gguf", "gguf")
    adapters = [tmp_path / "gguf" / f"{name}.gguf" for name in ("helpful", "polite")]
    cases = [(PROMPT[0].tolist(), etas) for etas in ETAS]
    found = engine.llama_logits(python, tmp_path / "base.gguf", adapters, cases)
    seen: list[Tensor] = []
    for number, (etas, values) in enumerate(zip(ETAS, found, strict=True)):
        out = tmp_path / f"merged-{number}"
        if any(etas):
            run(written(tmp_path, etas, tmp_path), out)
        want = logits(out if any(etas) else base)[0]
        assert largest_difference(torch.from_numpy(values), want) < TOLERANCE, etas
        assert all(largest_difference(want, other) > 0.05 for other in seen)
        seen.append(want)

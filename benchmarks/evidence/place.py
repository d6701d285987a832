"""Where a stage finds its inputs and leaves its results, and how it runs a command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import script

RECIPES = Path("benchmarks/results/recipes")
POLICIES = Path("benchmarks/policies")
BASE = Path("models/smollm2-135m-instruct")
QUICKSTART = Path("recipes/quickstart/policies")


@dataclass(frozen=True)
class Place:
    """The folders of one call."""

    data: Path = Path("../shared/data")
    work: Path = Path("runs/evidence")
    """Journals and generated answers, which are not committed."""
    output: Path = Path("benchmarks/results")
    images: Path = Path("docs/images")

    def folder(self, stage: str, limit: int) -> Path:
        """Return a stage's own folder; another limit is another measurement."""
        path = self.work / f"{stage}-{limit}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def read(self, name: str) -> Any:
        """Return a stage's result, or None."""
        path = self.output / "evidence" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write(self, name: str, result: dict[str, Any]) -> None:
        """Keep a stage's result."""
        path = self.output / "evidence" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"written to {path}", flush=True)

    def keep_image(self, source: Path, name: str) -> None:
        """Copy a picture into the docs."""
        self.images.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self.images / name)


def run(*words: str | Path) -> float:
    """Run a product's command with its output shown; return the seconds it took."""
    start = time.perf_counter()
    _call(words, capture=False)
    return time.perf_counter() - start


def output_of(*words: str | Path) -> str:
    """Run a product's command and return what it printed."""
    return _call(words, capture=True)


def _call(words: Sequence[str | Path], capture: bool) -> str:
    name, *rest = [str(word) for word in words]
    print(f"$ {shlex.join([name, *rest])}", flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [script(name), *rest],
        env=environment,
        text=True,
        stdout=subprocess.PIPE if capture else None,
    )
    if done.returncode:
        raise SystemExit(f"{name} {rest[0]} failed; the same stage goes on where it was")
    return done.stdout or ""


def measured_seconds(journal: Path) -> float:
    """Return the seconds that a journal's measurements took, over however many calls."""
    lines = (json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines())
    return sum(float(line["seconds"]) for line in lines if line["kind"] == "record")


def vectors(*names: str) -> list[str]:
    """Extract the vectors that are missing or older than their policies; return their folders.

    ``politeness-seed1`` and the like come from ``runs/``, ``polite`` and ``concise`` from the quickstart.
    """
    for name in names:
        policies = next(
            (folder / name for folder in (POLICIES, QUICKSTART, Path("runs")) if (folder / name).is_dir()), None
        )  # fmt: skip
        if policies is None:
            raise SystemExit(f"{POLICIES / name}: is missing; its policies are not trained yet")
        made = Path("vectors") / name / "preference_vector.json"
        weights = [
            policies / side / "adapter_model.safetensors" for side in ("positive", "negative")
        ]
        if made.exists() and made.stat().st_mtime >= max(p.stat().st_mtime for p in weights):
            continue
        shutil.rmtree(made.parent, ignore_errors=True)
        run("pv-merge", "extract", policies / "positive", policies / "negative", "-o", f"./vectors/{name}")  # fmt: skip
    return [f"./vectors/{name}" for name in names]

"""What only Linux has is taken away: a merge, a serving cache and a resumed training do without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pv_merge

ROOT = Path(pv_merge.__file__).parent.parent

WITHOUT = """
import builtins, os, sys
usual = builtins.__import__
def ours_have_none(name, globals=None, *more, **named):
    if name in ("fcntl", "resource") and (globals or {{}}).get("__name__", "").startswith(("pv_merge", "trainers")):
        raise ModuleNotFoundError(name)
    return usual(name, globals, *more, **named)
builtins.__import__ = ours_have_none
for call in ("posix_fallocate", "preadv", "pread", "pwrite", "pwritev", "sched_getaffinity"):
    delattr(os, call)
sys.path.insert(0, {tests!r})
from pathlib import Path
place = Path({place!r})
"""

MERGE = """
import torch, yaml
from pv_merge.merging.run import run
import models
folders = [models.save(models.perturbed(models.tiny(), seed), place / str(seed)) for seed in (0, 1, 2)]
inputs = [
    {"model": str(folders[1]), "parameters": {"preference": "p", "polarity": "positive", "eta": 0.5}},
    {"model": str(folders[2]), "parameters": {"preference": "p", "polarity": "negative"}},
]
recipe = {"merge_method": "preference_vector", "base_model": str(folders[0]), "models": inputs}
(place / "r.yml").write_text(yaml.safe_dump(recipe))
run(place / "r.yml", place / "merged")
from safetensors.torch import load_file
base, plus, minus, merged = (
    load_file(Path(folder) / "model.safetensors") for folder in (*folders, place / "merged")
)
for name, weight in merged.items():
    torch.testing.assert_close(weight, base[name] + 0.5 * (plus[name] - minus[name]))
"""

SERVE = """
os.environ["PV_MERGE_CACHE"] = str(place / "cache")
import serving_tiny
from pv_merge.integrations.mixes.cache import MixCache
from pv_merge.integrations.mixes.name import parse
from pv_merge.integrations.mixes.shelf import fill
from pv_merge.integrations.mixes.vectors import scan
_, vectors = serving_tiny.write_vectors(place)
shelf = fill(scan(vectors), "float32")
assert fill(scan(vectors), "bfloat16").folder != shelf.folder
assert shelf.folder.is_dir()  # this process still serves from it
folder = MixCache(shelf, 4, 10**9).adapter(parse("polite=0.8"))
assert (folder / "adapter_model.safetensors").stat().st_size > 0
"""

TRAIN = """
import train_tiny
from trainers.dpo import train
from trainers.config_file import read_settings
os.environ["PV_MERGE_CACHE"] = str(place / "cache")
base = train_tiny.save_base(place / "base")
rows = train_tiny.write_rows(place / "rows.jsonl", train_tiny.pair_rows())
said = train_tiny.config(place, base, rows, dpo={"max_steps": 2, "save_steps": 1})
settings = read_settings(train_tiny.write_config(place / "train.yml", said))
train(settings, ["positive"])
outcomes = train(settings, ["positive", "negative"], resume=True)
assert outcomes[0].skipped and not outcomes[1].skipped
"""


@pytest.mark.parametrize("work", [MERGE, SERVE, TRAIN], ids=["merge", "serve", "train"])
def test_it_needs_nothing_that_only_linux_has(work: str, tmp_path: Path) -> None:
    before = WITHOUT.format(tests=str(ROOT / "tests"), place=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", before + work],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]

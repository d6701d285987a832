"""An input that changes while it is read is an error, not a model of two files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pv_merge.artifacts.base_hash import known_hash, weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.errors import PvMergeError
from pv_merge.integrations.export import export
from pv_merge.live.weights import LiveMerge
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.report import report
from pv_merge.merging.run import run, run_grid
from pv_merge.recipe.opening import open_recipe

from models import load, pair, perturbed, recipe, save, tiny
from policies import adapted, save_adapter

WEIGHTS = "model.safetensors"


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    other.replace(path)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 64)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(b"\1" * 64)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove(path: Path) -> None:
    path.unlink()


CHANGES = [replace, grow, rewrite, truncate, remove]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    model = tiny()
    base = save(model, tmp_path / "base")
    sides = [save(perturbed(model, seed), tmp_path / f"side{seed}") for seed in (1, 2)]
    text = yaml.safe_dump(recipe(base, pair(*sides, 1.0)))
    (tmp_path / "recipe.yml").write_text(text)
    return tmp_path


def once(change: Callable[[Path], None], path: Path) -> Callable[..., None]:
    """Return what changes a file when it is told of progress for the first time."""
    waiting = [path]

    def advance(*arguments: Any) -> None:
        if waiting:
            change(waiting.pop())

    return advance


LINE = r"(was changed while it was read|ends too early)"


@pytest.mark.parametrize("which", ["side2", "base"])
@pytest.mark.parametrize("change", CHANGES)
def test_run(change: Callable[[Path], None], which: str, place: Path) -> None:
    told = once(change, place / which / WEIGHTS)
    with pytest.raises(PvMergeError, match=LINE):
        run(place / "recipe.yml", place / "out", advance=told, threads=1)
    assert not (place / "out").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_a_grid(change: Callable[[Path], None], place: Path) -> None:
    told = once(change, place / "side1" / WEIGHTS)
    points = [{"helpful": 0.5}, {"helpful": 1.0}]
    with pytest.raises(PvMergeError, match=LINE):
        run_grid(place / "recipe.yml", place / "out", points, advance=told)
    assert not (place / "out").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_extract(change: Callable[[Path], None], place: Path) -> None:
    told = once(change, place / "side1" / WEIGHTS)
    sides = place / "side1", place / "side2"
    options = ExtractOptions(base=str(place / "base"), name="helpful")
    with pytest.raises(PvMergeError, match=LINE):
        extract(*sides, place / "out", options, told)
    assert not (place / "out").exists()


# A memory map of a file that is cut short ends the process; nothing appears then, either.
MAPPED = [replace, grow, rewrite, remove]


@pytest.mark.parametrize("change", MAPPED)
def test_low_rank_extract_and_export(change: Callable[[Path], None], tmp_path: Path) -> None:
    model = tiny()
    base = save(model, tmp_path / "base")
    sides = [save_adapter(adapted(model, n), tmp_path / f"side{n}", base) for n in (1, 2)]
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe(base, pair(*sides, 1.0))))
    weights = tmp_path / "side1/adapter_model.safetensors"
    kept = weights.read_bytes()
    options = ExtractOptions(name="helpful", low_rank=True)
    with pytest.raises(PvMergeError, match=LINE):
        extract(*sides, tmp_path / "vector", options, once(change, weights))
    weights.write_bytes(kept)
    with pytest.raises(PvMergeError, match=LINE):
        export(tmp_path / "recipe.yml", tmp_path / "out", advance=once(change, weights))
    assert not (tmp_path / "out").exists() and not (tmp_path / "vector").exists()


@pytest.mark.parametrize("change", MAPPED)
def test_a_live_model_and_a_report(change: Callable[[Path], None], place: Path) -> None:
    run(place / "recipe.yml", place / "out")
    opened = open_recipe(place / "recipe.yml")
    with LiveMerge(opened, load(place / "base")) as live:
        live.set({"helpful": 0.5})
        with pytest.raises(PvMergeError, match=LINE):
            report(place / "recipe.yml", place / "out", once(change, place / "side2" / WEIGHTS))
        with pytest.raises(PvMergeError, match=LINE):
            live.set({"helpful": 1.0})


def test_no_hash_of_two_files_is_remembered(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Checkpoint(place / "base")
    whole = base.weights_sha256

    def hashed() -> str:
        found = whole()
        rewrite(place / "base" / WEIGHTS)
        return found

    monkeypatch.setattr(base, "weights_sha256", hashed)
    with pytest.raises(PvMergeError, match=LINE):
        weights_hash(base)
    assert known_hash(Checkpoint(place / "base")) is None

"""The adapters of mixes and their cache: the same weights as a merge, bounded, safe for threads."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch

from pv_merge.artifacts.adapter import Adapter
from pv_merge.errors import PvMergeError
from pv_merge.integrations.mixes.adapter import expected_bytes
from pv_merge.integrations.mixes.cache import MixCache
from pv_merge.integrations.mixes.name import Terms, parse
from pv_merge.integrations.mixes.shelf import Shelf, fill, serving_folder
from pv_merge.integrations.mixes.vectors import scan

import models
import serving_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return serving_tiny.write_vectors(tmp_path_factory.mktemp("serving"))


@pytest.fixture
def shelf(world: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    return fill(scan(world[1]), "float32")


def cache(shelf: Shelf, mixes: int = 64, nbytes: int = 10**9, **more: Any) -> MixCache:
    return MixCache(shelf, mixes, nbytes, **more)


def terms(text: str) -> Terms:
    return parse(text)


# ---- what an adapter is --------------------------------------------------------------------------

MIXES = {
    "polite=0.8": 3,
    "helpful=0.8,polite=-0.3": 5,
    "harmless=0.25,helpful=1.5,polite=-2": 5,
    "helpful=0,polite=0.5": 3,
}
"""Mixes with the rank of their adapter: the largest sum of ranks of the terms that move one module."""


@pytest.mark.parametrize("name", MIXES)
def test_the_adapter_is_the_merge(
    name: str, world: tuple[str, Path], shelf: Shelf, tmp_path: Path
) -> None:
    # Two routes: our adapter over the base, and pv-merge run over the same vectors.
    import yaml

    from pv_merge.merging.run import run

    base, vectors = world
    inputs = [
        {
            "model": str(vectors / preference),
            "parameters": {"preference": preference, "polarity": "vector", "eta": float(eta)},
        }
        for preference, eta in terms(name)
    ]
    recipe = {"merge_method": "preference_vector", "base_model": base, "models": inputs}
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump({**recipe, "out_dtype": "float32"}))
    run(tmp_path / "recipe.yml", tmp_path / "merged")
    merged = models.state(tmp_path / "merged")

    folder = cache(shelf).adapter(terms(name))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (MIXES[name], MIXES[name])
    changes = Adapter(folder).modules
    for weight, tensor in models.state(base).items():
        change = changes.get(weight.removesuffix(".weight"))
        total = tensor if change is None else tensor + change.dense()
        # One rounding of a float32 sum apart: eta is in B here, and multiplies B @ A there.
        torch.testing.assert_close(total, merged[weight], rtol=0, atol=3e-7)
    assert any(not torch.equal(merged[name], tensor) for name, tensor in models.state(base).items())


def test_peft_loads_the_adapter(world: tuple[str, Path], shelf: Shelf) -> None:
    from peft import PeftModel

    folder = cache(shelf).adapter(terms("helpful=0.8,polite=-0.3"))
    model = PeftModel.from_pretrained(models.load(world[0]), folder)
    dense = models.load(world[0])
    weights = dict(dense.named_parameters())
    with torch.no_grad():
        for name, change in Adapter(folder).modules.items():
            weights[f"{name}.weight"] += change.dense()
    torch.testing.assert_close(models.logits(model), models.logits(dense), rtol=0, atol=1e-4)


def test_a_mix_of_zeros_changes_nothing(shelf: Shelf) -> None:
    folder = cache(shelf).adapter(terms("polite=0"))
    (change,) = Adapter(folder).modules.values()
    assert change.a.shape[0] == 1 and not change.dense().any()


def test_a_narrow_dtype_halves_the_files(
    world: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path))
    folder = cache(fill(scan(world[1]), "bfloat16")).adapter(terms("polite=1"))
    assert {c.a.dtype for c in Adapter(folder).modules.values()} == {torch.bfloat16}


def test_vectors_whose_shapes_differ(shelf: Shelf) -> None:
    module = "model.layers.0.self_attn.q_proj"
    change = shelf.adapters["polite"].modules[module]
    shelf.adapters["polite"].modules[module] = type(change)(change.a[:, :-1], change.b, 1.0)
    with pytest.raises(PvMergeError, match="shapes differ; are they of the same base"):
        cache(shelf).adapter(terms("polite=1,helpful=1"))
    assert not list(shelf.mixes.iterdir())


# ---- the shelf -----------------------------------------------------------------------------------


def test_a_shelf_is_named_by_its_contents(world: tuple[str, Path], shelf: Shelf) -> None:
    assert fill(scan(world[1]), "float32").folder == shelf.folder
    assert fill(scan(world[1]), "bfloat16").folder != shelf.folder


def test_a_key_is_that_of_the_mix(shelf: Shelf) -> None:
    one = shelf.key(terms("helpful=0.8,polite=-0.30"))
    assert one == shelf.key(terms("polite=-0.3,helpful=0.80,harmless=0"))
    others = ["helpful=-0.3,polite=0.8", "helpful=0.8", "helpful=0.81,polite=-0.3", "polite=0"]
    assert len({one, *(shelf.key(terms(other)) for other in others)}) == 5


def test_changed_vectors_get_a_shelf_of_their_own(
    world: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    vectors = Path(shutil.copytree(world[1], tmp_path / "vectors"))
    first = fill(scan(vectors), "float32")
    before = cache(first).adapter(terms("polite=1"))
    shutil.copytree(vectors / "helpful", vectors / "polite", dirs_exist_ok=True)
    second = fill(scan(vectors), "float32")
    after = cache(second).adapter(terms("polite=1"))
    assert before != after and before.is_dir()  # this process still uses the first
    assert first.adapters["polite"].modules.keys() != second.adapters["polite"].modules.keys()


def test_shelves_of_servers_that_ended_are_dropped(shelf: Shelf, world: tuple[str, Path]) -> None:
    dead = serving_folder() / "of-another-time" / "mixes"
    dead.mkdir(parents=True)
    (serving_folder() / ".half").mkdir()
    fill(scan(world[1]), "float32")
    assert [path for path in serving_folder().iterdir() if path.is_dir()] == [shelf.folder]


# ---- the bounds ----------------------------------------------------------------------------------


def held(shelf: Shelf) -> set[str]:
    return {path.name for path in shelf.mixes.iterdir()}


def ask(store: MixCache, *names: str) -> list[Path]:
    found = []
    for turn, name in enumerate(names):
        found.append(store.adapter(terms(name)))
        os.utime(found[-1], ns=(turn, turn))  # file systems' clocks are coarse
    return found


def test_the_least_recently_used_goes_first(shelf: Shelf) -> None:
    store = cache(shelf, mixes=3)
    a, b, c, _, d = ask(store, "polite=0.1", "polite=0.2", "polite=0.3", "polite=0.1", "polite=0.4")
    assert held(shelf) == {a.name, c.name, d.name}
    assert not b.exists()
    assert store.adapter(terms("polite=0.2")) == b and b.exists()
    assert len(held(shelf)) == 3


def test_bytes_are_bounded(shelf: Shelf) -> None:
    one = expected_bytes(shelf, terms("polite=0.1"))
    store = cache(shelf, nbytes=int(2.5 * one))
    ask(store, *(f"polite=0.{digit}" for digit in range(1, 8)))
    assert sum(entry.nbytes for entry in store.entries()) <= 2.5 * one
    assert len(held(shelf)) >= 2
    with pytest.raises(PvMergeError, match="more than the whole cache may"):
        cache(shelf, nbytes=1000).adapter(terms("polite=0.9"))


def test_the_expected_size_is_right(shelf: Shelf) -> None:
    for name in MIXES:
        folder = cache(shelf).adapter(terms(name))
        nbytes = sum(file.stat().st_size for file in folder.iterdir())
        assert nbytes <= expected_bytes(shelf, terms(name))


def test_without_eviction_new_mixes_are_refused(shelf: Shelf) -> None:
    store = cache(shelf, mixes=2, evict=False)
    first, _ = ask(store, "polite=0.1", "polite=0.2")
    with pytest.raises(PvMergeError, match=r"the cache is full \(2 mixes\)"):
        store.adapter(terms("polite=0.3"))
    assert store.adapter(terms("polite=0.1")) == first


def test_a_failure_leaves_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pv_merge.integrations.mixes.cache.write_mix", full)
    with pytest.raises(OSError, match="No space"):
        cache(shelf).adapter(terms("polite=0.1"))
    assert not list(shelf.mixes.iterdir())


def test_leftovers_of_a_killed_server_are_removed(shelf: Shelf) -> None:
    (shelf.mixes / ".half-written").mkdir()
    cache(shelf).adapter(terms("polite=0.1"))
    assert len(list(shelf.mixes.iterdir())) == 1


# ---- threads -------------------------------------------------------------------------------------


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Terms]]:
    """Every adapter that is written, and a check that no two are at once."""
    from pv_merge.integrations.mixes import adapter as mix_adapter

    done: list[Terms] = []
    busy = threading.Lock()

    def write(shelf: Shelf, mix: Terms, folder: Path) -> None:
        assert busy.acquire(blocking=False)
        mix_adapter.write_mix(shelf, mix, folder)
        done.append(mix)
        busy.release()

    monkeypatch.setattr("pv_merge.integrations.mixes.cache.write_mix", write)
    yield done


def test_one_mix_for_many_threads_is_made_once(shelf: Shelf, writes: list[Terms]) -> None:
    store = cache(shelf)
    names = ["polite=0.5,helpful=1", "helpful=1.00,polite=.5"] * 16
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda name: store.adapter(terms(name)), names))
    assert (len(found), len(writes)) == (1, 1)


def test_many_mixes_from_many_threads_stay_within_bounds(shelf: Shelf, writes: list[Terms]) -> None:
    stores = [cache(shelf, mixes=4), cache(shelf, mixes=4)]  # as of two servers
    most = []

    def one(number: int) -> None:
        mix = (("helpful", Decimal(number % 11 + 1) / 10), ("polite", Decimal("0.5")))
        assert stores[number % 2].adapter(mix) == shelf.place(mix)
        most.append(len(held(shelf)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(200)))
    assert len(stores[0].entries()) <= 4
    assert max(most) <= 5  # four, and the one being written

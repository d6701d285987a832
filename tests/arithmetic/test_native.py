"""Machine code from the cache: the same bits as Numba's own, and passed over where it is not whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pv_merge.arithmetic import compiling, kernels
from pv_merge.arithmetic.kernel_cache import cache_place
from pv_merge.arithmetic.native import Native, load
from pv_merge.arithmetic.native_check import SAMPLES, digest

NAMES = sorted(SAMPLES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every kernel, compiled and kept."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("PV_MERGE_CACHE")
    os.environ["PV_MERGE_CACHE"] = str(folder)
    cache_place.cache_clear()
    try:
        for name in NAMES:
            digest(compiling.Kernel(getattr(kernels, name)._function), name)
        found = cache_place()
    finally:
        os.environ.pop("PV_MERGE_CACHE")
        if before is not None:
            os.environ["PV_MERGE_CACHE"] = before
        cache_place.cache_clear()
    assert found is not None
    return found


@pytest.fixture
def fresh(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pv_merge.arithmetic.native.cache_place", lambda: place)
    return place


def test_every_kernel_is_kept_once_compiled(place: Path) -> None:
    kept = {path.name for path in place.iterdir() if path.is_file()}
    assert {f"{name}.o" for name in NAMES} <= kept
    assert not [name for name in kept if name.endswith(".refused")]


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_what_numba_finds(place: Path, name: str) -> None:
    assert digest(load(place / f"{name}.o"), name) == digest(getattr(kernels, name), name)


def test_it_needs_no_numba(place: Path) -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pv_merge.arithmetic.fused import merge_window as kernel\n"
            "from pv_merge.arithmetic.native_check import digest\n"
            "print(digest(kernel, 'merge_window'), 'numba' in sys.modules)",
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PV_MERGE_CACHE": str(place.parent),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [digest(kernels.merge_window, "merge_window"), "False"]


@pytest.mark.parametrize("kept", [0, 40, 5000])
def test_what_is_cut_short_is_passed_over(fresh: Path, tmp_path: Path, kept: int) -> None:
    whole = (fresh / "merge_window.o").read_bytes()
    (tmp_path / "merge_window.o").write_bytes(whole[:kept])
    with pytest.raises((ValueError, KeyError)):
        load(tmp_path / "merge_window.o")


def test_without_a_file_numba_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pv_merge.arithmetic.native.cache_place", lambda: tmp_path)
    assert Native("survey_window")._found() is kernels.survey_window
    monkeypatch.setattr("pv_merge.arithmetic.native.cache_place", lambda: None)
    assert Native("survey_window")._found() is kernels.survey_window


def test_code_that_another_process_cannot_run_is_refused_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "cache_place", lambda: tmp_path)
    monkeypatch.setattr(compiling, "digest", lambda kernel, name: "another")
    kernel = compiling.Kernel(kernels.survey_window._function)
    assert digest(kernel, "survey_window") == digest(kernels.survey_window, "survey_window")
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {"survey_window.refused"}


@pytest.mark.parametrize(
    "failure", [OSError(8, "Exec format error"), subprocess.TimeoutExpired("python", 60)]
)
def test_without_another_process_it_is_compiled_once_and_refused_for_good(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise failure

    compiled = []
    usual = compiling.numba.njit
    monkeypatch.setattr(compiling, "cache_place", lambda: tmp_path)
    monkeypatch.setattr(compiling.subprocess, "run", run)
    monkeypatch.setattr(
        compiling.numba, "njit", lambda **options: compiled.append(options) or usual(**options)
    )
    digest(compiling.Kernel(kernels.survey_window._function), "survey_window")
    assert len(compiled) == 1
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"survey_window.refused"}


def test_nothing_is_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, stranger = tmp_path / "place", tmp_path / "model"
    place.mkdir()
    stranger.mkdir()
    (stranger / "numpy.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(stranger)
    monkeypatch.setattr(compiling, "cache_place", lambda: place)
    digest(compiling.Kernel(kernels.survey_window._function), "survey_window")
    assert (place / "survey_window.o").exists() and not (tmp_path / "ran").exists()

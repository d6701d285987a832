"""Kernels are compiled once on a machine, and work where nothing can be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pv_merge.arithmetic import compiling, kernel_cache
from pv_merge.arithmetic.compiling import Kernel
from pv_merge.arithmetic.kernel_cache import cache_place

COUNT_TO = """
import sys
from pv_merge.arithmetic import compiling, kernel_cache
@compiling.Kernel
def count_to(n):
    return n + 1
{before}
assert count_to(2) == 3
print(kernel_cache.cache_place(), sorted(name for name in sys.modules if name == "torch"))
"""

SAID = ("", "compiling the merge's kernels for this machine (once; a few seconds)")
"""What may stand on the screen: nothing, or that one line on a slow machine."""


def run_with(place: Path, before: str = "", **environment: str) -> tuple[str, str]:
    """Compile a kernel in a process of its own, from a file, since that is what a cache goes by."""
    script = place / "script.py"
    script.write_text(COUNT_TO.format(before=before))
    found = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip(), found.stderr.strip()


@pytest.fixture(autouse=True)
def forget() -> None:
    cache_place.cache_clear()


def test_the_cache_is_kept_where_the_user_says(tmp_path: Path) -> None:
    out, _ = run_with(tmp_path, PV_MERGE_CACHE=str(tmp_path / "cache"))
    assert out.startswith(str(tmp_path / "cache")) and out.endswith("[]")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.nbc")}
    assert len(kept) == 1
    run_with(tmp_path, PV_MERGE_CACHE=str(tmp_path / "cache"))  # loads it: nothing is written
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.nbc")} == kept


def test_nothing_needs_to_be_writable(tmp_path: Path) -> None:
    # Root may write anywhere, so the places are files, in which no folder can be made.
    (tmp_path / "file").write_text("")
    before = f"kernel_cache.__file__ = {str(tmp_path / 'file' / 'x.py')!r}\nkernel_cache.Path.read_bytes = lambda path: b''"
    out, error = run_with(tmp_path, before, PV_MERGE_CACHE=str(tmp_path / "file"))
    assert out == "None []" and error in SAID


def test_a_damaged_cache_is_passed_over(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run_with(tmp_path, PV_MERGE_CACHE=str(cache))
    for path in [*cache.rglob("*.nbi"), *cache.rglob("*.nbc")]:
        path.write_bytes(path.read_bytes()[:40])
    _, error = run_with(tmp_path, PV_MERGE_CACHE=str(cache))
    assert error in SAID


def test_a_cache_that_cannot_be_written_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import IndexDataCacheFile

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)

    def twice(values):  # type: ignore[no-untyped-def]
        return values * 2

    assert Kernel(twice)(np.array([1.0, 2.0])).tolist() == [2.0, 4.0]


def test_the_place_is_another_for_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    place = cache_place()
    cache_place.cache_clear()
    monkeypatch.setattr(kernel_cache, "SOURCES", kernel_cache.SOURCES[:-1])
    assert cache_place() != place


def test_the_sources_are_all_that_kernels_are_made_of() -> None:
    folder = Path(compiling.__file__).parent
    made_of = {path.name for path in folder.glob("*.py") if "compiling import" in path.read_text()}
    assert {*made_of, "compiling.py", "kernel_shape.py"} == set(kernel_cache.SOURCES)


def test_slow_compiling_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling, "SLOW_SECONDS", 0.0)
    kernel = Kernel(lambda n: n + 1)
    assert kernel(1) == 2 and kernel(1) == 2
    assert capsys.readouterr().err.count("compiling the merge's kernels") == 1

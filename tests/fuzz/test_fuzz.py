"""Readers and what they were not made for: one line of ours, soon, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from fuzz.guard import FoundError, guarded, read, warm
from fuzz.targets import TARGETS, Target
from fuzz.values import strategy

COUNT = 2000
"""Inputs of each reader; fewer for slow ones, as its ``share`` says."""
CORPUS = Path(__file__).resolve().parent / "corpus"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_input(target: Target, work: Path) -> None:
    folder = work / target.name
    folder.mkdir()
    warm(target, folder)
    for number in range(int(COUNT * target.share)):
        data = target.make(Random(f"test {number}"))
        try:
            read(target.parse, folder, data)
        except FoundError as error:
            pytest.fail(f"input {number}: {error}; {data[:300]!r}")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_form(target: Target, work: Path) -> None:
    folder = work / f"{target.name} by hypothesis"
    folder.mkdir()
    warm(target, folder)

    @seed(7)
    @settings(
        max_examples=25, database=None, derandomize=False, suppress_health_check=list(HealthCheck)
    )
    @given(data=strategy(target.make))
    def each(data: bytes) -> None:
        read(target.parse, folder, data)

    each()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_was_found_before(target: Target, tmp_path: Path) -> None:
    for path in sorted((CORPUS / target.name.replace(" ", "-")).glob("*")):
        read(target.parse, tmp_path, path.read_bytes())


def test_the_guard_sees_what_is_touched_and_what_is_slow(tmp_path: Path) -> None:
    def outside(folder: Path, data: bytes) -> None:
        (folder.parent / "outside").write_bytes(data)

    def slow(folder: Path, data: bytes) -> None:
        while True:
            pass

    (tmp_path / "in").mkdir()
    with pytest.raises(FoundError, match=r"touches open .*outside"):
        read(outside, tmp_path / "in", b"x")
    with pytest.raises(FoundError, match="takes more than"):
        read(slow, tmp_path / "in", b"x")
    with pytest.raises(FoundError, match="ZeroDivisionError"):
        read(lambda folder, data: 1 / 0, tmp_path / "in", b"x")
    with guarded(tmp_path / "in"):
        (tmp_path / "in/inside").write_bytes(b"x")


@given(st.integers(0, 10**6))
def test_inputs_are_the_same_for_a_seed(number: int) -> None:
    make = TARGETS[0].make
    assert make(Random(number)) == make(Random(number))

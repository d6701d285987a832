"""Progress where nobody looks: lines at each tenth and every 30 seconds, as text or JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.progress import Progress

import pv_merge.progress
from pv_merge.cli.progress import bar
from pv_merge.progress import Lines, clock, progress, say

Run = Callable[[Progress, float, int], None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that makes a task of 40 steps, each of so many seconds."""
    now = [100.0]
    monkeypatch.setattr(pv_merge.progress.time, "monotonic", lambda: now[0])

    def steps(bar: Progress, seconds: float, first: int) -> None:
        with bar:
            task = bar.add_task("polite positive", total=40, completed=first, unit="step", note="")
            bar.update(task)
            for step in range(first + 1, 41):
                now[0] += seconds
                loss = 1 / step
                bar.update(
                    task, completed=step, note=f"loss {loss:.3f}", figures={"loss": round(loss, 3)}
                )

    return steps


def blind() -> Console:
    return Console(file=io.StringIO())


def lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_line_at_each_tenth(run: Run) -> None:
    console = blind()
    run(progress(console=console), 5.0, 0)
    found = lines(console)
    assert len(found) == 10
    assert found[0] == "polite positive: step 4 of 40, loss 0.250, 3:00 left"
    assert found[-1] == "polite positive: step 40 of 40, loss 0.025, 0:00 left"


def test_a_line_every_thirty_seconds_of_a_slow_run(run: Run) -> None:
    console = blind()
    run(progress(console=console), 60.0, 0)
    assert len(lines(console)) == 40


def test_a_resumed_run_counts_its_own_steps_for_the_time_left(run: Run) -> None:
    console = blind()
    run(progress(console=console), 10.0, 20)
    assert lines(console)[0] == "polite positive: step 23 of 40, loss 0.043, 2:50 left"


def test_a_task_that_is_started_anew_counts_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pv_merge.progress.time, "monotonic", lambda: now[0])
    console = blind()
    display = progress(console=console)
    task = display.add_task("measuring", total=None)
    for _ in range(2):
        display.update(task, total=2, completed=0)
        for done in (1, 2):
            now[0] += 3
            display.update(task, completed=done)
    half, whole = "measuring: 50%, 0:03 left", "measuring: 100%, 0:00 left"
    assert lines(console) == [half, whole, half, whole]


def test_what_is_over_in_a_moment_says_nothing(run: Run) -> None:
    console = blind()
    run(progress(console=console), 0.04, 0)
    assert lines(console) == []


def test_json_is_one_object_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PV_LOG", "json")
    console = Console(file=io.StringIO(), force_terminal=True, width=20)
    display = progress(console=console)
    say(display, "no tree of [tokens]")
    run(display, 5.0, 0)
    first, second, *rest = (json.loads(line) for line in lines(console))
    assert first["message"] == "no tree of [tokens]"
    assert second.pop("time")
    assert second == {
        "task": "polite positive",
        "step": 4,
        "of": 40,
        "seconds": 20.0,
        "seconds_left": 180.0,
        "loss": 0.25,
    }
    assert len(rest) == 9


def test_the_bar_of_a_command_is_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    console = blind()
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    now = [0.0]
    monkeypatch.setattr(pv_merge.progress.time, "monotonic", lambda: now[0])
    with bar("merging") as advance:
        for done in range(0, 101, 25):
            advance(done * 10**6, 10**8)
            now[0] += 3
    assert lines(console)[0] == "merging: 25%, 0:09 left"
    assert len(lines(console)) == 4


def test_a_terminal_has_a_bar_and_another_rank_nothing() -> None:
    terminal = progress(console=Console(file=io.StringIO(), force_terminal=True))
    assert type(terminal) is Progress
    assert not terminal.disable
    silent = progress(console=blind(), disable=True)
    assert type(silent) is Progress
    assert silent.disable
    assert isinstance(progress(console=blind()), Lines)


def test_clock() -> None:
    assert [clock(s) for s in (0.4, 61, 3723.4)] == ["0:00", "1:01", "1:02:03"]

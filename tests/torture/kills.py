"""Signals at random moments: what is left, and whether the next call makes it whole."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torture.forks import Ended, run
from torture.world import Case, State, clear, hashes, main

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Kills:
    """Trials of one command, and what came of them."""

    def __init__(self, case: Case, world: Path, room: Path, seed: int) -> None:
        self.case, self.world, self.room = case, world, room
        self.inputs = hashes(world)
        self.counts: dict[str, Counter[str]] = {number.name: Counter() for number in SIGNALS}
        self.faults: list[str] = []
        self._random, self._number = random.Random(f"{seed} {case.name}"), 0
        self.whole, self.left, self.seconds = self._reference()

    def _place(self, name: str) -> Path:
        self._number += 1
        place = self.room / f"{self.case.name}-{name}-{self._number}"
        place.mkdir(parents=True)
        return place

    def _run(self, place: Path, *, again: bool = False, **how: Any) -> Ended:
        line = self.case.again if again and self.case.again else self.case.arguments
        return run(main, line(place), place, prepare=self.case.prepare, **how)

    def _reference(self) -> tuple[State, list[str], float]:
        """Return what a run that nobody disturbs makes, what it leaves, and its seconds."""
        for _ in range(2):  # the first fills the caches
            place = self._place("whole")
            ended = self._run(place)
            assert ended.code == 0 and ended.problem is None, ended.said
        found = self.case.state(place), listing(place), ended.seconds
        assert found[0]
        clear(place)
        return found

    def trial(self, number: signal.Signals) -> list[str]:
        """Send one signal at a random moment, look, call again, look again; return the faults."""
        place = self._place(number.name)
        after = self._random.uniform(0, 1.05 * self.seconds)
        ended = self._run(place, number=number, after=after)
        count = self.counts[number.name]
        count["sent"] += 1
        about = f"{self.case.name}, {number.name} after {after:.3f} s"
        finished = ended.code == 0
        count["had finished" if finished else "were stopped"] += 1
        problems = list(self._after(place, number, ended, finished))
        if not finished:
            left = [name for name in listing(place) if name not in self.left]
            count["left something"] += bool(left)
            again = self._run(place, again=True)
            count["next call finished"] += again.code == 0
            count["was whole all the same"] += "already holds" in again.said
            problems += self._at_the_end(place, again)
        clear(place)
        found = [f"{about}: {problem}" for problem in problems]
        self.faults += found
        return found

    def _after(
        self, place: Path, number: signal.Signals, ended: Ended, finished: bool
    ) -> Iterable[str]:
        """Yield what is wrong with what a signal left."""
        if ended.problem is not None:
            yield ended.problem
        if hashes(self.world) != self.inputs:
            yield "an input has changed"
        state = self.case.state(place)
        if finished and state != self.whole:
            yield "it says that it is done, and the result is not whole"
        if not self._acceptable(state):
            yield f"what it wrote is half: {sorted(state)}"
        if number is not signal.SIGKILL and not finished:
            left = [name for name in listing(place) if not self._stays(name)]
            if left and not self.case.resumes:
                yield f"it left {left[:3]}"
            left = [name for name in left if hidden(name)]
            if left and self.case.resumes:
                yield f"it left {left[:3]}"

    def _acceptable(self, state: State) -> bool:
        """Return whether each thing that is there is as an undisturbed run makes it."""
        if self.case.name in ("train", "sweep", "calibrate"):
            return all(self.whole[key] == value for key, value in state.items() if key != "files")
        return not state or state == self.whole

    def _stays(self, name: str) -> bool:
        """Return whether a stopped command may leave that: a whole result, a run to resume."""
        return name in self.left or ".unfinished" in name

    def _at_the_end(self, place: Path, again: Ended) -> Iterable[str]:
        """Yield what is wrong after the second call, which is to make everything whole."""
        if again.code != 0 or again.problem is not None:
            if "already holds" in again.said and self.case.state(place) == self.whole:
                return  # the kill came between the rename and the end
            yield f"the next call fails: {again.problem or again.said.strip()[-300:]}"
            return
        if self.case.state(place) != self.whole:
            yield "the next call ends with another result"
        left = sorted(set(listing(place)) - set(self.left))
        if left:
            yield f"the next call leaves {left[:3]}"

    def to_dict(self) -> dict[str, Any]:
        """Return the counts."""
        counts = {name: dict(sorted(count.items())) for name, count in self.counts.items()}
        return {**counts, "seconds_undisturbed": round(self.seconds, 3), "faults": self.faults}


def hidden(name: str) -> bool:
    """Return whether a part of a path begins with a dot."""
    return any(part.startswith(".") for part in Path(name).parts)


def listing(place: Path) -> list[str]:
    """Return every file and folder of a trial but its log and its temporary files."""
    names = [path.relative_to(place).as_posix() for path in place.rglob("*")]
    return sorted(name for name in names if name.split("/")[0] not in ("log", "tmp"))

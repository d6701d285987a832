"""Whole commands, run in turn, each several times: seconds and peak memory, as medians."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Timing:
    """Runs of one command."""

    seconds: list[float] = field(default_factory=list)
    """Wall time of each run."""
    memory: list[int] = field(default_factory=list)
    """Peak resident memory of each run, in bytes (the process itself, page cache left out)."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, float]:
        return {
            "median_s": round(self.median, 3),
            "min_s": round(min(self.seconds), 3),
            "max_s": round(max(self.seconds), 3),
            "runs": len(self.seconds),
            "peak_mb": round(statistics.median(self.memory) / 1e6),
        }


def command_line(module: str) -> str:
    """Return the command that this process was started by, for the results file."""
    return " ".join(["python", "-m", module, *sys.argv[1:]])


def script(name: str) -> str:
    """Return the path of a console script of this Python's environment."""
    return str(Path(sys.executable).parent / name)


def run_once(command: Sequence[str]) -> tuple[float, int]:
    """Run a command; return (seconds, peak memory). Its output is shown where it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    output, _ = process.stdout.read() if process.stdout else b"", None
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.stderr.write(output.decode(errors="replace")[-3000:])
        raise SystemExit(f"benchmark command failed: {' '.join(command)}")
    return seconds, usage.ru_maxrss * 1024


def in_turn(
    commands: Mapping[str, Sequence[str]],
    repeats: int,
    clean: Sequence[Path] = (),
    tell: Callable[[str], None] = print,
) -> dict[str, Timing]:
    """Run the commands A B C A B C …, after a round that does not count; ``clean`` goes each time."""
    timings = {name: Timing() for name in commands}
    for turn in range(repeats + 1):
        for name, command in commands.items():
            for path in clean:
                shutil.rmtree(path, ignore_errors=True)
            seconds, memory = run_once(command)
            if turn:
                timings[name].seconds.append(seconds)
                timings[name].memory.append(memory)
            tell(f"  {'warm-up' if not turn else f'run {turn}'}: {name} {seconds:.2f} s")
    for path in clean:
        shutil.rmtree(path, ignore_errors=True)
    return timings

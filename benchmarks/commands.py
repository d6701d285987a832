"""Whole commands, run in turn, each several times: seconds and peak memory, as medians."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import threading
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
    """Peak anonymous memory of each run, in bytes: what files in memory do not account for."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, float]:
        return {
            "median_s": round(self.median, 3),
            "min_s": round(min(self.seconds), 3),
            "max_s": round(max(self.seconds), 3),
            "runs": len(self.seconds),
            "peak_anonymous_mb": round(statistics.median(self.memory) / 1e6),
        }


def command_line(module: str) -> str:
    """Return the command that this process was started by, for the results file."""
    return " ".join(["python", "-m", module, *sys.argv[1:]])


def script(name: str) -> str:
    """Return the path of a console script of this Python's environment."""
    return str(Path(sys.executable).parent / name)


def run_once(command: Sequence[str]) -> tuple[float, int]:
    """Run a command; return (seconds, peak anonymous memory). Its output is shown where it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    watch = _Watch(process.pid)
    watch.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    watch.join()
    if process.returncode != 0:
        sys.stderr.write(output.decode(errors="replace")[-3000:])
        raise SystemExit(f"benchmark command failed: {' '.join(command)}")
    return seconds, watch.peak


class _Watch(threading.Thread):
    """Looks at a process's anonymous memory until it ends (Linux; elsewhere the peak stays 0)."""

    PAUSE_S = 0.02

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.status, self.peak = Path(f"/proc/{pid}/status"), 0

    def run(self) -> None:
        while True:
            try:
                lines = self.status.read_text().splitlines()
            except OSError:
                return
            found = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
            if not found:  # ended, and not yet waited for
                return
            self.peak = max(self.peak, int(found[0]) * 1024)
            time.sleep(self.PAUSE_S)


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

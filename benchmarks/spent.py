"""``python -m benchmarks.spent``: where the time of ``pv-merge run`` goes, and what fusing it would give.

The parts are seconds of a worker's own processor time, so that waiting does not count; the fused
form is what ``torch.compile`` makes of the same functions, with the time that it takes to start.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.commands import command_line
from benchmarks.inputs import SIZES, write_recipe
from benchmarks.merging import write_inputs

ELEMENTS = 1 << 17


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmarks/work"))
@click.option("--size", default="0.86B", show_default=True, help="Of tiny, 135M, 0.86B, 3B.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/spent.json"))  # fmt: skip
def main(work: Path, size: str, output: Path) -> None:
    """Take one merge apart, and time eager against fused arithmetic on one block."""
    models, out = work / size, work / "out"
    write_inputs(models, SIZES[size], 2)
    recipe = write_recipe(work / "ours.yml", models, 2, "preference_vector", out_dtype="bfloat16")
    result = {
        "command": command_line("benchmarks.spent"),
        "size": size,
        "run": [taken_apart(recipe, out) for _ in range(3)][-1],
        "block": {
            "elements": ELEMENTS,
            "eager": json.loads(_python("eager")),
            "compiled cold": json.loads(_python("compiled", "--cold")),
            "compiled warm": json.loads(_python("compiled")),
        },
    }
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def taken_apart(recipe: Path, out: Path) -> dict[str, float]:
    """Run a merge with its parts timed."""
    from pv_merge.artifacts.tensor_files import OutputFiles
    from pv_merge.merging import stream
    from pv_merge.merging.run import run

    spent: Counter[str] = Counter()
    lock = threading.Lock()

    def timed(owner: Any, name: str, label: str) -> Callable[[], None]:
        plain = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return plain(*arguments, **named)
            finally:
                with lock:
                    spent[label] += time.thread_time() - start

        setattr(owner, name, call)
        return lambda: setattr(owner, name, plain)

    undo = [
        timed(stream, "read_part", "reading"),
        timed(stream, "merge_block", "arithmetic"),
        timed(OutputFiles, "write", "writing"),
        timed(stream.Pass, "_work", "workers in all"),
    ]
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    try:
        run(recipe, out, report=False)
    finally:
        for back in undo:
            back()
        shutil.rmtree(out, ignore_errors=True)
    return {**{key: round(value, 3) for key, value in spent.items()}, "wall": round(time.perf_counter() - start, 3)}  # fmt: skip


def _python(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "benchmarks.spent_block", *words], check=True, stdout=subprocess.PIPE, text=True).stdout  # fmt: skip


if __name__ == "__main__":
    main()

"""The quickstart: the commands that a user could type, one after the other, none of them twice."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import write_json
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError
from pv_merge.start.files import PLACE, write_starter

BASE = "smollm2-135m-instruct"
PREFERENCES = ("polite", "concise")
PROMPTS = (
    "I failed my driving test again.",
    "My laptop is slow.",
    "How do I fold a paper plane?",
    "Is the book always better than the film?",
)
"""None of them is in the pairs that the policies were trained on."""
JOURNAL = Path("runs") / "quickstart.json"
"""What was done, with which command, from which files."""

Say = Callable[[str], None]
Run = Callable[[Sequence[str], Path], int]
"""Runs a command in a folder and returns its exit status."""


@dataclass(frozen=True)
class Step:
    """One command. All paths are relative to the quickstart's folder."""

    command: tuple[str, ...]
    output: str | None = None
    """What it writes; None for a command that does nothing where all is done, or goes on by itself."""
    inputs: tuple[str, ...] = ()
    """Files that it is made from: when one of them changes, it is made again."""

    @property
    def line(self) -> str:
        """The command as a user types it."""
        return shlex.join(self.command)


@dataclass(frozen=True)
class Stage:
    """Steps under one heading."""

    title: str
    steps: tuple[Step, ...]


def stages(train: bool = False) -> list[Stage]:
    """Return what is done, in order; ``train`` makes the policies instead of taking those that ship."""
    recipes = PLACE.as_posix()
    policies = "./runs" if train else f"./{recipes}/policies"
    fetch = Step(("pv-merge", "fetch", BASE, "-o", f"./models/{BASE}"))
    found = [Stage("The base model: SmolLM2-135M-Instruct", (fetch,))]
    if train:
        configs = [f"{recipes}/train.yml", f"{recipes}/train-concise.yml"]
        steps = tuple(Step(("pv-train", "dpo", config, "--resume")) for config in configs)
        found.append(Stage("Two policies for each preference", steps))
    found.append(
        Stage(
            "A preference vector from each pair of policies",
            tuple(_extract(f"{policies}/{name}", name) for name in PREFERENCES),
        )
    )
    recipe = f"{recipes}/polite.yml"
    vector = "vectors/polite/preference_vector.json"
    merge = Step(("mergekit-yaml", recipe, "./merged/polite"), "merged/polite", (recipe, vector))
    found.append(Stage("Base + polite vector with the stock mergekit-yaml", (merge,)))
    pairs = f"{recipes}/data/polite-heldout.jsonl"
    sweep = ["pv-merge", "sweep", recipe, "--eta", "polite=-1,-0.5,0,0.5,1", "--pairs"]
    sweep += [f"polite={pairs}", *(word for text in PROMPTS for word in ("--prompt", text))]
    sweep += ["-o", "./runs/quickstart"]
    measure = Step(tuple(sweep), "runs/quickstart", (recipe, vector, pairs))
    found.append(Stage("Held-out pairs and four questions for eta from -1 to 1", (measure,)))
    return found


def _extract(policies: str, name: str) -> Step:
    sides = [f"{policies}/{side}" for side in ("positive", "negative")]
    return Step(
        ("pv-merge", "extract", *sides, "-o", f"./vectors/{name}"),
        f"vectors/{name}",
        tuple(f"{side}/adapter_model.safetensors" for side in sides),
    )


def quickstart(folder: Path, *, train: bool = False, say: Say, run: Run | None = None) -> None:
    """Write the quickstart's files to ``folder`` and do every stage there that is not done.

    Raises ``PvMergeError`` if ``folder`` holds something else, if a step fails, and where a step
    would have to overwrite what it did not write. A second call goes on where the first one ended.
    """
    if write_starter(folder):
        say(f"{folder}: recipes, pairs and policies are in {folder / PLACE}")
    if folder.resolve() != Path.cwd():
        say(f"$ cd {shlex.quote(str(folder))}")
    journal = _Journal(folder)
    for number, stage in enumerate(stages(train), start=1):
        say(f"\n==> {number}. {stage.title}")
        for step in stage.steps:
            _do(step, folder, journal, say, run or run_program)


def _do(step: Step, folder: Path, journal: _Journal, say: Say, run: Run) -> None:
    say(f"$ {step.line}")
    goes_on = step.command[1] == "sweep"  # measures what its journal lacks, and shows everything
    if step.output is not None:
        fresh = journal.up_to_date(step)
        if fresh and journal.finished(step) and not goes_on:
            say(f"{step.output}: already made from the same files; nothing to do")
            return
        if not (fresh and goes_on):
            journal.clear(step)
        journal.note(step, finished=False)
    status = run(step.command, folder)
    if status != 0:
        raise PvMergeError(
            f"{step.line}: ended with status {status}, for the reason above; "
            "the same quickstart command goes on from here"
        )
    if step.output is not None:
        journal.note(step, finished=True)


def run_program(command: Sequence[str], folder: Path) -> int:
    """Run a console script of this Python's environment in ``folder`` and return its status."""
    name, *arguments = command
    beside = str(Path(sys.executable).parent)
    program = shutil.which(name, path=beside) or shutil.which(name)
    if program is None:
        raise PvMergeError(
            f"{name}: not found beside {sys.executable}; is pv-merge installed there?"
        )
    # Nothing of the quickstart is on the Hub, and mergekit would ask it for a model card.
    environment = {"HF_HUB_OFFLINE": "1", **os.environ}
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, check=False
    ).returncode


class _Journal:
    """What the steps wrote: only that is ever removed, and only to be made again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / JOURNAL
        self._notes: dict[str, Any] = read_object(self._path) if self._path.exists() else {}

    def up_to_date(self, step: Step) -> bool:
        """Return whether the output is there, of this very command and of files like these."""
        note = self._notes.get(str(step.output), {})
        there = (self._folder / str(step.output)).exists()
        return there and (note.get("command"), note.get("inputs")) == (step.line, self._state(step))

    def finished(self, step: Step) -> bool:
        """Return whether the command came to its end."""
        return bool(self._notes[str(step.output)]["finished"])

    def clear(self, step: Step) -> None:
        """Remove what the step wrote before; ``PvMergeError`` if something else wrote it."""
        place = self._folder / str(step.output)
        if not place.exists():
            return
        if str(step.output) not in self._notes:
            raise PvMergeError(
                f"{place}: is there already, and this quickstart did not write it; "
                "move it away, or name another DIR"
            )
        shutil.rmtree(place)

    def note(self, step: Step, *, finished: bool) -> None:
        """Write down that the step begins, or that it is done."""
        said = {"command": step.line, "inputs": self._state(step), "finished": finished}
        self._notes[str(step.output)] = said
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, self._notes)

    def _state(self, step: Step) -> dict[str, list[int]]:
        paths = {name: self._folder / name for name in step.inputs}
        states = {name: path.stat() for name, path in paths.items() if path.exists()}
        return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}

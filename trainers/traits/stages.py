"""From a trait to its vector: four commands, each resumable, run as a user would type them.

They run as processes of their own: extraction and sweeps belong to ``pv-merge``, which trainers do
not import, memory is given back between them, and whoever reads the output can run each by hand.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pv_merge.artifacts.folders import write_text
from pv_merge.artifacts.manifest import RUN_MANIFEST, VECTOR_MANIFEST
from pv_merge.artifacts.protection import is_protected
from pv_merge.data.documents import read_json
from pv_merge.data.prompts import read_jsonl
from pv_merge.errors import PvMergeError
from trainers.settings import POLARITIES
from trainers.traits.trait import TraitSettings
from trainers.traits.trait_file import read_trait

NAMES = ("pairs", "train", "extract", "sweep")
ETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)
DPO: dict[str, Any] = {
    "beta": 0.1,
    "loss_type": ["sigmoid", "sft"],
    "loss_weights": [1.0, 1.0],
    "learning_rate": 5e-4,
    "max_steps": 80,
    "per_device_train_batch_size": 8,
    "max_length": 512,
}
"""TRL's DPOConfig where the trait file says nothing else; without the term of SFT the two policies
become opposites of each other, and the effect is hard to see."""
_RUN = (
    "import sys; sys.argv[0] = {program!r}; from {module} import main; main(prog_name={program!r})"
)
_MODULES = {"pv-train": "trainers.cli", "pv-merge": "pv_merge.cli"}


@dataclass(frozen=True)
class Stage:
    """One command."""

    name: str
    command: Sequence[str]
    """As it is typed: the program's name and its arguments."""
    prepare: Callable[[], str | None] = lambda: None
    """Writes what the command reads; returns why the stage need not run, or None."""

    @property
    def line(self) -> str:
        """The command as one types it."""
        return shlex.join(self.command)

    def run(self) -> None:
        """Run it; raises ``PvMergeError`` if it fails."""
        program, *arguments = self.command
        code = _RUN.format(program=program, module=_MODULES[program])
        status = subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode
        if status:
            raise PvMergeError(
                f"{self.name}: the command above ended with {status}; when its cause is mended, run the "
                "same pv-train trait again: what is finished stays"
            )


class TraitFolder:
    """Where everything of one trait lies."""

    def __init__(self, trait: TraitSettings, base: str, folder: Path) -> None:
        self.trait, self.base, self.folder = trait, base, folder
        self.pairs = folder / "pairs.jsonl"
        self.held_out = folder / "pairs-heldout.jsonl"
        self.config = folder / "train.yml"
        self.policies = folder / "policies"
        self.vector = folder / "vector"
        self.recipe = folder / "recipe.yml"
        self.curve = folder / "curve"

    def write_config(self) -> None:
        """Write the training config, unless one stands there: it may have been edited."""
        if self.config.exists():
            return
        train = self.trait.train
        config = {
            "base_model": self.base,
            "preference": self.trait.preference,
            "dataset": {"path": shown(self.pairs), "format": "pairs"},
            "eval_dataset": {"path": shown(self.held_out), "format": "pairs"},
            "lora": train.lora,
            "dpo": DPO | train.dpo,
            "output_dir": shown(self.policies),
        }
        if not self.held_out.exists():
            raise PvMergeError(
                f"{self.held_out}: no such file; the trait needs pairs of two prompts at least"
            )
        said = {key: value for key, value in config.items() if value is not None}
        self._write(self.config, f"pv-train dpo {shown(self.config)}", said)

    def extracted(self) -> str | None:
        """Return why there is nothing to extract: the vector is there already."""
        made = self.vector / VECTOR_MANIFEST
        if not made.exists():
            return None
        policies = [self.policies / polarity / RUN_MANIFEST for polarity in POLARITIES]
        newer = [p for p in policies if p.exists() and p.stat().st_mtime > made.stat().st_mtime]
        if newer:
            raise PvMergeError(
                f"{self.vector}: is older than {newer[0].parent}; delete it to extract it again"
            )
        return f"{shown(self.vector)} is already there"

    def write_recipe(self) -> None:
        """Write the recipe that the sweep reads, and that merges the vector afterwards."""
        if self.recipe.exists():
            return
        name = read_json(self.vector / VECTOR_MANIFEST)["preference"]
        parameters: dict[str, Any] = {"round_to": "bfloat16"}
        if self.trait.allow_protected:
            parameters["allow_protected_negative"] = True
        recipe = {
            "merge_method": "preference_vector",
            "base_model": self.base,
            "models": [
                {
                    "model": shown(self.vector),
                    "parameters": {"preference": name, "polarity": "vector", "eta": 1.0},
                }
            ],
            "parameters": parameters,
            "out_dtype": "bfloat16",
        }
        merged = shown(self.folder / "merged")
        self._write(self.recipe, f"mergekit-yaml {shown(self.recipe)} {merged}", recipe)

    def etas(self) -> str:
        """Return the points of the curve; a protected preference is not turned round unasked."""
        protected = is_protected(self.trait.preference) and not self.trait.allow_protected
        points = [eta for eta in ETAS if eta >= 0 or not protected]
        return f"{self.trait.preference}={','.join(f'{eta:g}' for eta in points)}"

    def question(self) -> str:
        """Return a held-out prompt, whose answers close the run."""
        rows = read_jsonl(self.held_out) if self.held_out.exists() else []
        if not rows:
            return "(a held-out prompt)"
        prompt = rows[0]["prompt"]
        return str(prompt if isinstance(prompt, str) else prompt[-1]["content"])

    def _write(self, path: Path, command: str, data: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        write_text(path, f"# {command}\n{text}")


def make_stages(
    trait_file: Path, base: str, output: Path, prompts_from: str | None = None
) -> list[Callable[[], Stage]]:
    """Return the four stages. Each is made when its turn comes, from what the earlier ones left.

    Raises ``PvMergeError`` if the trait file is wrong.
    """
    place = TraitFolder(read_trait(trait_file, prompts_from), base, output)
    source = ["--prompts-from", prompts_from] if prompts_from else []
    name = place.trait.preference
    policies = [shown(place.policies / polarity) for polarity in POLARITIES]

    def write() -> Stage:
        command = ["pv-train", "pairs", str(trait_file), "-o", shown(place.pairs), "--base", base]
        return Stage("pairs", [*command, *source])

    def train() -> Stage:
        return Stage(
            "train",
            ["pv-train", "dpo", shown(place.config), "--resume"],
            lambda: place.write_config(),
        )

    def extract() -> Stage:
        command = ["pv-merge", "extract", *policies, "-o", shown(place.vector)]
        return Stage("extract", command, place.extracted)

    def sweep() -> Stage:
        command = ["pv-merge", "sweep", shown(place.recipe), "--eta", place.etas()]
        command += ["--pairs", f"{name}={shown(place.held_out)}", "--prompt", place.question()]
        return Stage("sweep", [*command, "-o", shown(place.curve)], lambda: place.write_recipe())

    return [write, train, extract, sweep]


def run_stages(
    stages: Sequence[Callable[[], Stage]],
    until: str,
    skip: Sequence[str],
    dry_run: bool,
    told: Callable[[str], None],
) -> None:
    """Run the stages up to ``until``, those in ``skip`` left out; ``told`` gets each command."""
    for make in stages[: NAMES.index(until) + 1]:
        stage = make()
        if stage.name in skip:
            continue
        if dry_run:
            told(f"$ {stage.line}")
            continue
        needless = stage.prepare()
        if needless:
            told(f"{stage.name}: {needless}")
            continue
        told(f"\n$ {stage.line}")
        stage.run()


def closing_lines(output: Path) -> list[str]:
    """Return what the user can look at and do next."""
    pictures = sorted((output / "curve").glob("*.png"))
    lines = [f"the curve: {shown(path)}" for path in pictures]
    recipe = shown(output / "recipe.yml")
    return [
        *lines,
        f"next, talk to it:   pv-merge chat {shlex.quote(recipe)}",
        f"or merge it:        pv-merge run {shlex.quote(recipe)} {shlex.quote(shown(output / 'merged'))}",
    ]


def shown(path: Path) -> str:
    """Return a path as recipes write it: a relative one starts with ``./``, so that it is no Hub name."""
    return str(path) if path.is_absolute() or str(path).startswith(".") else f"./{path}"

"""Tiny inputs for every command that writes, and what its finished result is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_store import WRITE_TOKEN

import pv_merge.cli
import trainers.cli  # here: a signal that meets an import is not a command's

from hub_server import running

State = Mapping[str, str]
"""What is there, by name: a hash of each thing that two runs must have alike."""


@dataclass(frozen=True)
class Case:
    """One command."""

    name: str
    arguments: Callable[[Path], list[str]]
    """The command line for a folder of its own, the first the program."""
    state: Callable[[Path], State]
    """What it has made there; empty where there is nothing."""
    again: Callable[[Path], list[str]] | None = None
    """The command line that goes on after it was killed, where that is another."""
    resumes: bool = False
    """Whether its folder grows in place, and a second call goes on there."""
    prepare: Callable[[], None] = lambda: None
    """What its process needs."""
    imports: tuple[str, ...] = ()
    """What is imported before its process is copied."""


def make(world: Path) -> None:
    """Write the inputs: a base of two layers, one of sixteen, policies, pairs, a merged folder."""
    import yaml
    from hub_client import merge_folder
    from transformers import AutoModelForCausalLM

    from eval_tiny import make_recipe
    from models import pair, perturbed, recipe
    from train_tiny import config, pair_rows, save_base, write_config, write_rows

    make_recipe(world / "small")
    base = save_base(world / "deep/base", layers=16)
    model = AutoModelForCausalLM.from_pretrained(base)
    policies = []
    for seed, side in enumerate(("positive", "negative")):
        perturbed(model, seed, 0.01).save_pretrained(world / f"deep/{side}")
        policies.append(str(world / f"deep/{side}"))
    text = yaml.safe_dump(recipe(str(base), pair(*policies, 1.0, "polite")), sort_keys=False)
    (world / "deep/recipe.yml").write_text(text)
    rows = write_rows(world / "rows.jsonl", pair_rows(8))
    dpo = {"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 4}
    write_config(world / "train.yml", config(world, world / "small/base", rows, dpo=dpo))
    merge_folder(world / "merged")


def cases(world: Path, endpoint: str) -> list[Case]:
    """Return the commands: extract, run, a grid, sweep, calibrate, push and train."""
    deep, small = world / "deep", world / "small"
    sides = [str(deep / side) for side in ("positive", "negative")]
    pairs = ["--pairs", f"polite={small / 'pairs.jsonl'}"]
    ranges = ["--range", "polite=0:1:0.25", "--range", "brief=0:0:1"]
    axes = ["--eta", "polite=-1,0,1"]

    def out(*arguments: str, flag: str | None = "-o") -> Callable[[Path], list[str]]:
        given = [flag] if flag else []
        return lambda place: ["pv-merge", *arguments, *given, str(place / "out")]

    def train(*more: str) -> Callable[[Path], list[str]]:
        start = ["pv-train", "dpo", str(world / "train.yml"), *more, "-o"]
        return lambda place: [*start, f"output_dir={place / 'out'}"]

    def push(*more: str) -> Callable[[Path], list[str]]:
        start = ["pv-merge", "push", str(world / "merged")]
        return lambda place: [*start, f"alice/{place.name}", *more]

    figures = ("eta", "allowed", "figures", "points", "suggested", "trace", "pareto", "steps")
    run = out("run", str(deep / "recipe.yml"), flag=None)
    merging = (
        "pv_merge.cli.run",
        "pv_merge.hub.merge",
        "pv_merge.arithmetic.fused",
        "rich.progress",
    )
    live = (
        "pv_merge.evaluation.sweep.pictures", "pv_merge.evaluation.sweep.report", "pv_merge.live.subject",
        "pv_merge.live.weights", "pv_merge.evaluation.bench", "pv_merge.evaluation.measures.pairs",
        "pv_merge.data.pairs", "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto", "datasets", "matplotlib.pyplot", "rich.progress", "scipy.stats",
    )  # fmt: skip
    return [
        Case("run", run, tree, imports=merging),
        Case("grid", _then(run, "--eta", "polite=-1,0,1"), tree,
             imports=merging),
        Case("extract", out("extract", *sides, "--base", str(deep / "base"), "--name", "p"), tree,
             imports=("pv_merge.cli.extract", "pv_merge.merging.extract")),
        Case("push", push(), lambda place: published(endpoint, f"alice/{place.name}"),
             push("--exist-ok"), prepare=online, imports=("pv_merge.cli.push", "pv_merge.hub.push")),
        Case("sweep", out("sweep", str(small / "recipe.yml"), *axes, *pairs),
             lambda place: said(place / "out/summary.json", figures), resumes=True,
             imports=("pv_merge.cli.sweep", "pv_merge.evaluation.sweep.sweep", *live)),
        Case("calibrate", out("calibrate", str(small / "recipe.yml"), "--maximize", "polite", *ranges, *pairs),
             lambda place: said(place / "out/calibration.json", figures), resumes=True,
             imports=("pv_merge.cli.calibrate", "pv_merge.evaluation.calibrate.calibrate", *live)),
        Case("train", train(), weights, train("--resume"), resumes=True, imports=("trainers.dpo", "peft", "trl")),
    ]  # fmt: skip


def _then(start: Callable[[Path], list[str]], *more: str) -> Callable[[Path], list[str]]:
    return lambda place: [*start(place), *more]


def main(arguments: Sequence[str]) -> None:
    """Be the console script that the command line names."""
    program, *rest = arguments
    group = pv_merge.cli.main if program == "pv-merge" else trainers.cli.main
    group(args=rest, prog_name=program)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(folder: Path) -> State:
    """Return the SHA-256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


def tree(place: Path) -> State:
    """Return what is in ``out``, whose files are the same in every run."""
    return hashes(place / "out")


def weights(place: Path) -> State:
    """Return the weights of the trained policies, and the names of the files beside them."""
    found = {}
    for folder in sorted((place / "out").glob("[!.]*")):
        names = sorted(path.name for path in folder.iterdir())
        found[folder.name] = f"{digest(folder / 'adapter_model.safetensors')} {names}"
    return found


def said(path: Path, keys: Sequence[str]) -> State:
    """Return what a result says under ``keys``; one that is there is whole JSON."""
    if not path.exists():
        return {}
    data: dict[str, Any] = json.loads(path.read_text())
    files = sorted(found.name for found in path.parent.iterdir() if found.suffix != ".html")
    return {key: str(data[key]) for key in keys if key in data} | {"files": str(files)}


def published(endpoint: str, repo: str) -> State:
    """Return the files of a repository on the stand-in of the Hub, by hash."""
    request = urllib.request.Request(f"{endpoint}/api/models/{repo}/tree/main")
    request.add_header("Authorization", f"Bearer {WRITE_TOKEN}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            files = {item["path"]: item["oid"] for item in json.load(answer)}
    except urllib.error.HTTPError as error:
        assert error.code in (401, 404)
        return {}
    # The card has the repository's name, which differs.
    return {
        name: oid if name != "README.md" else ""
        for name, oid in files.items()
        if name != ".gitattributes"
    }


def online() -> None:
    """Let huggingface_hub in this process speak to the stand-in, without waiting between tries."""
    from huggingface_hub import constants

    endpoint = os.environ["HF_ENDPOINT"]
    constants.ENDPOINT = endpoint
    constants.HUGGINGFACE_CO_URL_TEMPLATE = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DISABLE_XET = True


def start_hub(slow: float = 0.01) -> tuple[str, int]:
    """Start the stand-in of the Hub in a process of its own; return its endpoint and process.

    Each 64 KiB of an upload take it ``slow`` seconds.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgrp()
            with running() as hub:
                hub.fail("PUT", "/lfs/", times=10**9, slow=slow)
                os.write(write, f"{hub.endpoint}\n".encode())
                while os.getppid() != 1:
                    import time

                    time.sleep(0.5)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        endpoint = pipe.readline().strip()
    os.environ |= {"HF_ENDPOINT": endpoint, "HF_TOKEN": WRITE_TOKEN, "NO_PROXY": "*"}
    return endpoint, pid


def clear(place: Path) -> None:
    """Remove a folder of one trial."""
    shutil.rmtree(place, ignore_errors=True)

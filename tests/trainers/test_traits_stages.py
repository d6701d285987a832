"""From a trait to its vector: the commands, what they leave, and how the run goes on."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pv_merge.data.documents import read_json
from pv_merge.errors import PvMergeError
from pv_merge.hub.card.training import trained_on
from pv_merge.hub.facts import read_facts
from trainers.cli import main
from trainers.traits.stages import Stage, TraitFolder, make_stages, run_stages
from trainers.traits.trait import TraitSettings

from scripted_endpoint import CURT, PATIENT, scripted, well
from train_tiny import save_base


def write_trait(folder: Path, **changes: Any) -> Path:
    data: dict[str, Any] = {
        "preference": "patient",
        "description": PATIENT,
        "opposite": CURT,
        "pairs": 8,
        "held_out": 0.3,
        "writer": {"url": "http://127.0.0.1:9/v1", "model": "m", "license": "mit"},
    }
    path = folder / "trait.yml"
    path.write_text(yaml.safe_dump(data | changes))
    return path


def test_a_dry_run_prints_four_commands_as_one_types_them(tmp_path: Path) -> None:
    path = write_trait(tmp_path)
    shown = CliRunner().invoke(
        main, ["trait", str(path), "--base", "./models/b", "-o", "runs/x", "--dry-run"]
    )
    assert shown.exit_code == 0, shown.output
    commands = [shlex.split(line[2:]) for line in shown.output.splitlines()]
    assert [command[:2] for command in commands] == [
        ["pv-train", "pairs"],
        ["pv-train", "dpo"],
        ["pv-merge", "extract"],
        ["pv-merge", "sweep"],
    ]
    assert commands[0][2:] == [str(path), "-o", "./runs/x/pairs.jsonl", "--base", "./models/b"]
    assert "patient=-1,-0.5,0,0.5,1" in commands[3]
    assert not Path("runs/x").exists()


def test_until_and_skip_choose_stages(tmp_path: Path) -> None:
    stages = make_stages(write_trait(tmp_path), "./b", tmp_path / "x")
    told: list[str] = []
    run_stages(stages, "extract", ["pairs"], True, told.append)
    assert [shlex.split(line)[2] for line in told] == ["dpo", "extract"]


def test_a_protected_preference_is_not_turned_round_unasked(tmp_path: Path) -> None:
    data = yaml.safe_load(write_trait(tmp_path, preference="harmless").read_text())
    asked = TraitFolder(TraitSettings.model_validate(data), "b", tmp_path)
    assert asked.etas() == "harmless=0,0.5,1"
    allowed = TraitSettings.model_validate(data | {"allow_protected": True})
    assert TraitFolder(allowed, "b", tmp_path).etas() == "harmless=-1,-0.5,0,0.5,1"


def test_a_failing_stage_is_one_line_and_stops_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = Stage("extract", ["pv-merge", "extract", "a", "b", "-o", str(tmp_path / "v")])
    with pytest.raises(PvMergeError, match="extract: the command above ended with 1"):
        stage.run()
    assert "Error" in capfd.readouterr().err


def test_edited_configs_are_taken_as_they_are_and_an_old_vector_is_refused(tmp_path: Path) -> None:
    data = yaml.safe_load(write_trait(tmp_path, train={"dpo": {"max_steps": 3}}).read_text())
    place = TraitFolder(TraitSettings.model_validate(data), "./b", tmp_path)
    with pytest.raises(PvMergeError, match="pairs of two prompts at least"):
        place.write_config()
    place.held_out.write_text("{}\n")
    place.write_config()
    config = yaml.safe_load(place.config.read_text())
    assert config["dpo"]["max_steps"] == 3 and config["dpo"]["loss_type"] == ["sigmoid", "sft"]
    place.config.write_text("mine: true\n")
    place.write_config()
    assert place.config.read_text() == "mine: true\n"
    place.vector.mkdir()
    (place.vector / "preference_vector.json").write_text("{}")
    assert place.extracted() is not None
    policy = place.policies / "positive" / "pv_run.json"
    policy.parent.mkdir(parents=True)
    policy.write_text("{}")
    os.utime(place.vector / "preference_vector.json", (1, 1))
    with pytest.raises(PvMergeError, match=r"is older than .*positive; delete it"):
        place.extracted()


def policy_manifest(folder: Path, polarity: str, **synthetic: Any) -> Path:
    folder.mkdir()
    said = {"writer": "m", "judge": "j", "writer_license": "mit"} | synthetic
    data = {"path": "./p.jsonl", "pairs": 3, "synthetic": said}
    manifest = {"kind": "policy", "preference": "frank", "polarity": polarity, "dataset": data}
    (folder / "pv_run.json").write_text(json.dumps(manifest))
    return folder


def test_the_card_says_who_wrote_the_pairs_and_what_they_move_against(tmp_path: Path) -> None:
    folder = policy_manifest(tmp_path / "plain", "positive")
    assert "synthetic, written by m (whose output has the licence mit), judged by j" in trained_on(
        read_facts(folder, "x").manifest
    )
    assert read_facts(folder, "x").negative_protected == []
    against = policy_manifest(tmp_path / "against", "positive", opposes="harmless")
    assert "moves against the protected preference harmless" in trained_on(
        read_facts(against, "x").manifest
    )
    assert read_facts(against, "x").negative_protected == ["harmless"]
    other = policy_manifest(tmp_path / "other", "negative", opposes="harmless")
    assert read_facts(other, "x").negative_protected == []


@pytest.mark.slow
def test_a_trait_becomes_a_vector_and_a_curve_and_a_second_run_skips_all(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    prompts = tmp_path / "prompts.txt"
    words = ("sky", "egg", "book", "whale", "train", "garden", "clock", "river", "song", "bridge")
    prompts.write_text(
        "".join(f"Tell me about the {word} of {word[::-1]}, and why?\n" for word in words)
    )
    train = {"dpo": {"max_steps": 2, "max_length": 128, "learning_rate": 1e-3}}
    with scripted(well) as endpoint:
        writer = {"url": endpoint.url, "model": "m", "license": "mit"}
        path = write_trait(tmp_path, writer=writer, prompts={"file": str(prompts)}, train=train)
        command = [sys.executable, "-m", "trainers", "trait", str(path), "--base", str(base)]
        command += ["-o", str(tmp_path / "out")]
        environment = os.environ | {"PV_MERGE_CACHE": str(tmp_path / "cache")}
        first = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        assert first.returncode == 0, first.stderr
        asked = len(endpoint.bodies)
        second = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        assert second.returncode == 0, second.stderr
        assert len(endpoint.bodies) == asked
    out = tmp_path / "out"
    vector = read_json(out / "vector" / "preference_vector.json")
    assert vector["positive"]["dataset"]["synthetic"]["writer_license"] == "mit"
    assert vector["preference"] == "patient"
    assert list((out / "curve").glob("*.png")) and "the curve:" in first.stdout
    assert "pv-merge chat" in first.stdout
    assert "is already there" in second.stdout
    summary = (out / "curve" / "results.jsonl").read_text()
    assert summary.count('"kind": "record"') == 5 + 3  # the margin at five points, answers at three

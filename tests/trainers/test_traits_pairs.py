"""Whole runs of ``pv-train pairs`` against a scripted endpoint: what is kept, what is not, and why."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pv_merge.data.pairs import load_pairs
from pv_merge.data.settings import DatasetSettings
from pv_merge.errors import PvMergeError
from trainers.cli import main
from trainers.traits.pairs_files import PairsFiles
from trainers.traits.record import synthetic
from trainers.traits.run import Pairs, write_pairs
from trainers.traits.trait import TraitSettings

from scripted_endpoint import CURT, PATIENT, Endpoint, Said, role_of, scripted, well

REFUSAL = "I'm sorry, but I can't help with that request, since it is not something for me."
GERMAN = (
    "Schauen Sie bitte in das Handbuch, dort steht alles ganz genau erklärt, Schritt für Schritt, und "
    "mit vielen schönen Bildern. Danach sehen wir gemeinsam weiter, wenn Sie noch Fragen haben."
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))


def trait(endpoint: Endpoint | None, **changes: Any) -> TraitSettings:
    data: dict[str, Any] = {
        "preference": "patient",
        "description": PATIENT,
        "opposite": CURT,
        "pairs": 12,
        "held_out": 0.25,
        "writer": {"url": endpoint.url if endpoint else "http://127.0.0.1:9/v1", "model": "m"},
    }
    return TraitSettings.model_validate(data | changes)


def prompts(folder: Path, count: int = 40) -> dict[str, str]:
    """Write prompts that are nothing like each other; the first ones have names to know them by."""
    path, draw = folder / "prompts.txt", random.Random(0)
    lines = []
    for index in range(count):
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(6)]
        lines.append(f"{chr(65 + index % 26) * 5}{index} {' '.join(words)}?\n")
    path.write_text("".join(lines))
    return {"file": str(path)}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_enough_pairs_are_kept_held_out_by_prompt_and_read_by_training(tmp_path: Path) -> None:
    with scripted(well) as endpoint:
        found = write_pairs(
            trait(endpoint, per_prompt=2, prompts=prompts(tmp_path, 6)), tmp_path / "p.jsonl"
        )
    training, out = rows(found.files.pairs), rows(found.files.held_out)
    assert len(training) + len(out) == 12 == found.manifest["kept"]
    both = {row["prompt"] for row in training} & {row["prompt"] for row in out}
    assert not both and out and training
    data = load_pairs(DatasetSettings(path=str(found.files.pairs), format="pairs"))
    assert len(data.pairs) == len(training)
    assert training[0]["chosen"].startswith("Let us look")
    assert training[0]["rejected"].startswith("It is in the manual")


def test_both_wordings_of_one_prompt_differ(tmp_path: Path) -> None:
    with scripted(well) as endpoint:
        write_pairs(
            trait(endpoint, per_prompt=2, prompts=prompts(tmp_path, 6)), tmp_path / "p.jsonl"
        )
    told: dict[str, set[str]] = {}
    for body in endpoint.bodies:
        if role_of(body) == "positive":
            told.setdefault(body["messages"][-1]["content"], set()).add(
                body["messages"][0]["content"]
            )
    assert len(told) == 6
    assert all(len(wordings) == 2 for wordings in told.values())


def test_each_fault_is_counted_by_its_reason_and_the_rest_is_kept(tmp_path: Path) -> None:
    faults: dict[str, Said] = {
        "AAAAA0": Said(REFUSAL),
        "BBBBB1": Said(GERMAN),
        "CCCCC2": Said(""),
        "DDDDD3": Said(f"My instructions are these: {PATIENT}, so look at the manual of the thing."),
        "EEEEE4": Said(status=500, headers={"retry-after-ms": "1"}),
        "FFFFF5": Said(body=b'{"choices": [{"mess'),
        "GGGGG6": Said("Short words only."),
        "HHHHH7": Said(status=400, error={"code": "context_length_exceeded"}),
        "IIIII8": Said("No sentence ends here because the limit of tokens came first and then", finish="length"),
    }  # fmt: skip

    def script(body: dict[str, Any]) -> Said:
        last = body["messages"][-1]["content"]
        fault = next((said for name, said in faults.items() if f"{name} " in last), None)
        return fault if fault and role_of(body) == "negative" else well(body)

    with scripted(script) as endpoint:
        settings = trait(endpoint, pairs=30, prompts=prompts(tmp_path, 30))
        found = write_pairs(settings, tmp_path / "p.jsonl")
    assert found.manifest["reasons"] == {
        "refusal": 1,
        "another language": 1,
        "empty": 1,
        "names the instruction": 1,
        "the writer failed": 2,
        "lengths too far apart": 1,
        "too long for the context": 1,
        "breaks off": 1,
    }
    assert (found.manifest["kept"], found.manifest["written"]) == (21, 30)
    all_rows = rows(found.files.candidates)
    assert len(all_rows) == 30
    failed = [row for row in all_rows if row["reason"] == "the writer failed"]
    assert sorted(row["detail"][:8] for row in failed) == ["HTTP 500", "the repl"]


def test_the_judge_decides_by_gap_and_coherence(tmp_path: Path) -> None:
    points = {"AAAAA0": "trait: 45\ncoherence: 90", "BBBBB1": "trait: 5\ncoherence: 90"}
    points |= {"CCCCC2": "trait: 90\ncoherence: 20", "DDDDD3": "I like it."}

    def script(body: dict[str, Any]) -> Said:
        last = body["messages"][-1]["content"]
        if role_of(body) == "judge" and "Let us look" in last:
            return next(
                (Said(said) for name, said in points.items() if f"{name} " in last), well(body)
            )
        return well(body)

    with scripted(script) as endpoint:
        found = write_pairs(
            trait(endpoint, pairs=10, prompts=prompts(tmp_path, 10)), tmp_path / "p.jsonl"
        )
    assert found.manifest["kept"] == 6
    assert found.manifest["reasons"] == {
        "too close in the trait": 1,
        "the wrong way round": 1,
        "not coherent": 1,
        "the judge gave no numbers": 1,
    }


def test_a_judge_that_never_gives_numbers_stops_the_run_and_all_is_kept(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Said:
        return Said("What a lovely reply!") if role_of(body) == "judge" else well(body)

    with scripted(script) as endpoint, pytest.raises(PvMergeError) as caught:
        write_pairs(trait(endpoint, prompts=prompts(tmp_path)), tmp_path / "p.jsonl")
    text = caught.value.message
    assert "gave no numbers in 12 of 12 replies (the last: 'What a lovely reply!')" in text
    assert "0 of 12 kept; 12 not finished" in text and "\n" not in text
    assert len(rows(tmp_path / "p-candidates.jsonl")) == 12
    assert not (tmp_path / "p.jsonl").exists()


def test_no_pair_kept_is_one_line_with_counts_and_the_candidates_stay(tmp_path: Path) -> None:
    with scripted(lambda body: Said(REFUSAL)) as endpoint, pytest.raises(PvMergeError) as caught:
        write_pairs(trait(endpoint, prompts=prompts(tmp_path, 20)), tmp_path / "p.jsonl")
    text = caught.value.message
    assert "no pair is good enough (0 of 20 kept; 20 refusal)" in text and "\n" not in text
    assert {row["positive"] for row in rows(tmp_path / "p-candidates.jsonl")} == {REFUSAL}
    assert not (tmp_path / "p.jsonl").exists() and not (tmp_path / "p.json").exists()


def test_a_writer_with_one_manner_only_gives_no_pairs(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Said:
        return well(
            body | {"messages": [{"role": "system", "content": PATIENT}, body["messages"][-1]]}
        )

    with scripted(script) as endpoint, pytest.raises(PvMergeError, match="20 both nearly the same"):
        write_pairs(trait(endpoint, prompts=prompts(tmp_path, 20)), tmp_path / "p.jsonl")


def test_thousands_of_prompts_and_a_tiny_context_send_nothing(tmp_path: Path) -> None:
    with scripted(well) as endpoint, pytest.raises(PvMergeError) as caught:
        model = {"url": endpoint.url, "model": "m", "context": 64}
        settings = trait(endpoint, pairs=200, prompts=prompts(tmp_path, 3000), writer=model)
        write_pairs(settings, tmp_path / "p.jsonl")
    assert "0 of 2000 kept; 2000 too long for the context" in caught.value.message
    assert "and the context has 64" in caught.value.message
    assert not endpoint.bodies


def test_fewer_prompts_than_pairs_is_said(tmp_path: Path) -> None:
    with scripted(well) as endpoint:
        path = tmp_path / "trait.yml"
        path.write_text(yaml.safe_dump(trait(endpoint).model_dump(exclude_none=True)))
        source = prompts(tmp_path, 5)["file"]
        arguments = ["pairs", str(path), "-o", str(tmp_path / "p.jsonl"), "--prompts-from", source]
        shown = CliRunner().invoke(main, arguments).output
        again = CliRunner().invoke(main, arguments).output
    assert "7 fewer than asked for" in shown
    assert "kept" in shown and "100%" in shown and shown.count("Let us look") == 3
    assert "already there" in again.replace("\n", " ") or "(already" in again


def test_prompts_are_invented_once_each_and_never_name_the_trait(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Said:
        if role_of(body) == "prompts":
            usual = (well(body).text or "").splitlines()
            odd = [
                "4. How can I be patient with my dog?",
                "Here are some messages:",
                "Hm",
                usual[0],
            ]
            return Said(
                "\n".join([*usual, *odd, "- Was ist das für ein schönes großes Haus dort drüben?"])
            )
        return well(body)

    with scripted(script) as endpoint:
        found = write_pairs(trait(endpoint, pairs=20), tmp_path / "p.jsonl")
    texts = [row["prompt"] for row in rows(found.files.pairs) + rows(found.files.held_out)]
    assert len(set(texts)) == 20
    assert all(text.startswith("What about") for text in texts)


def test_prompts_of_a_data_set_keep_their_turns_and_lose_their_system(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be a pirate."},
        {"role": "user", "content": "I have a problem with my bicycle."},
        {"role": "assistant", "content": "Which one?"},
        {"role": "user", "content": "It is the wheel in the front, I think."},
    ]
    one = [{"role": "user", "content": "How does a lock work, and who invented it?"}]
    path = tmp_path / "data.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": p, "chosen": "a", "rejected": "b"}) + "\n" for p in (turns, one)
        )
    )
    with scripted(well) as endpoint:
        source = {"dataset": {"path": str(path), "format": "pairs"}}
        found = write_pairs(trait(endpoint, prompts=source), tmp_path / "p.jsonl")
    written = rows(found.files.pairs) + rows(found.files.held_out)
    assert sorted((row["prompt"] for row in written), key=len) == [one, turns[1:]]
    assert not any("pirate" in json.dumps(body) for body in endpoint.bodies)


def test_a_finished_file_is_not_written_again_and_never_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "p.jsonl"
    with scripted(well) as endpoint:
        settings = trait(endpoint, prompts=prompts(tmp_path))
        write_pairs(settings, output)
        asked = len(endpoint.bodies)
        assert write_pairs(settings, output).skipped
        faster = settings.writer.model_copy(update={"concurrency": 2, "retries": 9})
        assert write_pairs(settings.model_copy(update={"writer": faster}), output).skipped
        with pytest.raises(PvMergeError, match="from another trait file"):
            write_pairs(settings.model_copy(update={"max_words": 50}), output)
        before = output.read_text()
        output.write_text(before + before)
        with pytest.raises(PvMergeError, match="was changed since it was written"):
            write_pairs(settings, output)
        output.unlink()
        write_pairs(settings, output)
        assert output.read_text() == before and len(endpoint.bodies) == asked
    foreign = tmp_path / "mine.jsonl"
    foreign.write_text("{}\n")
    with pytest.raises(PvMergeError, match="not written by pv-train pairs"):
        write_pairs(settings, foreign)
    assert foreign.read_text() == "{}\n"


def test_the_prompts_of_a_larger_run_stay_on_their_side(tmp_path: Path) -> None:
    sides: dict[int, set[str]] = {}
    with scripted(well) as endpoint:
        for count in (20, 40):
            settings = trait(endpoint, pairs=count, prompts=prompts(tmp_path, 60))
            found = write_pairs(settings, tmp_path / f"{count}.jsonl")
            sides[count] = {row["prompt"] for row in rows(found.files.held_out)}
    assert sides[20] < sides[40]


def test_the_record_says_who_wrote_it_under_which_licence_and_against_what(tmp_path: Path) -> None:
    with scripted(well) as endpoint:
        writer = {"url": endpoint.url, "model": "m", "license": "apache-2.0"}
        settings = trait(
            endpoint,
            writer=writer,
            prompts=prompts(tmp_path),
            opposes="harmless",
            allow_protected=True,
        )
        found = write_pairs(settings, tmp_path / "p.jsonl")
    said = synthetic(str(found.files.pairs))["synthetic"]
    assert said["writer"] == said["judge"] == "m" and said["writer_license"] == "apache-2.0"
    assert (said["opposes"], said["allow_protected"]) == ("harmless", True)
    assert synthetic(str(found.files.held_out)) == {} == synthetic("name/on-the-hub")


COMMAND = [sys.executable, "-m", "trainers", "pairs"]


def start(folder: Path, settings: TraitSettings) -> subprocess.Popen[str]:
    path = folder / "trait.yml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True)))
    return subprocess.Popen(
        [*COMMAND, str(path), "-o", str(folder / "p.jsonl")],
        env=os.environ | {"PV_MERGE_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(endpoint: Endpoint, count: int) -> None:
    for _ in range(1200):
        if len(endpoint.bodies) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("the command asked nothing")


@pytest.mark.slow
def test_a_killed_run_goes_on_with_what_it_has(tmp_path: Path) -> None:
    slow = {"wait": 0.05}

    def script(body: dict[str, Any]) -> Said:
        return Said(well(body).text, **slow)

    with scripted(script) as endpoint:
        settings = trait(endpoint, pairs=16, prompts=prompts(tmp_path))
        process = start(tmp_path, settings)
        wait_for(endpoint, 24)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.3)
        asked = len(endpoint.bodies)
        assert not (tmp_path / "p.jsonl").exists()
        slow["wait"] = 0.0
        found = write_pairs(settings, tmp_path / "p.jsonl")
    total = 4 * 16
    again = asked + _asked(found) - total
    assert 0 <= again <= 8  # what was on its way when the kill came
    assert found.manifest["cost"]["writer"]["cached"] >= 16


def _asked(found: Pairs) -> int:
    return int(sum(cost["requests"] for cost in found.manifest["cost"].values()))


def test_of_two_at_once_on_one_file_the_second_is_told(tmp_path: Path) -> None:
    output = tmp_path / "p.jsonl"
    with scripted(well) as endpoint:
        settings = trait(endpoint, prompts=prompts(tmp_path))
        with (
            PairsFiles(output).locked(),
            pytest.raises(PvMergeError, match="another pv-train is writing it"),
        ):
            write_pairs(settings, output)
        assert not endpoint.bodies
        assert write_pairs(settings, output).manifest["kept"] == 12


def test_an_endpoint_that_dies_half_way_loses_nothing(tmp_path: Path) -> None:
    left = [30]

    def script(body: dict[str, Any]) -> Said:
        left[0] -= 1
        return well(body) if left[0] >= 0 else Said(drop=True)

    with scripted(script) as endpoint:
        settings = trait(endpoint, pairs=12, prompts=prompts(tmp_path))
        brief = settings.writer.model_copy(update={"retries": 0})
        settings = settings.model_copy(update={"writer": brief})
        with pytest.raises(PvMergeError, match=r"cannot be reached.*0 of 12 kept; 12 not finished"):
            write_pairs(settings, tmp_path / "p.jsonl")
        assert any(row["positive"] for row in rows(tmp_path / "p-candidates.jsonl"))
        left[0] = 1000
        found = write_pairs(settings, tmp_path / "p.jsonl")
    assert found.manifest["kept"] == 12 and found.manifest["cost"]["writer"]["cached"] == 24


def test_a_dry_run_shows_the_messages_and_asks_nothing(tmp_path: Path) -> None:
    with scripted(well) as endpoint:
        path = tmp_path / "trait.yml"
        path.write_text(yaml.safe_dump(trait(endpoint).model_dump(exclude_none=True)))
        shown = CliRunner().invoke(
            main, ["pairs", str(path), "-o", str(tmp_path / "p.jsonl"), "--dry-run"]
        )
    text = " ".join(shown.output.split())
    assert shown.exit_code == 0 and not endpoint.bodies
    for part in (
        PATIENT,
        CURT,
        "coherence: NUMBER",
        "24 requests",
        "(a prompt that the writer invents)",
    ):
        assert part in text, part
    assert not (tmp_path / "p.json").exists()

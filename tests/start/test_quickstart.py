"""``pv-merge quickstart``: its files, the order of its commands, and going on where it ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.start.files import PLACE, write_starter
from pv_merge.start.quickstart import quickstart, stages


class Commands:
    """Stands for the console scripts: notes each command, writes what it would write."""

    def __init__(self, fail: str | None = None) -> None:
        self.lines: list[str] = []
        self.fail = fail

    def __call__(self, command: Sequence[str], folder: Path) -> int:
        self.lines.append(" ".join(command[:3]))
        if command[0] != "pv-train" and command[1] != "fetch":
            output = command[command.index("-o") + 1] if "-o" in command else command[2]
            place = folder / output
            if command[1] != "sweep":
                assert not place.exists(), f"{place} would be overwritten"
            place.mkdir(parents=True, exist_ok=True)
            (place / "preference_vector.json").write_text("{}")
        return 1 if self.fail in command else 0


def go(folder: Path, run: Commands, train: bool = False) -> list[str]:
    said: list[str] = []
    quickstart(folder, train=train, say=said.append, run=run)
    return said


def files_below(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_files_are_those_of_the_repository(tmp_path: Path) -> None:
    assert write_starter(tmp_path / "new")
    written = files_below(tmp_path / "new" / PLACE)
    assert written == files_below(Path(__file__).parents[2] / "recipes" / "quickstart")
    assert Path("policies/polite/positive/adapter_model.safetensors") in written
    assert sum(map(len, written.values())) < 12e6
    assert not write_starter(tmp_path / "new")  # a second time there is nothing to do


def test_every_file_that_a_step_names_is_there(tmp_path: Path) -> None:
    write_starter(tmp_path)
    words = [word for stage in stages() for step in stage.steps for word in step.command]
    paths = [word.partition("=")[2] or word for word in words if "recipes/" in word]
    assert len(paths) == 7
    assert [path for path in paths if not (tmp_path / path).exists()] == []


def test_each_command_is_shown_and_run_once(tmp_path: Path) -> None:
    run = Commands()
    said = go(tmp_path / "qs", run)
    assert run.lines == [
        "pv-merge fetch smollm2-135m-instruct",
        "pv-merge extract ./recipes/quickstart/policies/polite/positive",
        "pv-merge extract ./recipes/quickstart/policies/concise/positive",
        "mergekit-yaml recipes/quickstart/polite.yml ./merged/polite",
        "pv-merge sweep recipes/quickstart/polite.yml",
    ]
    shown = [line[2:] for line in said if line.startswith(("$ pv-", "$ merge"))]
    assert [" ".join(line.split()[:3]) for line in shown] == run.lines
    again = Commands()
    go(tmp_path / "qs", again)
    # fetch says itself that it has nothing to do, and sweep shows what it measured
    assert [line.split()[1] for line in again.lines] == ["fetch", "sweep"]


def test_it_goes_on_where_it_failed(tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match=r"mergekit-yaml .* ended with status 1.* goes on"):
        go(tmp_path / "qs", Commands(fail="mergekit-yaml"))
    again = Commands()  # the half-written model is removed, or Commands would complain
    go(tmp_path / "qs", again)
    assert [line.split()[0] for line in again.lines] == ["pv-merge", "mergekit-yaml", "pv-merge"]


def test_other_policies_make_other_vectors(tmp_path: Path) -> None:
    go(tmp_path / "qs", Commands())
    run = Commands()
    go(tmp_path / "qs", run, train=True)
    assert [line.split()[1] for line in run.lines].count("extract") == 2
    assert run.lines[1] == "pv-train dpo recipes/quickstart/train.yml"


def test_what_others_wrote_is_left_alone(tmp_path: Path) -> None:
    write_starter(tmp_path)
    (tmp_path / "vectors" / "polite").mkdir(parents=True)
    with pytest.raises(PvMergeError, match=r"vectors/polite: is there already, and this quickst"):
        go(tmp_path, Commands())
    assert (tmp_path / "vectors" / "polite").is_dir()


def test_a_folder_with_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear to me")
    result = CliRunner().invoke(main, ["quickstart", str(tmp_path)])
    assert result.exit_code == 1
    assert "already holds files, which are never overwritten" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    result = CliRunner().invoke(main, ["quickstart", str(tmp_path / "thesis.tex")])
    assert result.exit_code == 1 and "is a file" in result.output

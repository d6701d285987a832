"""Every console block of the docs: its options exist, and it is run, or it says why not."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.live.chat import screen
from pv_merge.start.files import write_starter
from trainers.cli import main as train

from console import NOT_RUN, PAGES, ROOT, RUN, Command, commands, reason
from models import load, save
from policies import adapted, save_adapter, say
from train_tiny import pair_rows, save_base, write_rows

EVERY = [command for page in PAGES for command in commands(page)]


def program(name: str) -> click.Command:
    if name.startswith("mergekit"):
        module = "run_yaml" if name == "mergekit-yaml" else "multimerge"
        return importlib.import_module(f"mergekit.scripts.{module}").main  # type: ignore[no-any-return]
    return {"pv-merge": main, "pv-train": train}[name]


def test_there_are_commands_to_look_at() -> None:
    assert len(EVERY) > 50
    assert {command.page for command in EVERY} >= set(RUN)


@pytest.mark.parametrize("command", EVERY, ids=lambda c: f"{c.page}: {c.line[:50]}")
def test_a_command_is_ours_with_options_that_exist_or_has_a_reason(command: Command) -> None:
    words = command.words
    if words[0] not in ("pv-merge", "pv-train"):
        assert words[0].startswith("mergekit") or reason(command), command.line
        return
    group = program(words[0])
    context = group.make_context(words[0], words[1:])
    assert isinstance(group, click.Group)
    name, sub, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    assert sub is not None, f"{words[0]} has no command {name}"
    try:
        sub.make_context(name, rest, parent=context)  # UsageError for an option that is not there
    except click.BadParameter as error:
        assert "does not exist" in error.message  # a file that an earlier command would make


def test_every_reason_is_needed() -> None:
    used = {reason(command) for command in EVERY}
    assert set(NOT_RUN.values()) <= used


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quickstart's folder, with a model of two layers in the place of the real one."""
    write_starter(tmp_path)
    base = save_base(tmp_path / "models" / "smollm2-135m-instruct")
    note = {"model": "smollm2-135m-instruct", "origin": "pypi", "licence": "Apache-2.0"}
    (tmp_path / "models" / "smollm2-135m-instruct" / "pv_source.json").write_text(json.dumps(note))
    model = load(base)
    place = tmp_path / "recipes" / "quickstart"
    for number, name in enumerate(("polite", "concise")):
        for side, seed in (("positive", 1), ("negative", 2)):
            folder = place / "policies" / name / side
            shutil.rmtree(folder)
            made = adapted(model, 10 * number + seed)
            say(save_adapter(made, folder, str(base)), preference=name, polarity=side)
        for file in (f"{name}.jsonl", f"{name}-heldout.jsonl"):
            write_rows(place / "data" / file, pair_rows(6))
    for config in ("train.yml", "train-concise.yml"):
        said = yaml.safe_load((place / config).read_text())
        said["dpo"] |= {"max_steps": 2, "per_device_train_batch_size": 2, "max_length": 64}
        (place / config).write_text(yaml.safe_dump(said))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def before(line: str, world: Path) -> None:
    """Do what the text between two blocks tells the reader to do."""
    if line.startswith("pv-train preview brave"):
        write_rows(world / "brave" / "pairs.jsonl", pair_rows(6))
        said = yaml.safe_load((world / "brave" / "train.yml").read_text())
        said["dpo"] |= {"max_steps": 2, "per_device_train_batch_size": 2, "max_length": 64}
        (world / "brave" / "train.yml").write_text(yaml.safe_dump(said))


VECTORS = [
    f"pv-merge extract ./recipes/quickstart/policies/{name}/positive "
    f"./recipes/quickstart/policies/{name}/negative -o ./vectors/{name}"
    for name in ("polite", "concise")
]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run_in_order(
    page: str, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "cache_folder", lambda: world / "cache")
    from pv_merge.start import project

    monkeypatch.setattr(project, "starter_folder", lambda: world / "recipes" / "quickstart")
    own = [command for command in commands(ROOT / page) if not reason(command)]
    lines = [command.line for command in own]
    given = [] if any(line in lines for line in VECTORS) else VECTORS
    todo = [Command("", line) for line in given] + own
    if given == [] and VECTORS[1] not in lines and any("both.yml" in line for line in lines):
        todo.insert(0, Command("", VECTORS[1]))
    for command in todo:
        before(command.line, world)
        words = command.words
        result = CliRunner().invoke(
            program(words[0]), words[1:], input="How are you?\n", catch_exceptions=False
        )
        assert result.exit_code == 0, f"$ {command.line}\n{result.output[-2000:]}"


@pytest.mark.slow
def test_the_stages_of_the_how_to(world: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "stages.md").read_text(encoding="utf-8")
    recipe = text.partition("```yaml\n")[2].partition("```")[0]
    (world / "stages.yml").write_text(recipe)
    words = recipe.splitlines()[0].removeprefix("# ").split()
    base = load(world / "models" / "smollm2-135m-instruct")
    for name in ("one", "two"):
        folder = Path(save(base, world / "models" / name))
        shutil.copy(world / "models" / "smollm2-135m-instruct" / "tokenizer.json", folder)
    runner = CliRunner()
    for line in VECTORS[:1]:
        assert runner.invoke(main, line.split()[1:], catch_exceptions=False).exit_code == 0
    done = runner.invoke(
        program(words[0]), [*words[1:], "--no-copy-tokenizer"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output[-2000:]
    merged = load(world / "merged" / "staged").state_dict()
    moved = [name for name, tensor in base.state_dict().items() if not tensor.equal(merged[name])]
    assert moved and json.loads((world / "vectors/polite/preference_vector.json").read_text())

"""``pv-merge chat``: both sides of one model in memory, commands, and a stop that is one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from rich.console import Console

from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.live.chat.commands import Quit, run_command
from pv_merge.live.chat.screen import talk
from pv_merge.live.chat.session import ChatSession, ChatSettings, Side
from pv_merge.live.generation import greedy
from pv_merge.live.subject import Subject, load_subject
from pv_merge.live.switch import LiveMix
from pv_merge.merging.run import run
from pv_merge.recipe.opening import open_recipe

from eval_tiny import subject
from models import largest_difference, load, logits, pair, perturbed, recipe, save
from policies import adapted, save_adapter

NEW = 12
QUESTION = "How do I boil an egg?"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a tokenizer, and a policy pair of each form."""
    root = tmp_path_factory.mktemp("chat")
    made = subject(root)  # writes root/subject, then enlarges the weights in memory
    base = save(made.model, root / "base")
    made.tokenizer.save_pretrained(base)
    model = load(base)
    for seed, name in enumerate(("nice", "rude"), start=1):
        save_adapter(adapted(model, seed), root / f"{name}-adapter", base)
        save(perturbed(model, seed), root / f"{name}-full")
    return root


def written(root: Path, folder: Path, form: str, eta: Any = 0.5, name: str = "polite") -> Path:
    document = recipe(
        str(root / "base"), pair(str(root / f"nice-{form}"), str(root / f"rude-{form}"), eta, name)
    )
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump({**document, "dtype": "float32"}))
    return path


@pytest.fixture
def base(root: Path) -> Subject:
    return load_subject(str(root / "base"))


@pytest.fixture
def session(root: Path, base: Subject, tmp_path: Path) -> Iterator[ChatSession]:
    read = open_recipe(written(root, tmp_path, "adapter"))
    with LiveMix(read, base.model) as mix:
        yield ChatSession(base, mix, ChatSettings(max_new_tokens=NEW))


def merged_answer(path: Path, base: Subject, out: Path, question: str = QUESTION) -> str:
    """Return the greedy answer of the merged checkpoint."""
    run(path, out)
    (answer,) = greedy(Subject(load(out), base.tokenizer, str(out)), [question], NEW)
    return answer


def silent(side: Side, text: str) -> None:
    pass


@pytest.mark.parametrize(("form", "scales"), [("adapter", True), ("full", False)])
def test_both_sides_are_the_base_and_the_merged_checkpoint(
    form: str, scales: bool, root: Path, base: Subject, tmp_path: Path
) -> None:
    path = written(root, tmp_path, form)
    want = logits(root / "base")
    (of_base,) = greedy(base, [QUESTION], NEW)
    of_mix = merged_answer(path, base, tmp_path / "merged")
    with LiveMix(open_recipe(path), base.model) as mix:
        assert mix.scales_only is scales
        session = ChatSession(base, mix, ChatSettings(max_new_tokens=NEW))
        seen: list[tuple[Side, str]] = []
        turn = session.ask(QUESTION, lambda side, text: seen.append((side, text)))
        assert turn.answers == {"base": of_base, "mix": of_mix}
        assert of_base != of_mix
        assert [side for side, _ in seen].count("mix") > 1  # it streams
        mix.set({})
        assert largest_difference(logits(base.model), logits(tmp_path / "merged")) < 1e-5
    assert torch.equal(logits(base.model), want)


def test_eta_while_talking(session: ChatSession, root: Path, tmp_path: Path) -> None:
    assert run_command(session, "/etas") == "polite 0.5"
    assert run_command(session, "/eta polite -1.5") == "polite -1.5"
    path = written(root, tmp_path, "adapter", -1.5)
    session.mix.set({"polite": -1.5})
    run(path, tmp_path / "merged")
    merged = logits(tmp_path / "merged")
    assert largest_difference(logits(session.subject.model), merged) < 1e-5
    assert run_command(session, "/reset") == "polite 0.5"
    assert run_command(session, "/eta polite=0") == "polite 0"
    answers = session.ask(QUESTION, silent).answers
    assert answers["base"] == answers["mix"]


def test_each_side_remembers_its_own_answers(session: ChatSession) -> None:
    first = session.ask("One?", silent)
    prompts = {side: session._prompt(side, "Two?") for side in ("base", "mix")}  # type: ignore[arg-type]
    assert prompts["base"] != prompts["mix"]
    text = session.subject.tokenizer.decode(prompts["mix"])
    assert first.answers["mix"] in text and text.index("One?") < text.index("Two?")
    history = run_command(session, "/history")
    assert history.startswith("you: One?") and "mix (polite 0.5): " in history
    run_command(session, "/clear")
    assert run_command(session, "/history") == "nothing was said yet"


def test_sampling_is_seeded(session: ChatSession, base: Subject) -> None:
    def answers(seed: int) -> dict[Side, str]:
        settings = ChatSettings(max_new_tokens=NEW, temperature=1.5, seed=seed)
        return ChatSession(base, session.mix, settings).ask(QUESTION, silent).answers

    assert answers(1) == answers(1) != answers(2)
    assert answers(1) != session.ask(QUESTION, silent).answers


def test_ctrl_c_stops_the_answer_and_not_the_chat(session: ChatSession) -> None:
    threads = threading.active_count()

    def interrupt(side: Side, text: str) -> None:
        if len(text) > 2:
            raise KeyboardInterrupt

    turn = session.ask(QUESTION, interrupt)
    assert turn.stopped and list(turn.answers) == ["base"]
    assert threading.active_count() == threads
    assert set(session.ask("And now?", silent).answers) == {"base", "mix"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/eat polite 1", "unknown command /eat; did you mean /eta?"),
        ("/eta polite", "expected /eta NAME VALUE"),
        ("/eta polit 1", "has no preference 'polit'; did you mean polite?"),
        ("/eta polite much", "eta of polite must be a number, got 'much'"),
        ("/eta polite nan", "must be a finite number"),
        ("/eta polite -inf", "must be a finite number"),
        ("/clear all", "/clear takes nothing after it, got 'all'"),
    ],
)
def test_bad_commands(line: str, said: str, session: ChatSession) -> None:
    with pytest.raises(PvMergeError) as caught:
        run_command(session, line)
    assert said in caught.value.message and "\n" not in caught.value.message
    assert run_command(session, "/etas") == "polite 0.5"


def test_quit(session: ChatSession) -> None:
    with pytest.raises(Quit):
        run_command(session, "/quit")


def test_a_protected_preference_stays_above_zero(root: Path, base: Subject, tmp_path: Path) -> None:
    path = written(root, tmp_path, "adapter", name="harmless")
    before = logits(base.model)
    with LiveMix(open_recipe(path), base.model) as mix:
        with pytest.raises(PvMergeError, match="harmless is a protected preference"):
            mix.set({"harmless": -0.1})
        assert torch.equal(logits(base.model), before)
    document = yaml.safe_load(path.read_text())
    document["parameters"] = {"allow_protected_negative": True}
    path.write_text(yaml.safe_dump(document))
    with LiveMix(open_recipe(path), base.model) as mix:
        mix.set({"harmless": -0.1})
        assert not torch.equal(logits(base.model), before)


def test_a_recipe_with_eta_by_layer(root: Path, base: Subject, tmp_path: Path) -> None:
    path = written(root, tmp_path, "adapter", [0.0, 1.0])
    run(path, tmp_path / "merged")
    with LiveMix(open_recipe(path), base.model) as mix:
        assert not mix.scales_only
        assert mix.etas_with({}) == {"polite": None}
        mix.set({})
        assert largest_difference(logits(base.model), logits(tmp_path / "merged")) < 1e-5


def test_a_conversation_that_is_too_long(session: ChatSession) -> None:
    with pytest.raises(PvMergeError, match=r"the conversation has .* the model takes 512; /clear"):
        session.ask("word " * 600, silent)
    assert session.turns == []


def test_a_model_that_fails(session: ChatSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**kwargs: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(session.subject.model, "generate", broken)
    with pytest.raises(PvMergeError, match="the model failed: out of memory"):
        session.ask(QUESTION, silent)
    assert session.turns == []


def test_lines_from_a_pipe(root: Path, tmp_path: Path) -> None:
    path = str(written(root, tmp_path, "adapter"))
    lines = f"{QUESTION}\n\n/eta polite 0.25\n/nonsense\n/eta polite x\n{QUESTION}\n/quit\nnever\n"
    options = ["--max-new-tokens", "4", "--system", "Be [bold]brief."]
    result = CliRunner().invoke(main, ["chat", path, *options], input=lines)
    assert result.exit_code == 0, result.output
    assert result.output.count("─ base ─") == 2
    assert "─ mix: polite 0.5 ─" in result.output and "─ mix: polite 0.25 ─" in result.output
    assert "\n> /eta polite 0.25\n" in result.output
    assert "error: unknown command /nonsense" in result.output
    assert "error: eta of polite must be a number, got 'x'" in result.output
    assert "never" not in result.output and "Traceback" not in result.output


def test_a_bad_recipe_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["chat", str(tmp_path / "none.yml")])
    assert result.exit_code == 1 and "no such file" in result.output


def test_a_terminal_streams_and_shows_both(
    session: ChatSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n"))
    out = io.StringIO()
    talk(session, Console(file=out, force_terminal=True, width=80))
    assert out.getvalue().count("─ base ─") > 2  # drawn again as the answers grow

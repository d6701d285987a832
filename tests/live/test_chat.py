"""``pv-merge chat``: both sides of one model in memory, commands, and a stop that is one."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from rich.console import Console
from rich.text import Text

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.live.chat.commands import Quit, run_command
from pv_merge.live.chat.engine import LiveEngine, Side
from pv_merge.live.chat.screen import show_answers
from pv_merge.live.chat.session import ChatSession
from pv_merge.live.chat.stream import ChatSettings
from pv_merge.live.generation import greedy
from pv_merge.live.memory import refuse_too_large
from pv_merge.live.subject import Subject, load_subject
from pv_merge.live.switch import LiveMix
from pv_merge.merging.run import run
from pv_merge.recipe.opening import open_recipe
from pv_merge.recipe.reading import read_recipe
from pv_merge.recipe.recipe import Recipe

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
        yield ChatSession(LiveEngine(base, mix), ChatSettings(max_new_tokens=NEW))


def merged_answer(path: Path, base: Subject, out: Path, question: str = QUESTION) -> str:
    """Return the greedy answer of the merged checkpoint."""
    run(path, out)
    (answer,) = greedy(Subject(load(out), base.tokenizer, str(out)), [question], NEW)
    return answer


def engine_of(session: ChatSession) -> LiveEngine:
    assert isinstance(session.engine, LiveEngine)
    return session.engine


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
        session = ChatSession(LiveEngine(base, mix), ChatSettings(max_new_tokens=NEW))
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
    engine_of(session).mix.set({"polite": -1.5})
    run(path, tmp_path / "merged")
    merged = logits(tmp_path / "merged")
    assert largest_difference(logits(engine_of(session).subject.model), merged) < 1e-5
    assert run_command(session, "/reset") == "polite 0.5"
    assert run_command(session, "/eta polite=0") == "polite 0"
    answers = session.ask(QUESTION, silent).answers
    assert answers["base"] == answers["mix"]


def test_each_side_remembers_its_own_answers(session: ChatSession) -> None:
    first = session.ask("One?", silent)
    turns = {side: session._turns(side, "Two?") for side in ("base", "mix")}  # type: ignore[arg-type]
    assert turns["mix"] == [
        ("user", "One?"),
        ("assistant", first.answers["mix"]),
        ("user", "Two?"),
    ]
    assert turns["base"][1] == ("assistant", first.answers["base"]) != turns["mix"][1]
    history = run_command(session, "/history")
    assert history.startswith("you: One?") and "mix (polite 0.5): " in history
    run_command(session, "/clear")
    assert run_command(session, "/history") == "nothing was said yet"


def test_sampling_is_seeded(session: ChatSession, base: Subject) -> None:
    def answers(seed: int) -> dict[Side, str]:
        settings = ChatSettings(max_new_tokens=NEW, temperature=1.5, seed=seed)
        return ChatSession(session.engine, settings).ask(QUESTION, silent).answers

    assert answers(1) == answers(1) != answers(2)
    assert answers(1) != session.ask(QUESTION, silent).answers


def test_ctrl_c_stops_both_where_they_speak_together(session: ChatSession) -> None:
    threads = threading.active_count()

    def interrupt(side: Side, text: str) -> None:
        if side == "mix":
            raise KeyboardInterrupt

    turn = session.ask(QUESTION, interrupt)
    assert turn.stopped and set(turn.answers) == {"base", "mix"}
    assert threading.active_count() == threads
    whole = session.ask(QUESTION, silent)
    assert set(whole.answers) == {"base", "mix"} and not whole.stopped


def test_ctrl_c_during_the_first_still_lets_the_second_answer(session: ChatSession) -> None:
    whole = session.ask(QUESTION, silent).answers
    session.clear()

    def interrupt(side: Side, text: str) -> None:
        if side == "base":
            raise KeyboardInterrupt

    turn = session.ask(QUESTION, interrupt, together=False)
    assert turn.stopped and turn.answers["mix"] == whole["mix"]
    assert len(turn.answers["base"]) < len(whole["base"])


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_together_or_one_after_the_other_is_the_same_text(
    temperature: float, session: ChatSession
) -> None:
    settings = ChatSettings(max_new_tokens=NEW, temperature=temperature, seed=3)
    orders: dict[bool, list[Side]] = {}
    answers = {}
    for together in (True, False):
        order: list[Side] = []
        turn = ChatSession(session.engine, settings).ask(
            QUESTION, lambda side, text, order=order: order.append(side), together=together
        )
        orders[together], answers[together] = order, turn.answers
    assert answers[True] == answers[False]
    assert orders[True][:2] == ["base", "mix"] and orders[False][:2] == ["base", "base"]


def test_weights_that_are_written_speak_one_after_the_other(
    root: Path, base: Subject, tmp_path: Path
) -> None:
    with LiveMix(open_recipe(written(root, tmp_path, "full")), base.model) as mix:
        engine = LiveEngine(base, mix)
        order: list[Side] = []
        session = ChatSession(engine, ChatSettings(max_new_tokens=NEW))
        session.ask(QUESTION, lambda side, text: order.append(side))
        assert not engine.together and order == sorted(order)


def test_leaving_in_mid_answer_ends_the_threads(session: ChatSession) -> None:
    threads = threading.active_count()
    with session.begin(QUESTION) as exchange:
        assert exchange.step() == "base"
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert exchange.turn.stopped and session.turns == [exchange.turn]


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

    monkeypatch.setattr(engine_of(session).subject.model, "generate", broken)
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


def on_a_terminal(session: ChatSession, height: int = 24, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=height)
    show_answers(session, QUESTION, console)
    return out.getvalue()


def test_a_terminal_streams_and_shows_both(session: ChatSession) -> None:
    shown = on_a_terminal(session)
    assert shown.count("─ base ─") > 2  # drawn again as the answers grow
    # frames are on the terminal's other screen, and one of them all stays on this one
    other, _, kept = shown.partition("\x1b[?1049l")
    assert other.startswith("\x1b[?1049h") and kept.count("─ base ─") == 1


class Saying:
    """An engine that says what it is told to."""

    def __init__(self, recipe: Recipe, pieces: list[str], together: bool = True) -> None:
        self.recipe, self.pieces, self.together = recipe, pieces, together

    def etas_with(self, etas: Any) -> Any:
        return {**self.recipe.etas, **etas}

    def stream(self, side: Side, turns: Any, etas: Any, settings: Any) -> Any:
        return (piece for piece in self.pieces)


def test_a_long_answer_scrolls_and_stays_whole(root: Path, tmp_path: Path) -> None:
    read = read_recipe(written(root, tmp_path, "adapter"))
    pieces = [f"line {number}\n" for number in range(30)]
    shown = on_a_terminal(ChatSession(Saying(read, pieces), ChatSettings()), height=10)
    frames, _, kept = shown.partition("\x1b[?1049l")
    last = frames[frames.rindex("─ base ─") :]
    assert "line 29" in last and "line 15" not in last
    assert "line 0 " in kept and "line 29" in kept


def test_every_eta_is_seen_and_who_waits_is_told(root: Path, tmp_path: Path) -> None:
    read = read_recipe(written(root, tmp_path, "adapter", name="a_preference_with_a_long_name"))
    shown = on_a_terminal(ChatSession(Saying(read, ["Yes."], False), ChatSettings()), width=50)
    frames, _, kept = shown.partition("\x1b[?1049l")
    assert "answers after the" in frames and "answers after the" not in kept
    assert "a_preference_with_a" in kept.replace("\n", "") and "0.5" in kept
    assert max(len(Text.from_ansi(line).plain) for line in kept.splitlines()) <= 50


def test_a_model_that_does_not_fit_is_told_from_its_headers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pv_merge.live import memory

    refuse_too_large(Checkpoint(root / "base"), "float32")
    monkeypatch.setattr(memory, "free_memory", lambda: 0.3e9)
    monkeypatch.setattr("pv_merge.live.chat.engine.load_subject", None)  # it is never called
    path = str(written(root, tmp_path, "adapter"))
    result = CliRunner().invoke(main, ["chat", path])
    assert result.exit_code == 1
    assert "in float32 need 0.5 GB, and 0.3 GB of memory are free; --dtype" in result.output
    assert len(result.output.strip().splitlines()) == 1

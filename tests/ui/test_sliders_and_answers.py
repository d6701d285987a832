"""What the page's sliders reach and its buttons do, without a browser."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pv_merge.errors import PvMergeError
from pv_merge.live.chat.engine import LiveEngine, live_engine
from pv_merge.live.chat.session import ChatSession
from pv_merge.live.chat.stream import ChatSettings
from pv_merge.live.generation import greedy
from pv_merge.live.subject import Subject
from pv_merge.merging.run import run
from pv_merge.recipe.reading import read_recipe
from pv_merge.ui.answers import answer, table
from pv_merge.ui.export import export, recipe_text
from pv_merge.ui.sliders import as_etas, slider_ranges

from models import load
from ui_tiny import QUESTION, make_recipe

NEW = 12


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("ui"))


@pytest.fixture
def engine(path: Path) -> Iterator[LiveEngine]:
    with live_engine(path) as engine:
        yield engine


def test_ranges(path: Path, tmp_path: Path) -> None:
    polite, harmless = slider_ranges(read_recipe(path), {"harmless"})
    assert (polite.lowest, polite.highest, polite.eta, polite.zero) == (-2, 2, 0.5, 0.5)
    assert (harmless.lowest, harmless.highest, harmless.protected) == (0, 2, True)
    document = yaml.safe_load(path.read_text())
    document["parameters"] = {"allow_protected_negative": True}
    document["models"][0]["parameters"]["eta"] = -3
    document["models"][2]["parameters"]["eta"] = [0, 1]
    other = tmp_path / "other.yml"
    other.write_text(yaml.safe_dump(document))
    (only,) = slider_ranges(read_recipe(other), set())  # the one by layer has no slider
    assert (only.name, only.lowest, only.highest) == ("polite", -3, 3)
    assert str(as_etas([only], [-0.0])["polite"]) == "0.0"


def test_the_lock_is_the_recipes(engine: LiveEngine) -> None:
    assert engine.locked == {"harmless"}


def test_both_sides_answer_and_the_recipe_follows(engine: LiveEngine, tmp_path: Path) -> None:
    session = ChatSession(engine, ChatSettings(max_new_tokens=NEW))
    etas = {"polite": -1.5, "harmless": 0.25}
    frames = list(answer(session, f" {QUESTION} ", etas, together=True))
    last = frames[-1]
    assert len(frames) > 3 and last["base"] != last["mix"]
    assert [message["role"] for message in last["mix"]] == ["user", "assistant"]
    copied = tmp_path / "copied.yml"
    copied.write_text(recipe_text(session))
    assert read_recipe(copied).etas == etas
    run(copied, tmp_path / "merged")
    merged = Subject(load(tmp_path / "merged"), engine.subject.tokenizer, "merged")
    assert greedy(merged, [QUESTION], NEW) == [last["mix"][1]["content"]]


def test_closing_in_mid_answer_leaves_a_base_that_can_be_asked_again(engine: LiveEngine) -> None:
    session = ChatSession(engine, ChatSettings(max_new_tokens=NEW))
    whole = list(answer(session, QUESTION, {}, True))[-1]
    pieces = answer(session, QUESTION, {"polite": 2.0}, True)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert session.turns[-1].stopped
    fresh = ChatSession(engine, ChatSettings(max_new_tokens=NEW))
    assert list(answer(fresh, QUESTION, {}, True))[-1] == whole


def test_one_prompt_at_several_eta(engine: LiveEngine) -> None:
    settings = ChatSettings(max_new_tokens=NEW)
    frames = list(table(engine, QUESTION, "polite", "1, -1, 0", {"harmless": 0.0}, settings))
    rows = frames[-1]
    assert [eta for eta, _ in rows] == ["-1", "0", "+1"]
    assert frames[0][2][1] == "" and len(frames) > 3  # it grows
    engine.mix.reset()
    assert rows[1][1] == greedy(engine.subject, [QUESTION], NEW)[0]
    assert len({text for _, text in rows}) == 3


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("polite", "much, 1", "'much' is not a number"),
        ("polite", "1", "a grid of one point"),
        ("harmless", "-1, 1", "harmless is a protected preference"),
    ],
)
def test_values_that_cannot_be(engine: LiveEngine, name: str, values: str, said: str) -> None:
    with pytest.raises(PvMergeError, match=said):
        list(table(engine, QUESTION, name, values, {}, ChatSettings(max_new_tokens=2)))


def test_the_page_is_built_over_the_recipe(engine: LiveEngine, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra ui is not installed")
    from pv_merge.ui.page import Page, as_table, zero_marks

    config = Page(engine, ChatSettings(), (), tmp_path).blocks.get_config_file()
    sliders = {
        part["props"]["elem_id"]: part["props"]
        for part in config["components"]
        if part["type"] == "slider"
    }
    assert sliders["eta-harmless"]["minimum"] == 0 and sliders["eta-polite"]["minimum"] == -2
    assert not any(part["type"] in ("dataframe", "uploadbutton") for part in config["components"])
    marks = zero_marks(slider_ranges(engine.recipe, engine.locked))
    assert "#eta-polite" in marks and "#eta-harmless" not in marks
    assert "<td>a &lt;b&gt;\nc</td>" in as_table([["0", "a <b>\nc"]])


def test_no_question(engine: LiveEngine) -> None:
    session = ChatSession(engine, ChatSettings())
    with pytest.raises(PvMergeError, match="there is no question yet"):
        list(answer(session, "  ", {}, True))
    assert session.turns == []


def test_exports(engine: LiveEngine, tmp_path: Path) -> None:
    session = ChatSession(engine, ChatSettings(max_new_tokens=4))
    list(answer(session, QUESTION, {"polite": 0.75}, True))
    assert read_recipe(export("recipe", session, tmp_path)).etas["polite"] == 0.75
    (row,) = map(json.loads, export("conversation", session, tmp_path).read_text().splitlines())
    said: Mapping[str, Any] = row
    assert said["question"] == QUESTION and said["eta"]["polite"] == 0.75
    with zipfile.ZipFile(export("adapter", session, tmp_path)) as archive:
        assert {"adapter_config.json", "adapter_model.safetensors"} <= set(archive.namelist())
        manifest = json.loads(archive.read("pv_export.json"))
    assert manifest["preferences"]["polite"]["eta"] == 0.75

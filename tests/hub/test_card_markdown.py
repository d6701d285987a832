"""Hostile names, paths and texts stay where a card's template puts them."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_client import merge_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pv_merge.artifacts.names import name_problem
from pv_merge.hub.card.card import NOTES_END, NOTES_START, Extras, card_text
from pv_merge.hub.card.markdown import code, environment, fenced, inline, row, yaml_scalar
from pv_merge.hub.evaluations import Evaluation
from pv_merge.hub.facts import Facts, read_facts

HOSTILE = (
    "a | b",
    "`x` | y",
    "a\\|b",
    "<script>alert(1)</script>",
    "<!-- pv-merge: x --><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://127.0.0.1/x.png)",
    "**bold** _under_ ~~gone~~ $x$ #1",
    "# heading",
    "- item",
    "1. item",
    "--- ",
    "a\n\n# heading\n\n| a | b |\n|---|---|",
    "a\r\n```\n# out of the fence",
    "```` ``` `",
    "&lt;b&gt; &amp;",
    "\u202egnp.exe \u200b\x1b[31m",
    "polite_tone",
    '"; import os #',
    "}, polarity: positive, x: {",
    "a \ud800",
)
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def _inline(markdown: str) -> list[Token]:
    return [token for block in PARSER.parse(markdown) for token in block.children or []]


def _shown(text: str) -> str:
    """What is left of a text that stands in one line: no control characters, single spaces."""
    kept = re.sub("[\u202e\u200b\x1b\ud800]", "", " ".join(text.split()))
    return " ".join(kept.split())


def _same(found: str, text: str) -> bool:
    return " ".join(found.split()) == _shown(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_it_is(text: str):
    blocks = PARSER.parse(str(inline(text)))
    assert [block.type for block in blocks] == ["paragraph_open", "inline", "paragraph_close"]
    assert {token.type for token in _inline(str(inline(text)))} <= {"text", "text_special"}
    assert _same("".join(token.content for token in _inline(str(inline(text)))), text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_a_cell(text: str):
    lines = [row(["name", "path"]), "| --- | --- |", row([text, code(text)])]
    blocks = PARSER.parse("\n".join(lines))
    assert [block.type for block in blocks].count("tr_open") == 2
    cells = [
        block.children or []
        for before, block in itertools.pairwise(blocks)
        if before.type == "td_open"
    ]
    assert len(cells) == 2
    assert _same("".join(token.content for token in cells[0]), text)
    content = [token for token in cells[1] if token.type != "html_inline"]
    assert {token.content for token in cells[1] if token.type == "html_inline"} <= {
        "<code>",
        "</code>",
    }
    assert {token.type for token in content} <= {"text", "text_special", "code_inline"}
    assert _same("".join(token.content for token in content), text)


@settings(max_examples=500, deadline=None)
@given(st.text())
def test_any_text_stays_in_its_place(text: str):
    kinds = {token.type for token in _inline(f"before {inline(text)} after")}
    assert kinds <= {"text", "text_special"}
    (block,) = PARSER.parse(str(fenced(text, "yaml")))
    assert block.type == "fence"
    assert yaml.safe_load(f"{{a: {yaml_scalar(text)}, b: 1}}").keys() == {"a", "b"}
    columns = PARSER.parse(f"| a | b |\n| --- | --- |\n{row([text, code(text)])}\n")
    assert [token.type for token in columns].count("td_open") == 2


def test_an_underscore_between_letters_and_a_signed_number_are_left_alone():
    assert inline("learning_rate") == "learning_rate"
    assert inline("+0.5") == "+0.5" and inline("-0.99") == "-0.99"
    assert inline(None) == ""


def _write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("text", HOSTILE[:-1])  # a lone surrogate is refused when it is read
def test_a_vectors_card_holds_nothing_of_a_hostile_manifest(tmp_path: Path, text: str):
    """Each place of the manifest that a card shows; the card's outline is that of a plain one."""
    folder = tmp_path / "vector"

    def outline(value: str) -> list[str]:
        _write(folder / "preference_vector.json", _manifest(value))
        facts = read_facts(folder, value)
        body = card_text(facts, "alice/x", published=True)
        front, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", body, re.S).groups()  # type: ignore[union-attr]
        assert set(yaml.safe_load(front)) <= {"library_name", "tags", "license", "datasets"}
        body.encode()
        html = [t.content for t in PARSER.parse(body) if t.type == "html_block"]
        assert [line.strip() for line in html] == [NOTES_START, NOTES_END]
        assert {t.content for t in _inline(body) if t.type == "html_inline"} <= {
            "<code>",
            "</code>",
        }
        links = [t.attrs["href"] for t in _inline(body) if t.type == "link_open"]
        assert set(links) == {"https://arxiv.org/abs/2504.20106"}
        assert not [t for t in _inline(body) if t.type == "image"]
        return [t.type for t in PARSER.parse(body)]

    assert outline(text) == outline("plain")


def _manifest(text: str) -> dict[str, Any]:
    path = re.sub("[\x00-\x1f]", " ", text)  # such a path is refused
    side = {
        "path": f"./{path}",
        "form": text,
        "dataset": {"path": f"./{text}.jsonl", "pairs": 3, "fingerprint": text},
        "lora": {"r": text, text: 1},
        "versions": {text: text},
    }
    name = "polite" if name_problem(text) else text
    said = {"kind": "preference_vector", "preference": name, "form": text, "dtype": text}
    base = {"path": f"./{path}", "weights_sha256": text}
    return {**said, "base": base, "positive": side, "measures": {"norm": 1.0}}


def test_a_recipe_cannot_leave_its_fence(tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    recipe = folder / "mergekit_config.yml"
    recipe.write_text(recipe.read_text() + "# ```\n# # heading\n#\n# ```` \n")
    body = card_text(read_facts(folder, "x"), "alice/x", published=True)
    titles = [t.content for t in PARSER.parse(body.split("---\n", 2)[2]) if t.type == "inline"]
    assert "heading" not in titles
    assert "`````yaml\n" in body


def test_a_snippet_is_one_statement_a_line(tmp_path: Path):
    """A place with quotes, braces or line breaks is one Python, YAML or shell word."""
    facts = read_facts(merge_folder(tmp_path / "merged"), "x")
    body = card_text(facts, 'alice/x@a=1"\nimport os\n', published=True)
    assert 'revision="a=1\\" import os"' in body
    command = next(line for line in body.splitlines() if line.startswith("$ pv-merge pull"))
    assert shlex.split(command)[3] == 'alice/x@a=1" import os'


def test_a_results_file_cannot_leave_its_table(tmp_path: Path):
    facts: Facts = read_facts(merge_folder(tmp_path / "merged"), "x")
    figure = {"value": 1.0, "low": 0.0, "high": 2.0, "n": 5}
    for text in HOSTILE:
        data = {"labels": {"polite": text}, "figures": {"polite": figure}, "command": f"a {text}"}
        extras = Extras(evaluations=[Evaluation.model_validate(data)])
        body = card_text(facts, "alice/x", extras, published=True).split("---\n", 2)[2]
        headings = [t.tag for t in PARSER.parse(body) if t.type == "heading_open"]
        assert headings.count("h1") == 1 and headings.count("h2") == 9
        body.encode()


def test_the_templates_come_with_the_package():
    """Every template that the package holds compiles, and none is looked for elsewhere."""
    places = files("pv_merge.hub.card") / "templates"
    names = sorted(place.name for place in places.iterdir() if place.name.endswith(".jinja"))
    assert names == environment().list_templates()
    assert "card.md.jinja" in names
    for name in names:
        environment().get_template(name)

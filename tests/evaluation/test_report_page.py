"""``report.html``: what is in it, and that no text of a sweep becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

from pv_merge.evaluation.statistics import Estimate
from pv_merge.evaluation.sweep.page import cell, environment, page, rounded, signed
from pv_merge.evaluation.sweep.results import Step, Sweep

HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}'


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.setdefault(self.open[-1] if self.open else "", []).append(data)


def _sweep(text: str = "polite") -> Sweep:
    figures = [{text: Estimate(value, value - 1, value + 1, 12)} for value in (1.0, -0.0)]
    points: list[dict[str, float | None]] = [{text: -1.0}, {text: 1.0}]
    sweep = Sweep({text: [-1.0, 1.0]}, points, figures, figures[0], {text: text}, {text: 1})
    sweep.steps = [Step(text, -1.0, 1.0, text, Estimate(-1.0, -2.0, 0.5, 48))]
    sweep.rho = {text: {text: -0.001}}
    sweep.goals, sweep.front = [text], [0]
    sweep.prompts = [f"{text}?"]
    sweep.answers = [{"point": points[1], "answers": [f"One.\n\n- two\n{text}"]}]
    return sweep


def test_an_answer_keeps_its_lines():
    found = _Page(page(_sweep(), [], {"recipe": "r.yml"}))
    assert found.words["dd"] == ["One.\n\n- two\npolite"]
    assert found.words["dt"] == ["polite +1"]
    assert ".answers dd" in found.words["style"][0] and "pre-wrap" in found.words["style"][0]


def test_a_figure_of_few_items_says_how_many_and_none_is_minus_zero():
    words = _Page(page(_sweep(), [], {})).words
    assert words["small"] == [
        "[0, 2]",
        "n = 12",
        "[-1, 1]",
        "n = 12",
        "[0, 2]",
        "n = 12",
        "[-2, 0.5]",
    ]
    assert "-0" not in words["span"] and "-0.00" not in words["span"]
    assert cell(Estimate(0.5, 0.5, 0.5, 30)) == "0.5"
    assert (rounded(-0.0), rounded(-0.004, ".2f")) == ("0", "0.00")
    assert (signed(-0.001), signed(0.5), signed(-1.0, "+g")) == ("0.00", "+0.50", "-1")


def test_no_text_becomes_markup(tmp_path: Path):
    picture = tmp_path / "curve-polite.png"
    picture.write_bytes(b"png")
    plain = _Page(page(_sweep(), [picture], {"command": "pv-merge sweep"}))
    hostile = page(_sweep(HOSTILE), [picture], {"command": HOSTILE})
    assert _Page(hostile).tags == plain.tags
    assert "<script" not in hostile and "49" not in hostile


def test_a_point_by_itself_is_one_point():
    sweep = _sweep()
    sweep.points, sweep.figures = sweep.points[:1], sweep.figures[:1]
    assert any(": 1 point;" in text for text in _Page(page(sweep, [], {})).words["p"])


def test_the_template_comes_with_the_package():
    places = files("pv_merge.evaluation.sweep") / "templates"
    assert [place.name for place in places.iterdir()] == environment().list_templates()
    assert environment().list_templates() == ["report.html.jinja"]

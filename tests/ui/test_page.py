"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pv_merge.ui.serve import free_port

from ui_tiny import QUESTION, make_recipe

pytest.importorskip("gradio", reason="the extra ui is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium here (apt install it)"),
]

LONG = 90_000  # milliseconds; a machine that does other things as well is slow


def start(recipe: Path, *options: str) -> subprocess.Popen[str]:
    code = "from pv_merge.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "ui", str(recipe), "--no-browser", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}, cwd=recipe.parent,
    )  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    recipe = make_recipe(tmp_path_factory.mktemp("page"))
    process = start(recipe, "--port", str(free_port("127.0.0.1", 0)), "--max-new-tokens", "60")
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    found = re.search(r"http://127\.0\.0\.1:\d+", lines[-1])
    assert found, lines
    yield found[0]
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page.set_default_timeout(LONG)
    page.goto(address)
    page.wait_for_selector("#ask")
    yield page
    page.close()


def set_eta(page: Any, name: str, value: str) -> None:
    box = page.locator(f"#eta-{name} input[type=number]")
    box.fill(value)
    box.press("Tab")
    page.locator("#mix").get_by_text(re.compile(f"{name} {re.escape(value)}")).wait_for()


def until(said: Callable[[], Any]) -> Any:
    """Return what ``said`` returns, once it is true and has stopped to change."""
    before, deadline = None, time.monotonic() + LONG / 1000
    while time.monotonic() < deadline:
        now = said()
        if now and now == before:
            return now
        before = now
        time.sleep(1)
    raise AssertionError(f"still {said()!r}")


def ask(page: Any) -> tuple[str, str]:
    """Ask the question and return both answers when they are whole."""
    bots = [page.locator(f"#{side} [data-testid=bot]") for side in ("base", "mix")]
    if bots[0].count():
        page.locator("#clear").click()
        until(lambda: not bots[0].count())
    page.locator("#question textarea").fill(QUESTION)
    page.locator("#ask").click()

    def both() -> tuple[str, ...] | None:
        if any(bot.count() != 1 for bot in bots):
            return None
        return tuple(bot.inner_text() for bot in bots)

    base, mix = until(both)
    return base, mix


def test_sliders_answers_recipe_and_export(page: Any, tmp_path: Path) -> None:
    first = ask(page)
    set_eta(page, "polite", "-1.5")
    second = ask(page)
    assert first[0] == second[0]  # the base is the base
    assert len({first[0], first[1], second[1]}) == 3
    set_eta(page, "polite", "0")
    same = ask(page)
    assert same[0] == same[1] == first[0]
    set_eta(page, "polite", "-1.5")
    page.get_by_role("tab", name="Recipe and export").click()
    text = "\n".join(page.locator("#recipe .cm-line").all_inner_texts())
    copied = yaml.safe_load(text)
    assert copied["models"][0]["parameters"]["eta"] == -1.5
    page.locator("#export").click()
    link = page.locator("#file a[download]").first
    with page.expect_download() as download:
        link.click()
    kept = tmp_path / "recipe.yml"
    download.value.save_as(kept)
    assert yaml.safe_load(kept.read_text()) == copied
    page.locator("#reset").click()
    page.locator("#mix").get_by_text("mix: polite 0.5, harmless 0").wait_for()
    assert ask(page) == first


def test_a_table_of_several_eta(page: Any) -> None:
    page.locator("#question textarea").fill(QUESTION)
    page.locator("#measure").click()
    cells = page.locator("#table td")

    def whole() -> list[str] | None:
        said: list[str] = [text.strip() for text in cells.all_inner_texts()]
        return said if len([text for text in said if text]) >= 6 else None

    said = until(whole)
    assert [eta for eta in ("-1", "0", "+1") if eta in said] == ["-1", "0", "+1"]


def test_protected_is_locked_and_zero_is_marked(page: Any) -> None:
    slider = page.locator("#eta-harmless input[type=range]")
    assert float(slider.get_attribute("min")) == 0
    mark = "el => getComputedStyle(el, '::after').width"
    assert page.locator("#eta-polite .slider_input_container").evaluate(mark) == "2px"


def test_a_fault_is_a_note_on_the_page(page: Any) -> None:
    page.locator("#ask").click()
    page.get_by_text("there is no question yet").first.wait_for()


def test_a_tab_closed_in_mid_answer(browser: Any, address: str, page: Any) -> None:
    whole = ask(page)
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#ask")
    other.locator("#question textarea").fill("word " * 60)
    other.locator("#ask").click()
    other.locator("#base [data-testid=bot]").first.wait_for()
    other.close()
    assert ask(page) == whole


def test_nothing_leaves_this_machine_and_nothing_is_taken(browser: Any, address: str) -> None:
    page = browser.new_page()
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.partition("://")[2].split("/")[0]))
    page.goto(address)
    page.wait_for_selector("#ask")
    page.wait_for_timeout(2000)
    page.close()
    assert {host for host in hosts if host} == {address.partition("://")[2]}
    import httpx  # comes with Gradio

    sent = httpx.post(f"{address}/gradio_api/upload", files={"files": ("x.txt", b"mine")})
    assert (sent.status_code, sent.text) == (403, "uploads are off")


def test_a_taken_port_is_one_line(address: str, tmp_path: Path) -> None:
    process = start(make_recipe(tmp_path), "--port", address.rpartition(":")[2])
    said, _ = process.communicate(timeout=LONG / 1000)
    assert process.returncode == 1 and len(said.strip().splitlines()) == 1
    assert "cannot be listened on (" in said and "say --port 0" in said

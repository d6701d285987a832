"""The README's picture of the page at three η: ``python -m benchmarks.screenshot [OUTPUT]``.

Needs Chromium, Playwright, and the base that ``pv-merge fetch`` writes.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pv_merge.start.quickstart import PROMPT
from pv_merge.ui.serve import free_port

RECIPE = "recipes/quickstart/playground.yml"
CHROMIUM = "/usr/bin/chromium"
TOP = (0, 0, 1180, 480)
"""The part of the page that is kept at each η."""


def answered(page: Any) -> None:
    """Wait until neither side says more."""
    before = None
    while (now := [page.locator(f"#{side}").inner_text() for side in ("base", "mix")]) != before:
        before = now
        time.sleep(5)


def pictures(page: Any) -> list[bytes]:
    """Return the page at η = −1, 0 and 1."""
    found = []
    for eta in ("-1", "0", "1"):
        page.reload()
        page.wait_for_selector("#ask")
        box = page.locator("#eta-polite input[type=number]")
        box.fill(eta)
        box.press("Tab")
        page.locator("#mix").get_by_text(re.compile(f"polite {eta}")).wait_for()
        page.locator("#question textarea").fill(PROMPT)
        page.locator("#ask").click()
        page.locator("#mix [data-testid=bot]").wait_for()
        answered(page)
        found.append(page.screenshot())
    return found


def compose(shots: list[bytes], output: Path) -> None:
    """Write the tops of the pictures, one below the other, in 64 colours."""
    from PIL import Image

    parts = [Image.open(io.BytesIO(shot)).convert("RGB").crop(TOP) for shot in shots]
    whole = Image.new("RGB", (TOP[2], TOP[3] * len(parts)), "white")
    for place, part in enumerate(parts):
        whole.paste(part, (0, place * TOP[3]))
    whole.quantize(64).save(output, optimize=True)


def main(output: Path) -> None:
    """Start the page, look at it, end it."""
    from playwright.sync_api import sync_playwright

    port = free_port("127.0.0.1", 0)
    code = "from pv_merge.cli import main; main()"
    options = ["--no-browser", "--port", str(port), "--max-new-tokens", "60"]
    server = subprocess.Popen(
        [sys.executable, "-u", "-c", code, "ui", RECIPE, *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        next(line for line in server.stdout if "http://" in line)
        with sync_playwright() as tool:
            browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": TOP[2], "height": 760})
            page.set_default_timeout(120_000)
            page.goto(f"http://127.0.0.1:{port}")
            compose(pictures(page), output)
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/ui.png"))

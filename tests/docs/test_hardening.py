"""Every test that docs/hardening.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_every_named_test_is_there() -> None:
    text = (TESTS.parent / "docs/hardening.md").read_text()
    found = {path.name: path.read_text() for path in TESTS.rglob("test_*.py")}
    named = 0
    for line in text.splitlines():
        file = ""
        for match in re.finditer(r"`(?=test_|::)(test_\w+\.py)?(?:::(test_\w+))?`", line):
            file = match[1] or file
            assert file in found, line
            if match[2]:
                assert f"def {match[2]}(" in found[file], f"{file}::{match[2]}"
            named += 1
    assert named > 50

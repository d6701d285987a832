"""A short run of ``make torture``: two signals of each kind to a merge and a push."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are forked")
@pytest.mark.parametrize("command", ["run", "push"])
def test_kills(command: str, tmp_path: Path) -> None:
    result = tmp_path / "torture.json"
    line = [sys.executable, "-m", "torture", "--count", "2", "--only", command, "-o", str(result)]
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(result.read_text())["kills"][command]
    assert not counts["faults"]
    assert all(counts[name]["sent"] == 2 for name in ("SIGKILL", "SIGTERM", "SIGINT"))

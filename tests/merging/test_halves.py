"""What ``extract`` and ``inspect`` say of cos(+,−)."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.merging.halves import what_follows

from eval_tiny import make_recipe


@pytest.mark.parametrize(
    ("cosine", "word"),
    [
        (-1.0, "nearly opposite"),
        (-0.9, "nearly opposite"),
        (-0.89, "opposed in part"),
        (-0.21, "opposed in part"),
        (-0.2, "hardly related"),
        (0.2, "hardly related"),
        (0.21, "alike"),
        (1.0, "alike"),
    ],
)
def test_each_angle_has_one_reading(cosine: float, word: str) -> None:
    assert what_follows(cosine).startswith(f"{word}: ")


def test_extract_and_inspect_say_the_same_line(tmp_path: Path) -> None:
    make_recipe(tmp_path)
    sides = [str(tmp_path / f"polite-{side}") for side in ("positive", "negative")]
    vector = str(tmp_path / "vector")
    base = ("--base", str(tmp_path / "base"), "--name", "polite")
    extracted = CliRunner().invoke(main, ["extract", *sides, "-o", vector, *base])
    assert extracted.exit_code == 0, extracted.output
    inspected = CliRunner().invoke(main, ["inspect", vector])
    assert inspected.exit_code == 0, inspected.output
    line = what_follows(0.0)  # two random changes of many weights have an angle near 90°
    assert line in extracted.output
    assert line in " ".join(inspected.output.split())

"""Several eta points of one recipe as the revisions of one repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hub_client import connected, content, merge_folder

from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.hub.collection import collect, push_collection
from pv_merge.hub.pull import pull
from pv_merge.hub.push_plan import PushOptions

from hub_server import Hub

ETAS = (-1.0, 0.0, 0.5)
NAMES = ("polite=-1", "polite=0", "polite=0.5")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with connected(monkeypatch, tmp_path) as found:
        yield found


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    for eta, name in zip(ETAS, NAMES, strict=True):
        merge_folder(tmp_path / "grid" / name, eta)
    figures = [{"polite": {"value": v, "low": v - 1, "high": v + 1, "n": 8}} for v in (1, 2, 3.5)]
    points = [
        {"eta": {"polite": eta}, "figures": figure}
        for eta, figure in zip(ETAS, figures, strict=True)
    ]
    summary = {"labels": {"polite": "margin (nats)"}, "points": points, "base": figures[1]}
    summary |= {"measures": {"polite": {"kind": "pairs", "pairs": 8}}, "recipe": "recipe.yml"}
    (tmp_path / "grid" / "summary.json").write_text(json.dumps(summary))
    return tmp_path / "grid"


def test_each_point_is_a_revision_and_main_links_them(hub: Hub, grid: Path, tmp_path: Path):
    assert push_collection(grid, "alice/polite") == f"{hub.endpoint}/alice/polite"
    repo = hub.repos["alice/polite"]
    assert [branch for branch, _ in repo.messages] == [*NAMES, "main"]
    assert set(repo.files("main") or {}) == {".gitattributes", "README.md"}
    for name in NAMES:
        back = pull(f"alice/polite@{name}", tmp_path / "back" / name)
        assert content(back) == content(grid / name)
    card = (repo.files("main") or {})["README.md"].content.decode()
    link = "https://huggingface.co/alice/polite/tree/polite%3D-1"
    assert f"| [`polite=-1`]({link}) | -1 | 97.0% | 1 [0, 2] (n = 8) |" in card
    assert "| [`polite=0`]" in card and "| +0 |  | 2 [1, 3] (n = 8) |" in card
    assert "this branch holds none" in card
    own = (pull("alice/polite@polite=0.5") / "README.md").read_text()
    assert "(this one) | +0.5 | 97.0% | 3.5 [2.5, 4.5] (n = 8) |" in own
    assert 'revision="polite=0.5"' in own


def test_a_collection_that_stops_is_completed(hub: Hub, grid: Path):
    hub.faults.clear()
    hub.fail("POST", r"/commit/polite=0\.5", times=99, status=500)
    with pytest.raises(PvMergeError, match=r"2 of 3 revisions \(polite=-1, polite=0\)") as error:
        push_collection(grid, "alice/polite")
    assert "polite=0.5 is as it was" in error.value.message
    hub.faults.clear()
    push_collection(grid, "alice/polite", PushOptions(exist_ok=True))
    branches = [branch for branch, _ in hub.repos["alice/polite"].messages]
    assert branches == [*NAMES, "main"]


def test_points_of_two_recipes_are_no_collection(grid: Path):
    text = (grid / NAMES[0] / "mergekit_config.yml").read_text()
    (grid / NAMES[0] / "mergekit_config.yml").write_text(text.replace("bfloat16", "float16"))
    with pytest.raises(PvMergeError, match=r"polite=0: is of another recipe than .*polite=-1"):
        collect(grid, "alice/polite", PushOptions())


def test_a_folder_without_points(tmp_path: Path):
    with pytest.raises(PvMergeError, match=r"holds no folders called NAME=ETA"):
        collect(merge_folder(tmp_path / "merged"), "alice/polite", PushOptions())


def test_dry_run_lists_every_revision(grid: Path):
    result = CliRunner().invoke(main, ["push", str(grid), "alice/x", "--collection", "--dry-run"])
    assert result.exit_code == 0, result.output
    for name in NAMES:
        assert f"alice/x@{name}: 5 files, 20" in result.output

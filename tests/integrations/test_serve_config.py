"""``pv-merge serve-config``: the command line, and what keeps a folder from being served."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pv_merge.cli import main

import models
import serving_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return serving_tiny.write_vectors(tmp_path_factory.mktemp("serving"))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve-config", *map(str, arguments)])


def words(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return shlex.split(result.stdout.replace("\\\n", " "))


def test_the_command_line(world: tuple[str, Path]) -> None:
    base, vectors = world
    result = call(vectors, "--base", base)
    assert words(result) == [
        f"PV_MERGE_VECTORS={vectors}",
        "PV_MERGE_SERVE_MAX_TERMS=3",
        "PV_MERGE_SERVE_MAX_RANK=8",  # 2 + 3 + 1 are 6, and vLLM knows 8
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
        *("vllm", "serve", base, "--enable-lora", "--max-loras", "8"),
        *("--max-lora-rank", "8", "--max-cpu-loras", "16"),
    ]
    assert "# harmless: rank 1, protected: eta from 0" in result.stderr
    assert all(line.startswith("# ") for line in result.stderr.splitlines())


def test_terms_and_clients(world: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pv_merge.integrations.vllm.ranks.VLLM_RANKS", (1, 3, 5, 6))
    base, vectors = world
    found = words(call(vectors, "--base", base, "--terms", 2, "--clients", 3))
    assert found[1:3] == ["PV_MERGE_SERVE_MAX_TERMS=2", "PV_MERGE_SERVE_MAX_RANK=5"]
    assert found[-6:] == ["--max-loras", "3", "--max-lora-rank", "5", "--max-cpu-loras", "6"]


def test_a_path_with_spaces_is_quoted(world: tuple[str, Path], tmp_path: Path) -> None:
    vectors = shutil.copytree(world[1], tmp_path / "my vectors")
    assert f"PV_MERGE_VECTORS={vectors}" in words(call(vectors, "--base", world[0]))


def test_a_rank_that_vllm_does_not_take(
    world: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pv_merge.integrations.vllm.ranks.VLLM_RANKS", (1, 4))
    result = call(world[1], "--base", world[0])
    assert result.exit_code == 1
    assert "can have rank 6, and vLLM takes 4 at most" in result.stderr


def test_another_base(world: tuple[str, Path], tmp_path: Path) -> None:
    other = models.save(models.tiny(seed=5), tmp_path / "other")
    result = call(world[1], "--base", other)
    assert result.exit_code == 1 and "was made from another base than" in result.stderr
    wider = models.save(models.tiny(intermediate_size=40), tmp_path / "wider")
    result = call(world[1], "--base", wider)
    assert result.exit_code == 1 and "was it trained from another base?" in result.stderr


@pytest.mark.parametrize(
    ("folder", "base", "reason"),
    [
        ("nowhere", "base", "nowhere: no such folder"),
        ("empty", "base", "holds no vectors"),
        ("vectors", "nowhere", "nowhere: no such folder"),
        ("vectors", "vectors/polite", "is an adapter; name the base model"),
        (".", "base", "base: holds no adapter_config.json"),
    ],
)
def test_a_mistake_is_one_line(
    folder: str, base: str, reason: str, world: tuple[str, Path], tmp_path: Path
) -> None:
    root = world[1].parent
    (tmp_path / "empty").mkdir()
    place = tmp_path / "empty" if folder == "empty" else root / folder
    result = call(place, "--base", root / base)
    assert result.exit_code == 1 and reason in result.stderr, result.output
    assert "Traceback" not in result.output

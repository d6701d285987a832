"""The whole way of a newcomer: the built wheel, a fresh environment, the package index, the quickstart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path) -> str:
    """Return what a command prints; without this process's PYTHONPATH and offline settings."""
    unwanted = ("PYTHONPATH", "HF_HUB_OFFLINE")
    there = {key: value for key, value in os.environ.items() if key not in unwanted}
    there |= {"OMP_NUM_THREADS": "1"}  # threads that wait for each other crawl on a busy machine
    started = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=there, capture_output=True, text=True, check=False)
    print(f"{time.perf_counter() - started:6.1f} s  {' '.join(command)[-100:]}")
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet")
    run(*pip, "--wheel-dir", str(place), str(ROOT), cwd=place)
    (made,) = place.glob("pv_merge-*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_the_quickstart_once_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    inside = {name for name in names if "start/quickstart/" in name}
    wanted = ROOT / "recipes" / "quickstart"
    shipped = {
        f"pv_merge/start/quickstart/{path.relative_to(wanted).as_posix()}"
        for path in wanted.rglob("*")
        if path.is_file()
    }
    assert inside == shipped
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pv_merge", "trainers"}
    assert wheel.stat().st_size < 12e6


@pytest.mark.slow
def test_the_sdist_holds_what_builds_and_tests_it_and_nothing_of_this_folder(
    tmp_path: Path,
) -> None:
    hatch = "from hatchling.build import build_sdist; import sys; print(build_sdist(sys.argv[1]))"
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(tmp_path / "h"),
        "hatchling",
        cwd=ROOT,
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'h')!r}); {hatch}"
    run(sys.executable, "-c", code, str(tmp_path), cwd=ROOT)
    (made,) = tmp_path.glob("pv_merge-*.tar.gz")
    with tarfile.open(made) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    tops = {name.partition("/")[0] for name in names}
    wanted = {
        "pv_merge",
        "trainers",
        "recipes",
        "tests",
        "docs",
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "SECURITY.md",
    }
    assert wanted <= tops
    assert tops <= wanted | {
        "mkdocs.yml",
        "constraints.txt",
        "CHANGELOG.md",
        "CITATION.cff",
        "PKG-INFO",
        ".gitignore",
    }
    odd = (".pyc", ".so", ".bin", ".pt", ".pkl", ".env", ".sqlite", ".log")
    assert not [name for name in names if name.endswith(odd) or "__pycache__" in name]
    assert made.stat().st_size < 20e6


@pytest.mark.slow
def test_the_quickstart_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=True)
    python, command = str(fresh / "bin" / "python"), str(fresh / "bin" / "pv-merge")
    probe = (python, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(tmp_path / "probe"))
    if subprocess.run([*probe, "click==8.5.1"], capture_output=True, check=False).returncode:
        pytest.skip("the package index cannot be reached")
    constraints = str(ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel), cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    before = {path for path in fresh.rglob("*") if "__pycache__" not in path.parts}

    said = run(command, "quickstart", "first", cwd=tmp_path)
    assert "==> 4. Held-out pairs" in said and "mergekit-yaml recipes/quickstart" in said
    there = tmp_path / "first"
    assert (there / "merged" / "polite" / "config.json").exists()
    lines = (there / "runs" / "quickstart" / "results.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) >= 5
    after = {path for path in fresh.rglob("*") if "__pycache__" not in path.parts}
    kernels = {path for path in after - before if path.suffix in (".nbi", ".nbc")}
    assert after - before - kernels == set()  # nothing is written into the environment

    assert "nothing to do" in run(command, "quickstart", "first", cwd=tmp_path)
    run(command, "init", "brave", cwd=tmp_path)
    assert "mergekit knows preference_vector" in run(command, "env", cwd=tmp_path)

"""The notebook runs from top to bottom on a CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
BASE = ROOT / "models" / "smollm2-135m-instruct"


@pytest.mark.slow
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (BASE / "pv_source.json").exists():
        pytest.skip("no base model here: pv-merge fetch smollm2-135m-instruct")
    from pv_merge.start.files import write_starter

    write_starter(tmp_path / "quickstart")
    (tmp_path / "quickstart" / "models").mkdir()
    (tmp_path / "quickstart" / "models" / BASE.name).symlink_to(BASE.resolve())
    beside = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([beside, os.environ["PATH"]]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as conftest says of every test: other work goes on
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "first-vector.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # none is kept in git
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    said = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "η = -1" in said and "η = +1" in said
    assert len(set(said.partition("η = -1")[2].split("η = "))) == 3

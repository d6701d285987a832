"""The core says its types: no ``Any`` in what computes and in what a recipe says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pv_merge

ROOT = Path(pv_merge.__file__).parent
MODULES = sorted(
    str(path.relative_to(ROOT))
    for package in ("arithmetic", "recipe", "merging")
    for path in (ROOT / package).rglob("*.py")
)
EDGE = {"arithmetic/compiling.py"}
"""Hands functions to Numba, which has no types."""


@pytest.mark.parametrize("module", sorted(set(MODULES) - EDGE))
def test_no_module_of_the_core_says_any(module: str) -> None:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert "Any" not in names | imported


def test_the_scan_sees_modules_and_the_edge_needs_it() -> None:
    assert len(MODULES) > 30
    for module in EDGE:
        assert "Any" in (ROOT / module).read_text(encoding="utf-8")

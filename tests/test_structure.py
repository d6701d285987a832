"""The shape of the code: short modules, thin commands, and no circle of imports."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import pv_merge
import trainers

PACKAGES = [Path(package.__file__ or "").parent for package in (pv_merge, trainers)]
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
COMMANDS = [path for path in MODULES if path.parent.name == "cli"]
LONGEST_MODULE, LONGEST_COMMAND = 250, 40
AT_THE_TOP = {"__init__", "cache", "errors", "progress", "registry", "version"}


def test_no_module_is_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert len(lengths) > 250
    assert {path for path, count in lengths.items() if count > LONGEST_MODULE} == set()


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_no_function_of_a_command_is_long(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_COMMAND, f"{path.name}: {node.name} has {length} lines"


def test_only_the_lightest_modules_stand_beside_the_packages() -> None:
    assert {path.stem for path in PACKAGES[0].glob("*.py")} == AT_THE_TOP


@pytest.mark.parametrize("package", ["pv_merge", "trainers"])
def test_no_imports_go_in_a_circle(package: str) -> None:
    graph = grimp.build_graph(package)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        order = list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
    assert len(order) > 30

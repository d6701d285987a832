"""The public Python API: what it lists, that its examples run, and that it is light to import."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hub_client import connected
from transformers import AutoModelForCausalLM

import pv_merge
import trainers
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.errors import PvMergeError
from pv_merge.hub.push import push
from pv_merge.hub.push_plan import PushOptions
from pv_merge.merging.extract import ExtractOptions, extract

from models import pair, recipe
from policies import adapted, save_adapter, say
from train_tiny import config, pair_rows, save_base, write_config, write_rows

ROOT = Path(__file__).resolve().parent.parent
NO_EXAMPLE = {"__version__", "PvMergeError", "ExtractOptions", "PushOptions"}
"""Names without an example of their own: they stand in those of others."""


def make_home(home: Path) -> None:
    """Write what the examples name: a base, policies, vectors, a recipe and pairs."""
    base = save_base(home / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    for seed, name in enumerate(("positive", "negative", "short", "long"), start=1):
        folder = save_adapter(adapted(model, seed), home / name, str(base))
        preference = "polite" if name in ("positive", "negative") else "brief"
        side = "positive" if name in ("positive", "short") else "negative"
        say(folder, preference=preference, polarity=side, base_model={"path": str(base)})
    for name, sides in {"polite": ("positive", "negative"), "brief": ("short", "long")}.items():
        policies = [home / side for side in sides]
        extract(*policies, home / "vectors" / name, ExtractOptions(low_rank=True))
    document = recipe("./base", pair("./positive", "./negative", 1.0, "polite"))
    (home / "recipe.yml").write_text(yaml.safe_dump(document))
    write_rows(home / "pairs.jsonl", pair_rows(8))
    write_config(home / "train.yml", config(Path(), Path("./base"), Path("./pairs.jsonl")))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("api")
    make_home(home)
    with pytest.MonkeyPatch.context() as patch, connected(patch, home / "cache") as hub:
        patch.chdir(home)
        push(home / "vectors/brief", "alice/brief", PushOptions(license="apache-2.0"))
        assert hub.repos["alice/brief"]
        yield home


def examples(name: str) -> list[doctest.DocTest]:
    thing = getattr(pv_merge, name)
    tests = [test for test in doctest.DocTestFinder().find(thing, name) if test.examples]
    if inspect.ismethod(thing):  # the finder looks at functions and classes
        tests = doctest.DocTestFinder().find(thing.__func__, name)
    return tests


@pytest.mark.parametrize("name", [n for n in pv_merge.__all__ if n not in NO_EXAMPLE])
def test_the_example_of(name: str, home: Path) -> None:
    tests = examples(name)
    assert any(test.examples for test in tests), f"{name} has no example"
    said: list[str] = []
    for test in tests:
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
        test.globs = {}
        result = runner.run(test, out=said.append)
        assert not result.failed, "".join(said)


@pytest.mark.slow
def test_training_as_a_function(home: Path) -> None:
    (test,) = doctest.DocTestFinder().find(trainers.train, "train")
    said: list[str] = []
    assert not doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed, "".join(said)
    assert (home / "run/positive/adapter_config.json").exists()
    assert set(dir(trainers)) >= {"train", "train_sft", "train_reward"}


def test_every_name_is_listed_typed_and_documented() -> None:
    assert set(dir(pv_merge)) >= set(pv_merge.__all__)
    tree = ast.parse((ROOT / "pv_merge/__init__.py").read_text())
    typed: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pv_merge."):
            typed |= {(a.asname or a.name): f"{node.module}:{a.name}" for a in node.names}
    typed["load"] = "pv_merge.artifacts.vector:PreferenceVector.load"
    typed.pop("__version__")
    assert typed == pv_merge._PLACES
    assert {*typed, "__version__"} == set(pv_merge.__all__)
    page = (ROOT / "docs/api.md").read_text()
    for name in pv_merge.__all__:
        assert re.search(rf"\b{name}\b", page), f"docs/api.md lacks {name}"
    with pytest.raises(AttributeError, match="has no attribute 'swep'"):
        _ = pv_merge.swep  # type: ignore[attr-defined]
    for package in ("pv_merge", "trainers"):
        assert (ROOT / package / "py.typed").exists()


def test_functions_say_their_types_and_print_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in set(pv_merge.__all__) - {"__version__"}:
        thing = getattr(pv_merge, name)
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            assert signature.return_annotation is not inspect.Signature.empty
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
    pv_merge.check("recipe.yml")
    pv_merge.merge("recipe.yml", "silent")
    pv_merge.sweep("recipe.yml", {"polite": [0, 1]}, "quiet", prompts=["Why?"])
    told = capsys.readouterr()
    assert told.out == "" and "Traceback" not in told.err


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, json, pv_merge; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0]={sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(said.stdout))
    assert not loaded & {
        "torch",
        "numpy",
        "mergekit",
        "transformers",
        "peft",
        "click",
        "yaml",
        "pydantic",
    }
    assert {name for name in loaded if name.startswith("pv_merge")} == {
        "pv_merge",
        "pv_merge.version",
    }


def test_what_a_vector_says_of_itself(home: Path) -> None:
    polite = pv_merge.load("vectors/polite")
    assert repr(polite) == (
        f"PreferenceVector('polite', rank 8, norm {polite.norm():.4g}, base {home}/base)"
    )
    pv_merge.extract("positive", "negative", "vectors/dense")
    dense = pv_merge.load("vectors/dense")
    assert repr(dense).startswith(
        f"PreferenceVector('polite', dense, norm {polite.norm():.4g}, base"
    )
    bare = PreferenceVector("x", {"w": torch.ones(2, 2)})
    assert repr(bare) == "PreferenceVector('x', dense, norm 2)"


def test_vectors_are_divided_and_summed(home: Path) -> None:
    polite, brief = pv_merge.load("vectors/polite"), pv_merge.load("vectors/brief")
    assert (polite / 2).norm() == pytest.approx(polite.norm() / 2)
    assert (polite / 2).low_rank
    total = sum([polite, brief])
    assert isinstance(total, PreferenceVector)
    assert total.norm() == pytest.approx((polite + brief).norm())


def test_a_sum_with_a_protected_vector_is_protected(home: Path) -> None:
    change = {"w": torch.ones(2, 2)}
    plain, kept = PreferenceVector("a", change), PreferenceVector("b", change, {"protected": True})
    for vector in (plain + kept, kept + plain, plain - kept, (plain + kept) / 2):
        assert vector.manifest["protected"] is True
    assert "protected" not in (plain + plain).manifest


@pytest.mark.parametrize("other", ["2", None, True, [1.0], torch.ones(2), 1j])
def test_what_is_no_number_is_a_type_error(other: object) -> None:
    vector = PreferenceVector("a", {"w": torch.ones(2, 2)})
    for act in (
        lambda: vector * other,  # type: ignore[operator]
        lambda: vector / other,  # type: ignore[operator]
        lambda: vector + other,  # type: ignore[operator]
        lambda: vector - other,  # type: ignore[operator]
    ):
        with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
            act()


def test_a_factor_that_is_not_finite_is_refused() -> None:
    vector = PreferenceVector("a", {"w": torch.ones(2, 2)})
    for factor in (float("nan"), float("inf"), 10**400):
        with pytest.raises((PvMergeError, OverflowError)):
            _ = vector * factor
    with pytest.raises(ZeroDivisionError):
        _ = vector / 0

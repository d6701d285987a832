"""The plugin, in processes of its own: stock mergekit knows the method, and nothing can break."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from models import added, largest_difference, load, logits, pair, perturbed, recipe, save, tiny

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(
    *command: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True
    )


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", textwrap.dedent(code), env=env)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    base = tiny()
    return {
        "base": save(base, root / "base"),
        "positive": save(perturbed(base, 1), root / "positive"),
        "negative": save(perturbed(base, 2), root / "negative"),
    }


@pytest.fixture
def document(models: dict[str, str]) -> dict[str, Any]:
    return recipe(models["base"], pair(models["positive"], models["negative"], 0.5))


def assert_merged(folder: Path, models: dict[str, str]) -> None:
    base, positive, negative = (load(models[key]) for key in ("base", "positive", "negative"))
    expected = logits(added(base, [(0.5, positive, negative)]))
    assert largest_difference(expected, logits(folder)) < 1e-5


# ---- stock commands ------------------------------------------------------------------------------


def test_mergekit_yaml(tmp_path: Path, models: dict[str, str], document: dict[str, Any]) -> None:
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(document))
    out = tmp_path / "out"
    done = run(
        str(BIN / "mergekit-yaml"), str(tmp_path / "recipe.yml"), str(out), "--no-copy-tokenizer"
    )
    assert done.returncode == 0, done.stderr
    assert "pv-merge" not in done.stderr
    assert_merged(out, models)


@pytest.mark.slow
def test_mergekit_multi(tmp_path: Path, models: dict[str, str], document: dict[str, Any]) -> None:
    second = recipe("first", pair(models["positive"], models["negative"], -0.5))
    documents = [{"name": "first", **document}, second]
    (tmp_path / "multi.yml").write_text(yaml.safe_dump_all(documents))
    out = tmp_path / "out"
    done = run(
        *(str(BIN / "mergekit-multi"), str(tmp_path / "multi.yml"), "--out-path", str(out)),
        *("--intermediate-dir", str(tmp_path / "between"), "--no-copy-tokenizer"),
    )
    assert done.returncode == 0, done.stderr
    assert_merged(tmp_path / "between" / "first", models)
    assert largest_difference(logits(models["base"]), logits(out)) < 1e-5  # +0.5 and −0.5


@pytest.mark.slow
def test_mergekit_pytorch(tmp_path: Path, models: dict[str, str], document: dict[str, Any]) -> None:
    for item in document["models"]:
        item["model"] += "/model.safetensors"
    document["base_model"] = f"{document['base_model']}/model.safetensors"
    (tmp_path / "raw.yml").write_text(yaml.safe_dump(document))
    out = tmp_path / "out"
    done = run(
        str(BIN / "mergekit-pytorch"), str(tmp_path / "raw.yml"), str(out), "--safe-serialization"
    )
    assert done.returncode == 0, done.stderr
    shutil.copy(Path(models["base"]) / "config.json", out)
    assert_merged(out, models)


@pytest.mark.slow
def test_turning_it_off(tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(document))
    out = tmp_path / "out"
    done = run(
        *(str(BIN / "mergekit-yaml"), str(tmp_path / "recipe.yml"), str(out)),
        env={"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
    )
    assert done.returncode != 0
    assert "preference_vector" in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_turned_off_one_import_makes_it_known() -> None:
    done = python(
        """
        import mergekit.merge_methods as methods
        known = lambda: [m.spec.name for m in methods.registry.registered_methods()].count("preference_vector")
        before = known()
        import importlib, pv_merge.integrations.mergekit.method
        importlib.reload(pv_merge.integrations.mergekit.method)
        from pv_merge.integrations.mergekit.plugin import activate
        activate(); activate()
        print(before, known(), methods.get("preference_vector").spec.pretty_name)
        """,
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    assert done.stdout == "0 1 Preference Vectors\n", done.stderr


# ---- light ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["pv_merge", "pv_merge.integrations.mergekit.plugin", "pv_merge.cli", "trainers.cli"]
)
def test_imports_neither_torch_nor_mergekit(module: str) -> None:
    done = python(
        f"""
        import sys
        import {module}
        heavy = {{"torch", "mergekit", "transformers", "numpy"}}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("command", ["pv-merge", "pv-train"])
def test_help_loads_neither(command: str) -> None:
    assert run(str(BIN / command), "--help").returncode == 0
    module = {"pv-merge": "pv_merge.cli", "pv-train": "trainers.cli"}[command]
    done = python(
        f"""
        import sys
        from {module} import main
        try:
            main(["--help"])
        except SystemExit as stop:
            print(stop.code, sorted({{"torch", "mergekit", "transformers"}} & set(sys.modules)))
        """
    )
    assert done.stdout.endswith("0 []\n"), done.stderr


# ---- unbreakable ---------------------------------------------------------------------------------

# These run against a stand-in for mergekit with the same module names, since the real one takes
# seconds to import; its registry is as empty as a mergekit whose interface has changed.


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("stand-in")
    package = root / "mergekit" / "merge_methods"
    package.mkdir(parents=True)
    (root / "mergekit" / "__init__.py").touch()
    (package / "__init__.py").write_text("from mergekit.merge_methods import registry\n")
    (package / "registry.py").write_text("NAMES = ['ties']\n")
    return str(root)


ALIVE = """
import torch
import mergekit.merge_methods.registry as registry
print(registry.NAMES, torch.ones(2).sum().item(), type(registry.__loader__).__name__)
"""
STILL_ALIVE = "['ties'] 2.0 SourceFileLoader\n"
LINE = "pv-merge: mergekit will not know merge_method preference_vector"

FAILURES = {
    "mergekit's interface has changed": (
        "",
        "ModuleNotFoundError: No module named 'mergekit.common'",
    ),
    "the method's module raises": (
        """
        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name == "pv_merge.integrations.mergekit.method":
                    raise RuntimeError("broken\\non purpose")
        sys.meta_path.insert(0, Broken())
        """,
        "RuntimeError: broken on purpose",
    ),
    "a module of ours is missing": (
        "sys.modules['pv_merge.integrations.mergekit.method'] = None",
        "ModuleNotFoundError",
    ),
    "activate raises": ("plugin._RegistryFinder = None", "TypeError"),
    "the loader raises": (
        "plugin._RegisteringLoader.__init__ = lambda *rest: 1 / 0",
        "ZeroDivisionError",
    ),
    "another finder raises": (
        """
        class Raises:
            calls = 0
            def find_spec(self, name, path=None, target=None):
                if name == plugin.REGISTRY:
                    Raises.calls += 1
                    if Raises.calls == 1:
                        raise OSError("disk is gone")
        sys.meta_path.insert(0, Raises())
        """,
        "OSError: disk is gone",
    ),
    "an error without a text": (
        """
        import builtins
        usual = builtins.__import__
        def imports(name, *rest, **more):
            if name == "pv_merge.integrations.mergekit.method":
                raise ValueError
            return usual(name, *rest, **more)
        builtins.__import__ = imports
        """,
        "ValueError: no reason given",
    ),
}
SETUP = "import sys\nimport pv_merge.integrations.mergekit.plugin as plugin\n"


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_costs_one_line(failure: str, stand_in: str) -> None:
    setup, reason = FAILURES[failure]
    done = python(SETUP + textwrap.dedent(setup) + ALIVE, PYTHONPATH=stand_in)
    assert (done.returncode, done.stdout) == (0, STILL_ALIVE), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(LINE) and reason in line


@pytest.mark.parametrize("how", ["sys.stderr.close()", "sys.stderr = None"])
def test_with_no_stderr_it_fails_silently(how: str, stand_in: str) -> None:
    done = python(f"{SETUP}{how}\n{ALIVE}", PYTHONPATH=stand_in)
    assert (done.returncode, done.stdout) == (0, STILL_ALIVE)


def test_an_interrupt_still_interrupts(stand_in: str) -> None:
    # Only Exception is caught: Ctrl-C during the import must stop the program.
    done = python(
        f"""{SETUP}
def interrupted():
    raise KeyboardInterrupt
plugin.register = interrupted
try:
    import mergekit.merge_methods
except KeyboardInterrupt:
    print("stopped")
""",
        PYTHONPATH=stand_in,
    )
    # Without torch nothing has activated the plugin yet, so nothing could be interrupted.
    assert done.stdout == "", done.stderr
    done = python(
        f"""{SETUP}
def interrupted():
    raise KeyboardInterrupt
plugin.register = interrupted
plugin.activate()
try:
    import mergekit.merge_methods
except KeyboardInterrupt:
    print("stopped")
""",
        PYTHONPATH=stand_in,
    )
    assert done.stdout == "stopped\n", done.stderr


def test_without_mergekit_torch_still_imports() -> None:
    done = python(
        """
        import sys
        sys.modules["mergekit"] = None
        import torch
        print(torch.ones(2).sum().item())
        try:
            import mergekit
        except ModuleNotFoundError as error:
            print(error.name)
        """
    )
    assert (done.stdout, done.stderr) == ("2.0\nmergekit\n", "")


def test_mergekits_own_failure_is_not_hidden(stand_in: str, tmp_path: Path) -> None:
    shutil.copytree(stand_in, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mergekit" / "merge_methods" / "registry.py").write_text("raise KeyError('theirs')")
    done = python("import torch, mergekit.merge_methods", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "KeyError: 'theirs'" in done.stderr
    assert "pv-merge" not in done.stderr


def test_python_starts_without_a_word() -> None:
    done = run(sys.executable, "-c", "print('started')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


# ---- from a wheel --------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_a_wheel_in_a_clean_environment(
    tmp_path: Path, models: dict[str, str], document: dict[str, Any]
) -> None:
    """Build a wheel and install it where only the other packages come from this environment."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pv_merge", "trainers", "recipes/quickstart"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheels = tmp_path / "wheels"
    built = run(
        *(sys.executable, "-m", "pip", "wheel", str(source), "--no-deps"),
        *("--wheel-dir", str(wheels), "--quiet"),
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("pv_merge-*.whl")

    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=False)
    own = Path(
        run(
            str(fresh / "bin" / "python"),
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'))",
        ).stdout.strip()
    )
    # The other packages, linked one by one: everything but pv-merge's own editable install.
    outer = Path(yaml.__file__).resolve().parent.parent
    for item in outer.iterdir():
        if not item.name.startswith(("pv_merge", "trainers", "_editable_impl_pv")):
            (own / item.name).symlink_to(item)
    before = run(str(fresh / "bin" / "python"), "-c", "import pv_merge", cwd=tmp_path)
    assert "No module named 'pv_merge'" in before.stderr
    installed = run(
        *(sys.executable, "-m", "pip", "--python", str(fresh / "bin" / "python"), "install"),
        *("--no-deps", "--no-index", "--quiet", str(wheel)),
    )
    assert installed.returncode == 0, installed.stderr

    show = "import pv_merge; print(pv_merge.__file__)"
    where = run(str(fresh / "bin" / "python"), "-c", show, cwd=tmp_path)
    assert str(fresh) in where.stdout
    # The console script is mergekit's own, with the fresh environment's interpreter in its first line.
    script = (BIN / "mergekit-yaml").read_text().splitlines(keepends=True)
    stock = fresh / "bin" / "mergekit-yaml"
    stock.write_text(f"#!{fresh / 'bin' / 'python'}\n" + "".join(script[1:]))
    stock.chmod(0o755)
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(document))
    out = tmp_path / "out"
    done = run(
        str(stock), str(tmp_path / "recipe.yml"), str(out), "--no-copy-tokenizer", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert_merged(out, models)
    version = run(str(fresh / "bin" / "pv-merge"), "--version", cwd=tmp_path)
    assert version.returncode == 0 and "pv-merge" in version.stdout

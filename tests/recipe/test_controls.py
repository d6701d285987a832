"""One record of controls: nothing that is on it can be forgotten, nothing unknown gets through."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from pv_merge.arithmetic.preference import consensus
from pv_merge.arithmetic.rounding import Rounder
from pv_merge.arithmetic.terms import Controls
from pv_merge.errors import PvMergeError, Topic
from pv_merge.integrations.export import TARGETS, ExportTarget, export
from pv_merge.integrations.mergekit.method import METHOD
from pv_merge.integrations.mixes.name import read
from pv_merge.integrations.mixes.settings import Settings
from pv_merge.live.switch import LiveMix
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.report import report
from pv_merge.merging.run import run, run_grid
from pv_merge.recipe.control import Control, Scope
from pv_merge.recipe.controls import controls, register, unregister
from pv_merge.recipe.grid import checked_axes
from pv_merge.recipe.opening import check, open_recipe
from pv_merge.recipe.reading import INPUT_KEYS

from models import largest_difference, load, logits, mergekit_yaml, pair, recipe, save, state, tiny
from policies import adapted, save_adapter

LIMIT = 0.004


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("controls")
    model = tiny()
    base = save(model, root / "base")
    for seed, name in enumerate(("helpful", "unhelpful", "polite", "rude"), start=1):
        save_adapter(adapted(model, seed), root / name, base)
    for positive, negative in (("helpful", "unhelpful"), ("polite", "rude")):
        out = root / f"{positive}-vector"
        extract(root / positive, root / negative, out, ExtractOptions(base, positive))
    return root


@pytest.fixture
def clip() -> Iterator[Control]:
    """A control from outside: φ limited in each element, which is not linear."""
    control = Control(
        "clip",
        linear=False,
        scope=Scope.PREFERENCE,
        kind=float,
        expected="a positive number",
        allowed=lambda value: value > 0,
        transform=lambda limit: lambda phi: phi.clamp(-limit, limit),
    )
    register(control)
    yield control
    unregister("clip")


def written(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def document(root: Path, parameters: dict[str, Any] | None = None, **said: Any) -> dict[str, Any]:
    inputs = pair(str(root / "helpful"), str(root / "unhelpful"), 0.8)
    inputs[0][1].update(said)
    inputs += pair(str(root / "polite"), str(root / "rude"), -0.5, "polite")
    return recipe(str(root / "base"), inputs, parameters)


def vectors(root: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """The same as dense vectors, which mergekit takes too."""
    inputs = [
        (str(root / f"{name}-vector"), {"preference": name, "polarity": "vector", "eta": eta})
        for name, eta in (("helpful", 0.8), ("polite", -0.5))
    ]
    return recipe(str(root / "base"), inputs, parameters)


# ---- a control that is registered from outside ---------------------------------------------------


def test_every_way_to_merge_applies_it(root: Path, clip: Control, tmp_path: Path) -> None:
    path = written(tmp_path / "r.yml", vectors(root, {"clip": LIMIT}))
    run(path, tmp_path / "run", report=False)
    ours = state(tmp_path / "run")
    base = state(root / "base")
    both = {name: state(root / f"{name}-vector") for name in ("helpful", "polite")}
    for name, weight in base.items():
        limited = {key: held[name].clamp(-LIMIT, LIMIT) for key, held in both.items()}
        expected = weight + (0.8 * limited["helpful"] - 0.5 * limited["polite"])
        assert largest_difference(ours[name], expected) < 1e-7, name
    run_grid(path, tmp_path / "grid", [{"helpful": 0.8, "polite": -0.5}], report=False)
    (point,) = (tmp_path / "grid").iterdir()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in state(point).items())
    assert report(path, tmp_path / "run")["preferences"]["helpful"]["share"] == pytest.approx(1.0)
    live = load(root / "base")
    with LiveMix(open_recipe(path), live) as mix:
        mix.set({})
        assert largest_difference(logits(live), logits(tmp_path / "run")) < 1e-5


@pytest.fixture
def careless() -> Iterator[None]:
    """An export target from outside that checks nothing."""
    TARGETS.register("careless", ExportTarget("nothing", lambda *said: None))
    yield
    TARGETS.forget("careless")


@pytest.mark.usefixtures("clip", "careless")
@pytest.mark.parametrize("target", ["peft", "gguf", "careless"])
def test_exports_refuse_it(target: str, root: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "r.yml", document(root, clip=LIMIT))
    with pytest.raises(PvMergeError, match=r"clip \(of helpful\) is not linear in the vectors"):
        export(path, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()


def test_scales_alone_do_not_hold_it_live(root: Path, clip: Control, tmp_path: Path) -> None:
    plain = open_recipe(written(tmp_path / "plain.yml", document(root)))
    with LiveMix(plain, load(root / "base")) as mix:
        assert mix.scales_only
    limited = open_recipe(written(tmp_path / "r.yml", document(root, clip=LIMIT)))
    with LiveMix(limited, load(root / "base")) as mix:
        assert not mix.scales_only


def test_a_served_mix_cannot_have_it(clip: Control, tmp_path: Path) -> None:
    for name in ("clip", "density"):
        with pytest.raises(PvMergeError, match=f"{name} is a control of merges") as caught:
            read(f"{name}=0.5", {}, Settings(tmp_path))
        assert caught.value.topic is Topic.CONTROL


def test_its_values_are_checked_and_its_name_known(
    root: Path, clip: Control, tmp_path: Path
) -> None:
    said = document(root, clip=[0.1, -1])
    (finding,) = check(written(tmp_path / "r.yml", said))[:1]
    assert finding.level == "error" and finding.topic is Topic.CONTROL
    assert finding.text.endswith("helpful: clip must be a positive number, got -1")
    unregister("clip")
    try:
        assert any("unknown key 'clip'" in item.text for item in check(tmp_path / "r.yml"))
    finally:
        register(clip)


def test_a_control_must_say_whether_it_is_linear_and_what_it_does() -> None:
    said: dict[str, Any] = {"scope": Scope.PREFERENCE, "kind": float, "expected": "a number"}
    with pytest.raises(TypeError, match="linear"):
        Control("toy", **said)
    with pytest.raises(ValueError, match="toy: needs a transform of φ"):
        register(Control("toy", linear=True, **said))
    with pytest.raises(ValueError, match="density already"):
        register(Control("density", linear=True, **said))
    with pytest.raises(ValueError, match="density is built in"):
        unregister("density")


# ---- those that are built in ---------------------------------------------------------------------

ACTING: dict[str, dict[str, Any]] = {
    "eta": {},
    "density": {"density": 0.3},
    "max_relative_norm": {"max_relative_norm": 0.001},
    "sign_consensus": {"sign_consensus": "sum"},
    "interference": {"interference": "orthogonal"},
    "round_to": {"round_to": "bfloat16"},
    "rounding": {"round_to": "bfloat16", "rounding": "nearest"},
    "seed": {"round_to": "bfloat16", "seed": 5},
    "allow_protected_negative": {},
    "allow_related_base": {},
    "not_finite": {},  # of weights that are finite it says nothing
}


@pytest.mark.parametrize("name", controls())
def test_each_control_reaches_the_merge_and_mergekit_alike(
    name: str, root: Path, tmp_path: Path
) -> None:
    said = ACTING[name]  # a control without a case here is a failure; {} has a test of its own
    plain = {key: value for key, value in said.items() if key != name}
    outputs = {}
    for label, parameters in (("with", said), ("without", plain)):
        given = vectors(root, parameters)
        run(written(tmp_path / f"{label}.yml", given), tmp_path / label, report=False)
        outputs[label] = state(tmp_path / label)
    stock = state(mergekit_yaml(vectors(root, said), tmp_path / "stock"))
    for key, tensor in outputs["with"].items():
        assert torch.equal(tensor, stock[key]), key
    changed = [k for k, t in outputs["with"].items() if not torch.equal(t, outputs["without"][k])]
    assert bool(changed) == bool(said)


@pytest.mark.parametrize("where", ["base", "helpful-vector"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_or_stays_the_base(
    where: str, value: float, root: Path, tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    world = tmp_path / "world"
    shutil.copytree(root, world)
    tensors = state(world / where)
    tensors[name][1, 2] = value
    save_file(tensors, world / where / "model.safetensors", metadata={"format": "pt"})
    for folder in ("helpful-vector", "polite-vector"):  # the base has changed
        (world / folder / "preference_vector.json").write_text('{"kind": "preference_vector"}')
    path = written(tmp_path / "r.yml", vectors(world, {}))
    with pytest.raises(PvMergeError, match=f"{name}.* holds .* not finite"):
        run(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(AssertionError, match=f"Error: .*{name}.* holds .* not finite"):
        mergekit_yaml(vectors(world, {}), tmp_path / "stock")
    if where != "base":
        path = written(tmp_path / "r.yml", vectors(world, {"not_finite": "keep_base"}))
        run(path, tmp_path / "kept")
        kept, base = state(tmp_path / "kept")[name], state(world / "base")[name]
        assert kept[1, 2] == base[1, 2] and int((kept == base).sum()) == 1


def test_mergekits_schema_is_the_record() -> None:
    assert [item.name for item in METHOD.spec.parameters] == [*INPUT_KEYS, *controls()]
    for name, control in controls().items():
        (spec,) = [item for item in METHOD.spec.parameters if item.name == name]
        assert spec.default == (None if control.scope is Scope.PREFERENCE else control.default)


@pytest.mark.parametrize(
    ("name", "value"), [("sign_consensus", "vote"), ("interference", "ties"), ("rounding", "up")]
)
def test_an_unknown_rule_is_an_error_everywhere(name: str, value: str) -> None:
    with pytest.raises(PvMergeError, match=f"unknown {name} '{value}'") as caught:
        Controls(**{name: value})  # type: ignore[arg-type]
    assert caught.value.topic is Topic.CONTROL


def test_an_unknown_rule_is_an_error_in_the_formulas_too() -> None:
    steps = [torch.ones(2), torch.ones(2)]
    with pytest.raises(PvMergeError, match="unknown sign_consensus 'vote'"):
        consensus(steps, "vote")  # type: ignore[arg-type]
    with pytest.raises(PvMergeError, match="unknown rounding 'up'"):
        Rounder(torch.bfloat16, "up", 0, "w")  # type: ignore[arg-type]


# ---- every value of every list and filter --------------------------------------------------------


@pytest.mark.parametrize(
    "eta",
    [
        float("nan"),
        [1, float("nan")],
        [0.1, float("inf")],
        1e39,
        [0, -1e39],
        {"value": float("inf"), "filter": "mlp"},
        [{"value": [0, float("nan")], "filter": "mlp"}, {"value": 1}],
        [{"value": 1, "filter": "mlp"}, {"value": 3.5e38}],
    ],
)
@pytest.mark.parametrize("top", [False, True])
def test_every_eta_is_finite_in_float32(eta: Any, top: bool, root: Path, tmp_path: Path) -> None:
    said = document(root)
    if top:
        for item in said["models"]:
            item["parameters"].pop("eta", None)
        said["parameters"] = {"eta": eta}
    else:
        said["models"][0]["parameters"]["eta"] = eta
    path = written(tmp_path / "r.yml", said)
    errors = [item for item in check(path) if item.level == "error"]
    assert len(errors) == 1, errors
    assert "eta must be a finite number in float32" in errors[0].text
    with pytest.raises(PvMergeError, match="finite number in float32"):
        run(path, tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39, -1e39])
def test_an_eta_from_elsewhere_too(value: float, root: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "r.yml", document(root))
    said = r"eta of polite must be a finite number in float32, got "
    with pytest.raises(PvMergeError, match=said) as caught:
        run_grid(path, tmp_path / "grid", [{"polite": 0.0}, {"polite": value}])
    assert caught.value.topic is Topic.ETA
    with pytest.raises(PvMergeError, match=said):
        checked_axes({"polite": [0.0, value]}, ["polite"])
    with (
        LiveMix(open_recipe(path), load(root / "base")) as mix,
        pytest.raises(PvMergeError, match=said),
    ):
        mix.set({"polite": value})

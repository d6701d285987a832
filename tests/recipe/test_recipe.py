"""Recipes: read without mergekit, every problem at once, settings evaluated as mergekit does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration, evaluate_setting
from pydantic import TypeAdapter

from pv_merge.errors import PvMergeError
from pv_merge.recipe.controls import controls
from pv_merge.recipe.reading import read_recipe
from pv_merge.recipe.recipe import Recipe
from pv_merge.recipe.varying import value_at

from models import pair, recipe

Document = dict[str, Any]


@pytest.fixture
def document() -> Document:
    return recipe(
        "./models/base",
        [
            *pair("./runs/helpful/positive", "./runs/helpful/negative", 0.5),
            ("./vectors/harmless", {"preference": "harmless", "polarity": "vector", "eta": -1}),
        ],
    )


def read(document: Any, folder: Path) -> Recipe:
    path = folder / "recipe.yml"
    path.write_text(
        document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    )
    return read_recipe(path)


def problems(document: Any, folder: Path) -> list[str]:
    with pytest.raises(PvMergeError) as caught:
        read(document, folder)
    start = f"{folder / 'recipe.yml'}: "
    lines = [line.strip() for line in caught.value.message.split("\n")]
    assert all(line.startswith(start) for line in lines), lines
    return [line.removeprefix(start) for line in lines]


# ---- what is read --------------------------------------------------------------------------------


def test_a_recipe(document: Document, tmp_path: Path) -> None:
    document |= {"parameters": {"round_to": "bfloat16", "seed": 7}, "out_dtype": "bfloat16"}
    found = read(document, tmp_path)
    assert found.base_model == "./models/base"
    assert [item.model for item in found.inputs] == [item["model"] for item in document["models"]]
    assert found.preferences == ["helpful", "harmless"]
    assert found.etas == {"helpful": 0.5, "harmless": -1.0}
    assert (found.round_to, found.controls.rounding, found.seed) == ("bfloat16", "stochastic", 7)
    assert (found.dtype, found.out_dtype) == (None, "bfloat16")
    MergeConfiguration.model_validate(document)  # and mergekit reads it too


def test_the_base_may_stand_among_the_models(document: Document, tmp_path: Path) -> None:
    document["models"].insert(0, {"model": "./models/base"})
    assert len(read(document, tmp_path).inputs) == 3


def test_settings_of_one_weight(document: Document, tmp_path: Path) -> None:
    document["models"][0]["parameters"]["eta"] = [{"filter": "mlp", "value": [0, 1]}, {"value": 3}]
    document["parameters"] = {"density": 0.5}
    found = read(document, tmp_path)
    assert found.etas == {"helpful": None, "harmless": -1.0}
    first, second, third = found.settings_for("model.layers.1.mlp.up_proj.weight", 0.25)
    assert (first.model, first.preference, first.polarity) == (
        "./runs/helpful/positive",
        "helpful",
        "positive",
    )
    assert [item.values["eta"] for item in (first, second, third)] == [0.25, None, -1.0]
    assert [item.values["density"] for item in (first, second, third)] == [0.5, 0.5, 0.5]
    assert found.settings_for("model.norm.weight", 0.0)[0].values["eta"] == 3.0


def test_eta_at_the_top_is_for_all(document: Document, tmp_path: Path) -> None:
    for item in document["models"]:
        item["parameters"].pop("eta", None)
    document["parameters"] = {"eta": 0.25}
    found = read(document, tmp_path)
    assert found.etas == {"helpful": 0.25, "harmless": 0.25}


def test_scientific_notation(document: Document, tmp_path: Path) -> None:
    text = yaml.safe_dump(document).replace("eta: 0.5", "eta: 5e-1")  # to PyYAML a string
    assert read(text, tmp_path).etas["helpful"] == 0.5


def test_text_with_other_etas(document: Document, tmp_path: Path) -> None:
    text = "# mergekit-yaml recipe.yml out\n" + yaml.safe_dump(document)
    found = read(text, tmp_path)
    changed = found.text_with({"helpful": 2})
    assert changed.startswith("# mergekit-yaml recipe.yml out\n")
    assert read(changed, tmp_path).etas == {"helpful": 2.0, "harmless": -1.0}
    assert found.text_with({}) == text


# ---- gradients and filters -----------------------------------------------------------------------

numbers = st.floats(-3, 3).map(lambda value: round(value, 2))
gradients = st.lists(numbers, min_size=1, max_size=5)
values = numbers | gradients
filters = st.sampled_from(["mlp", "self_attn", "layers.1", "*", "norm", "embed", None])


def conditional(value: float | list[float], only: str | None) -> Document:
    return {"value": value} if only is None else {"filter": only, "value": value}


conditionals = st.builds(conditional, values, filters)
number_settings = values | conditionals | st.lists(conditionals, min_size=1, max_size=3)
NAMES = [
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.input_layernorm.weight",
    "lm_head.weight",
]


@given(number_settings, st.sampled_from(NAMES), st.floats(0, 1))
def test_a_setting_is_what_mergekit_makes_of_it(setting: Any, name: str, t: float) -> None:
    document = recipe("./b", [("./p", {"eta": setting})])
    theirs = MergeConfiguration.model_validate(document).models
    assert theirs is not None and theirs[0].parameters is not None
    validate = TypeAdapter(float).validate_python
    expected = evaluate_setting(name, theirs[0].parameters["eta"], t, validate=validate)
    assert value_at(controls()["eta"].number(setting), name, t) == expected


def test_a_gradient_by_hand() -> None:
    assert [value_at([0.0, 1.0, 4.0], "w", t) for t in (0, 0.25, 0.5, 0.75, 1)] == [
        0,
        0.5,
        1,
        2.5,
        4,
    ]
    assert value_at([3.0], "w", 0.7) == 3.0
    assert value_at(None, "w", 0.5) is None


# ---- what is wrong -------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[Any, list[str]]] = {
    "top-level key": (
        lambda d: d.update(out_dtyp="bfloat16"),
        ["unknown key 'out_dtyp'; did you mean out_dtype?"],
    ),
    "key of a model": (
        lambda d: d["models"][0].update(paramters={}),
        ["./runs/helpful/positive: unknown key 'paramters'; did you mean parameters?"],
    ),
    "misspelt eta": (
        lambda d: d["models"][0]["parameters"].update(etaa=d["models"][0]["parameters"].pop("eta")),
        [
            "./runs/helpful/positive: unknown key 'etaa'; did you mean eta?",
            "helpful: none of its inputs has an eta; it has no default (is the key misspelt?)",
        ],
    ),
    "weight": (
        lambda d: d["models"][0]["parameters"].update(weight=1),
        [
            "./runs/helpful/positive: unknown key 'weight'; known: base, density, eta, max_relative_norm, polarity, preference"
        ],
    ),
    "key of the parameters": (
        lambda d: d.update(parameters={"sign_concensus": "sum"}),
        ["parameters: unknown key 'sign_concensus'; did you mean sign_consensus?"],
    ),
    "value of the parameters": (
        lambda d: d.update(parameters={"sign_consensus": "average"}),
        ["parameters: sign_consensus must be one of none, sum, count, got 'average'"],
    ),
    "polarity": (
        lambda d: d["models"][1]["parameters"].update(polarity="negativ"),
        ["./runs/helpful/negative: unknown polarity 'negativ'; did you mean negative?"],
    ),
    "no polarity": (
        lambda d: d["models"][1]["parameters"].pop("polarity"),
        ["./runs/helpful/negative: has no polarity; it is one of positive, negative, vector"],
    ),
    "no preference": (
        lambda d: d["models"][1]["parameters"].pop("preference"),
        ["./runs/helpful/negative: has no preference; is the key misspelt?"],
    ),
    "disagreeing eta": (
        lambda d: d["models"][1]["parameters"].update(eta=0.75),
        ["helpful: its inputs disagree on eta (0.5 and 0.75); say it once"],
    ),
    "density": (
        lambda d: d["models"][0]["parameters"].update(density=1.5),
        ["./runs/helpful/positive: density must be in (0, 1], got 1.5"],
    ),
    "cap": (
        lambda d: d["models"][0]["parameters"].update(max_relative_norm=0),
        ["./runs/helpful/positive: max_relative_norm must be a positive number, got 0"],
    ),
    "infinite eta": (
        lambda d: d["models"][0]["parameters"].update(eta=float("inf")),
        ["./runs/helpful/positive: eta must be a finite number in float32, got inf"],
    ),
    "eta is a word": (
        lambda d: d["models"][0]["parameters"].update(eta="strong"),
        [
            "./runs/helpful/positive: eta must be a number, a list of numbers, or filters with values"
        ],
    ),
    "a filter's value is a word": (
        lambda d: d["models"][0]["parameters"].update(
            eta=[{"value": 1, "filter": "mlp"}, {"value": "strong"}]
        ),
        [
            "./runs/helpful/positive: eta must be a number, a list of numbers, or filters with values"
        ],
    ),
    "twice the same input": (
        lambda d: d["models"].append(d["models"][0]),
        ["./runs/helpful/positive is named 2 times; mergekit takes each input once"],
    ),
    "only the base": (
        lambda d: d.update(models=[{"model": "./models/base"}]),
        ["names no input besides the base"],
    ),
    "no base": (lambda d: d.pop("base_model"), ["base_model is required"]),
    "no models": (lambda d: d.pop("models"), ["models is required"]),
    "dtype": (
        lambda d: d.update(dtype="bf16"),
        ["dtype: Input should be 'float32', 'float16', 'bfloat16' or 'float64', got 'bf16'"],
    ),
    "another method": (
        lambda d: d.update(merge_method="ties"),
        ["merge_method: Input should be 'preference_vector', got 'ties'"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake(mistake: str, document: Document, tmp_path: Path) -> None:
    change, expected = MISTAKES[mistake]
    change(document)
    assert problems(document, tmp_path) == expected


def test_all_at_once(document: Document, tmp_path: Path) -> None:
    for mistake in ("top-level key", "misspelt eta", "polarity", "key of the parameters"):
        MISTAKES[mistake][0](document)
    document["models"][2]["parameters"]["density"] = 2
    found = problems(document, tmp_path)
    for mistake in ("top-level key", "misspelt eta", "polarity", "key of the parameters"):
        for line in MISTAKES[mistake][1]:
            assert line in found
    assert "./vectors/harmless: density must be in (0, 1], got 2" in found
    assert len(found) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [", "not valid YAML"),
        ("- a\n- b\n", "expected keys such as base_model:, got a list"),
        ("", "expected keys such as base_model:, got nothing"),
        ("just words", "expected keys such as base_model:, got text"),
    ],
)
def test_not_a_recipe(text: str, message: str, tmp_path: Path) -> None:
    (line,) = problems(text, tmp_path)
    assert line.startswith(message)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match=r"none\.yml: no such file"):
        read_recipe(tmp_path / "none.yml")
    with pytest.raises(PvMergeError, match="is a folder, not a file"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    "models",
    [
        None,
        "./a",
        [None],
        ["./a"],
        [{"model": None}],
        [{"model": "./a", "parameters": None}],
        [[1]],
        {"a": 1},
    ],
)
def test_models_of_a_wrong_form(models: Any, document: Document, tmp_path: Path) -> None:
    document["models"] = models
    assert problems(document, tmp_path)


@pytest.mark.parametrize(
    "eta",
    [
        [],
        [None],
        {"value": "high"},
        {"filter": "mlp"},
        [{"value": 1}, 2],
        {"value": {}},
        [[1, 2]],
        True,
        None,
    ],
)
def test_eta_of_a_wrong_form_is_no_traceback(eta: Any, document: Document, tmp_path: Path) -> None:
    document["models"][0]["parameters"]["eta"] = eta
    try:
        found = read(document, tmp_path)
    except PvMergeError as error:
        assert "eta" in error.message
    else:
        found.settings_for("model.norm.weight", 0.5)


@pytest.mark.parametrize("name", ["/tmp/x", "../../x", "a,b", "a=b", "..", "x" * 101, "a\nb"])
def test_names_that_would_become_paths_are_errors_of_the_recipe(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.yml"
    inputs = [("./p", {"preference": name, "polarity": "positive", "eta": 1.0})]
    path.write_text(yaml.safe_dump(recipe("./base", inputs)))
    with pytest.raises(PvMergeError, match="cannot be the name of a preference"):
        read_recipe(path)

"""Every broken recipe is caught before anything is read in full, each with a line that says why."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.folders import write_json
from pv_merge.cli import main
from pv_merge.errors import Topic
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.recipe.checks.finding import Finding
from pv_merge.recipe.opening import check

from models import pair, perturbed, recipe, save, state, tiny, write_state

Document = dict[str, Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: a base, good policies, and one for each way to be wrong."""
    root = tmp_path_factory.mktemp("world")
    base = tiny(tied=True)
    save(base, root / "base")
    for name, seed in (("positive", 1), ("negative", 2)):
        save(perturbed(base, seed), root / name)
    extract(
        root / "positive",
        root / "negative",
        root / "vector",
        ExtractOptions(str(root / "base"), "helpful"),
    )
    save(tiny(tied=True, seed=9), root / "stranger")
    save(tiny(tied=True, vocab_size=97), root / "longer")
    save(tiny(tied=False), root / "untied")
    tensors = state(root / "positive")
    name = "model.layers.0.mlp.up_proj.weight"
    write_state(root / "lacking", {k: v for k, v in tensors.items() if k != name}, root / "base")
    write_state(
        root / "extra", {**tensors, "model.layers.0.adapter.weight": torch.ones(2)}, root / "base"
    )
    write_state(
        root / "nan", {**tensors, name: torch.full_like(tensors[name], float("nan"))}, root / "base"
    )
    write_state(root / "reshaped", {**tensors, name: tensors[name].T}, root / "base")
    for folder, other in (
        ("hashed", "0" * 64),
        ("swapped", weights_hash(Checkpoint(root / "base"))),
    ):
        shutil.copytree(root / "positive", root / folder)
        manifest = {
            "kind": "policy",
            "polarity": "negative",
            "base_model": {"weights_sha256": other},
        }
        write_json(root / folder / "pv_run.json", manifest)
    for folder, vocabulary in (("tokens", {"a": 1}), ("base", {"a": 0})):
        if folder != "base":
            shutil.copytree(root / "positive", root / folder)
        (root / folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    (root / "pickled").mkdir()
    shutil.copy(root / "base" / "config.json", root / "pickled")
    (root / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    shutil.copytree(root / "positive", root / "cut")
    weights = root / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for name in ("positive", "negative", "base"):
        narrow = {key: value.bfloat16() for key, value in state(root / name).items()}
        write_state(root / f"{name}16", narrow, root / "base")
    (root / "freed").mkdir()
    shutil.copytree(root / "vector", root / "freed", dirs_exist_ok=True)
    manifest = json.loads((root / "vector" / "preference_vector.json").read_text())
    freed = {**manifest, "preference": "harmless", "protected": False}
    write_json(root / "freed" / "preference_vector.json", freed)
    return root


def good(world: Path) -> Document:
    return recipe(f"{world}/base", pair(f"{world}/positive", f"{world}/negative", 0.5))


def findings(world: Path, document: Any, tmp_path: Path, **options: Any) -> list[Finding]:
    path = tmp_path / "recipe.yml"
    path.write_text(
        document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    )
    return check(path, **options)


def entry(index: int, **changes: Any) -> Callable[[Document, Path], None]:
    def change(document: Document, world: Path) -> None:
        for key, value in changes.items():
            parameters = document["models"][index]["parameters"]
            if value is None:
                parameters.pop(key)
            else:
                parameters[key] = value

    return change


def model(index: int, name: str) -> Callable[[Document, Path], None]:
    def change(document: Document, world: Path) -> None:
        document["models"][index]["model"] = f"{world}/{name}" if name[0] not in "./" else name

    return change


def top(**changes: Any) -> Callable[[Document, Path], None]:
    return lambda document, world: document.update(changes)


def vector(
    document: Document, world: Path, polarity: str = "vector", name: str = "vector", **said: Any
) -> None:
    document["models"] = [
        {
            "model": f"{world}/{name}",
            "parameters": {"preference": "helpful", "polarity": polarity, "eta": 1.0, **said},
        }
    ]


BROKEN: dict[str, tuple[Callable[[Document, Path], None], str, str]] = {
    "misspelt eta": (entry(0, eta=None, etaa=0.5), "error", "positive: unknown key 'etaa'; did you mean eta?"),
    "no eta": (entry(0, eta=None), "error", "helpful: none of its inputs has an eta; it has no default"),
    "disagreeing eta": (entry(1, eta=0.7), "error", "helpful: its inputs disagree on eta (0.5 and 0.7); say it once"),
    "eta is a word": (entry(0, eta="half"), "error", "eta must be a number, a list of numbers, or filters with values"),
    "eta is infinite": (entry(0, eta=float("inf")), "error", "eta must be a finite number in float32, got inf"),
    "misspelt polarity": (entry(1, polarity="negtive"), "error", "unknown polarity 'negtive'; did you mean negative?"),
    "no polarity": (entry(1, polarity=None), "error", "has no polarity; it is one of positive, negative, vector"),
    "no preference": (entry(1, preference=None), "error", "has no preference; is the key misspelt?"),
    "misspelt preference key": (entry(1, preference=None, prefrence="helpful"), "error", "unknown key 'prefrence'; did you mean preference?"),
    "preference in two spellings": (entry(1, preference="helpfull"), "error", "helpfull: none of its inputs has an eta"),
    "density of nothing": (entry(0, density=0.0), "error", "density must be in (0, 1], got 0"),
    "density over one": (entry(0, density=1.5), "error", "density must be in (0, 1], got 1.5"),
    "norm of nothing": (entry(0, max_relative_norm=0.0), "error", "max_relative_norm must be a positive number"),
    "weight of task_arithmetic": (entry(0, weight=1.0), "error", "unknown key 'weight'"),
    "misspelt shared parameter": (top(parameters={"roundto": "bfloat16"}), "error", "parameters: unknown key 'roundto'; did you mean round_to?"),
    "unknown rounding": (top(parameters={"rounding": "random"}), "error", "parameters: rounding must be one of stochastic, nearest, got 'random'"),
    "unknown consensus": (top(parameters={"sign_consensus": "vote"}), "error", "parameters: sign_consensus must be one of none, sum, count, got 'vote'"),
    "misspelt top-level key": (top(outdtype="bfloat16"), "error", "unknown key 'outdtype'; did you mean out_dtype?"),
    "unknown dtype": (top(out_dtype="bf16"), "error", "out_dtype: Input should be"),
    "another method": (top(merge_method="task_arithmetic"), "error", "merge_method: Input should be 'preference_vector', got 'task_arithmetic'"),
    "no models": (top(models=[]), "error", "models: List should have at least 1 item"),
    "an input twice": (model(1, "positive"), "error", "is named 2 times; mergekit takes each input once"),
    "missing folder": (model(0, "nowhere"), "error", "nowhere: no such folder"),
    "missing base": (top(base_model="./nowhere/at/all"), "error", "./nowhere/at/all: no such folder (base_model)"),
    "a Hub name": (model(0, "./org/model"), "error", "a name on the Hub has no ./ before it"),
    "pickled weights": (model(0, "pickled"), "error", "holds no safetensors weights; convert its pickled weights to safetensors first"),
    "a file that was cut": (model(0, "cut"), "error", "model.safetensors: not a whole safetensors file"),
    "another vocabulary size": (model(0, "longer"), "error", "has 97 rows in model.embed_tokens.weight, the base 96"),
    "another vocabulary": (model(0, "tokens"), "error", "its tokenizer has another vocabulary than the base's; the same row means another token"),
    "an untied head": (model(0, "untied"), "error", "has lm_head.weight, which the base lacks; its head is its own, the base's is tied"),
    "a lacking tensor": (model(0, "lacking"), "error", "lacks model.layers.0.mlp.up_proj.weight, which the base has"),
    "a tensor too many": (model(0, "extra"), "error", "has model.layers.0.adapter.weight, which the base lacks; it would be dropped"),
    "another shape": (model(0, "reshaped"), "error", "has shape [32, 48] in model.layers.0.mlp.up_proj.weight, the base [48, 32]"),
    "an unrelated base": (model(1, "stranger"), "error", "is unlike the base's (cosine"),
    "another base by its hash": (model(0, "hashed"), "error", "was made from another base than"),
    "policies swapped": (model(0, "swapped"), "warning", "was trained as the negative policy, but the recipe says positive"),
    "a vector as a policy": (lambda d, w: vector(d, w, "positive"), "error", "is an extracted vector, so its polarity is vector, not positive"),
    "a policy as a vector": (lambda d, w: vector(d, w, name="positive"), "error", "is a model, not a difference; its polarity is positive or negative"),
    "negative eta on a protected preference": (lambda d, w: vector(d, w, preference="harmless", eta=-0.5), "error", "harmless is a protected preference and its eta is negative; add parameters: allow_protected_negative: true"),
    "a negative filter on one": (lambda d, w: vector(d, w, preference="safety", eta=[{"filter": "mlp", "value": -1}, {"value": 1}]), "error", "safety is a protected preference and its eta is negative"),
    "rounding to nearest by out_dtype": (top(out_dtype="bfloat16"), "warning", "the result is float32 and would be rounded to nearest, which loses small changes; add parameters: round_to: bfloat16"),
    "rounding before subtracting": (top(dtype="bfloat16"), "warning", "before anything is subtracted, which loses most of a small delta; leave dtype out"),
    "a positive alone": (lambda d, w: d["models"].pop(1), "note", "helpful has a positive policy and no negative one, so it is a plain task vector"),
    "eta zero": (entry(0, eta=0.0), "note", "helpful has eta 0, so it does nothing"),
}  # fmt: skip


def test_a_healthy_recipe_has_no_findings(world: Path, tmp_path: Path) -> None:
    (found,) = findings(world, good(world), tmp_path)
    assert (found.level, found.topic) == ("note", Topic.POLARITY)
    both = f"{world}/positive, {world}/negative"
    assert f"the polarity of {both} is not verified: no manifest" in found.text


def test_a_polarity_that_a_manifest_says_is_verified(world: Path, tmp_path: Path) -> None:
    document = good(world)
    model(1, "swapped")(document, world)  # its manifest says negative
    (found,) = findings(world, document, tmp_path)
    assert f"the polarity of {world}/positive is not verified" in found.text


@pytest.mark.parametrize("name", BROKEN)
def test_each_is_caught_with_its_text(name: str, world: Path, tmp_path: Path) -> None:
    change, level, text = BROKEN[name]
    document = copy.deepcopy(good(world))
    change(document, world)
    found = [item.text for item in findings(world, document, tmp_path) if item.level == level]
    assert any(text in line for line in found), found
    assert all("\n" not in line for line in found)


def test_non_finite_values_need_deep(world: Path, tmp_path: Path) -> None:
    document = good(world)
    model(0, "nan")(document, world)
    texts = [item.text for item in findings(world, document, tmp_path, deep=True)]
    assert any(
        "nan: model.layers.0.mlp.up_proj.weight holds values that are not finite" in t
        for t in texts
    )


def test_all_problems_come_at_once(world: Path, tmp_path: Path) -> None:
    document = good(world)
    entry(0, etaa=1.0)(document, world)
    entry(1, polarity="plus")(document, world)
    top(outdtype="bfloat16")(document, world)
    errors = [item for item in findings(world, document, tmp_path) if item.level == "error"]
    assert len(errors) >= 3


def test_protection_can_be_lifted_by_the_manifest_or_the_recipe(
    world: Path, tmp_path: Path
) -> None:
    document = good(world)
    vector(document, world, name="freed", preference="harmless", eta=-0.5)
    assert not [f for f in findings(world, document, tmp_path) if f.level == "error"]
    vector(document, world, preference="harmless", eta=-0.5)
    document["parameters"] = {"allow_protected_negative": True}
    assert not [f for f in findings(world, document, tmp_path) if f.level == "error"]


def test_a_narrow_base_with_narrow_policies_rounds_by_itself(world: Path, tmp_path: Path) -> None:
    document = recipe(
        f"{world}/base16",
        pair(f"{world}/positive16", f"{world}/negative16", 0.5),
        out_dtype="bfloat16",
    )
    assert [item.topic for item in findings(world, document, tmp_path)] == [Topic.POLARITY]


@pytest.mark.parametrize(
    ("dtype", "name_of_it"),
    [
        (torch.int8, "I8"),
        (torch.bool, "BOOL"),
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.uint16, "U16"),
    ],
)
def test_weights_that_are_no_plain_floats(
    dtype: torch.dtype, name_of_it: str, world: Path, tmp_path: Path
) -> None:
    tensors = state(world / "positive")
    name = "model.layers.0.mlp.up_proj.weight"
    odd = write_state(tmp_path / "odd", {**tensors, name: tensors[name].to(dtype)}, world / "base")
    document = recipe(f"{world}/base", pair(odd, f"{world}/negative", 0.5))
    found = findings(world, document, tmp_path, deep=True)
    errors = [item.text for item in found if item.level == "error"]
    text = f"{odd}: stores {name} as {name_of_it}, the base {world}/base as F32; only floats are"
    assert any(text in line for line in errors), errors


def test_a_short_relative_path_would_be_looked_up_on_the_hub(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    document = recipe("./base", pair("./positive", "./negative", 0.5))
    texts = [item.text for item in findings(world, document, tmp_path)]
    assert any(
        "has fewer than two slashes, so mergekit takes it for a name on the Hub" in text
        for text in texts
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not valid YAML"), ("just words", "expected keys such as base_model:, got text")],
)
def test_what_is_no_recipe_at_all(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 1
    assert message in result.output


def test_the_command_exits_with_one_and_prints_json(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    document = good(world)
    path.write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    assert "can be merged" in result.output
    entry(0, etaa=1.0)(document, world)
    path.write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(main, ["check", str(path), "--json"])
    assert result.exit_code == 1
    said = json.loads(result.output)
    assert said["errors"] == 1
    assert "did you mean eta?" in said["findings"][0]["text"]


def test_run_and_extract_refuse_what_check_finds(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    document = good(world)
    entry(0, etaa=1.0)(document, world)
    path.write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(main, ["run", str(path), str(tmp_path / "out")])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "did you mean eta?" in result.output
    assert not (tmp_path / "out").exists()

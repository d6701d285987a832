"""Every architecture that we claim, tied and untied, by every route; see docs/architectures.md."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch
import yaml
from click.testing import CliRunner

from pv_merge import PreferenceController, PreferenceVector
from pv_merge.errors import PvMergeError
from pv_merge.live.weights import LiveMerge
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.run import run
from pv_merge.recipe.opening import open_recipe

from models import (
    FAMILIES,
    Model,
    added,
    largest_difference,
    load,
    logits,
    mergekit_yaml,
    pair,
    perturbed,
    recipe,
    save,
    tiny,
)
from policies import adapted, merged, save_adapter

DOC = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
ETA = 0.5
TOLERANCE = 1e-5
"""Largest difference of two logits, which are of order 1 to 5, in float32."""

CASES = [(family, tied) for family in FAMILIES for tied in (False, True)]
QUICK = ("Llama", "GPT-2", "Mixtral")
PARAMS = [
    pytest.param(family, tied, marks=[] if family in QUICK else pytest.mark.slow)
    for family, tied in CASES
]
"""All of them take a minute; ``-m "not slow"`` leaves three families."""

HEADS = {False: "untied", True: "tied"}
MIXTURES = ("Mixtral", "Qwen3-MoE")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]

NO_BUFFER = (
    "Tensor gpt_neox.layers.0.attention.masked_bias required but not present",
    "mergekit's definition asks for buffers that transformers no longer saves",
)
NO_HEAD = (
    "Tensor lm_head.weight required but not present",
    "mergekit's definition asks for a head of its own",
)
NO_NORM = (
    "Tensor transformer.h.0.ln_attn.bias required but not present",
    "mergekit's definition is that of the new decoder (40B and larger) only",
)
FUSED = (
    "uses target_parameters: it adapts fused parameters, such as experts",
    "PEFT adapts the experts of transformers 5 as one weight, which the files store one by one",
)

MERGEKIT_FAILS: dict[tuple[str, bool], tuple[str, str]] = {
    ("Phi-3", True): NO_HEAD,
    ("GPT-NeoX", False): NO_BUFFER,
    ("GPT-NeoX", True): NO_BUFFER,
    ("Falcon", False): NO_NORM,
    ("Falcon", True): NO_NORM,
    ("Falcon (new decoder)", True): NO_HEAD,
}
"""What stock mergekit-yaml says, and why. Its mergekit-pytorch and our ``pv-merge run`` do these."""


class Trained(NamedTuple):
    base: str
    positive: str
    negative: str
    expected: Model
    """base + ETA·(positive − negative), put into the live model by plain torch."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    known: dict[tuple[str, bool, str], Trained] = {}

    def make(family: str, tied: bool, shard: str = "5GB") -> Trained:
        key = family, tied, shard
        if key not in known:
            root = tmp_path_factory.mktemp("trained")
            base = tiny(family, tied=tied)
            policies = perturbed(base, 1), perturbed(base, 2)
            known[key] = Trained(
                save(base, root / "base", shard=shard),
                save(policies[0], root / "positive", shard=shard),
                save(policies[1], root / "negative", shard=shard),
                added(base, [(ETA, *policies)]),
            )
        return known[key]

    return make


def assert_merged(found: Model | str, expected: Model, base: str) -> None:
    assert largest_difference(logits(found), logits(expected)) < TOLERANCE
    assert largest_difference(logits(base), logits(expected)) > 0.05  # something has happened


def written(document: dict[str, object], folder: Path) -> Path:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


# ---- stock mergekit ------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["5GB", "20KB"], ids=["one file", "shards"])
@pytest.mark.parametrize(("family", "tied"), PARAMS)
def test_mergekit_yaml(
    family: str, tied: bool, shard: str, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    base, positive, negative, expected = trained(family, tied, shard)
    assert (len(list(Path(base).glob("*.safetensors"))) > 1) == (shard == "20KB")
    document = recipe(base, pair(positive, negative, ETA))
    if (family, tied) in MERGEKIT_FAILS:
        message = MERGEKIT_FAILS[family, tied][0]
        with pytest.raises(RuntimeError, match=re.sub(r"\b0\b", r"\\d+", re.escape(message))):
            mergekit_yaml(document, tmp_path / "out")
        return
    options = ("--out-shard-size", "20K") if shard == "20KB" else ()
    assert_merged(mergekit_yaml(document, tmp_path / "out", *options), expected, base)


@pytest.mark.parametrize(("family", "tied"), MERGEKIT_FAILS)
def test_mergekit_pytorch_does_what_mergekit_yaml_cannot(
    family: str, tied: bool, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    from mergekit.scripts.merge_raw_pytorch import main

    base, positive, negative, expected = trained(family, tied)
    files = [f"{folder}/model.safetensors" for folder in (base, positive, negative)]
    path = written(recipe(files[0], pair(files[1], files[2], ETA)), tmp_path)
    done = CliRunner().invoke(
        main, [str(path), str(tmp_path / "out"), "--safe-serialization", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    shutil.copy(Path(base) / "config.json", tmp_path / "out")
    assert_merged(str(tmp_path / "out"), expected, base)


# ---- our own routes ------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "tied"), PARAMS)
def test_pv_merge_run(
    family: str, tied: bool, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    base, positive, negative, expected = trained(family, tied)
    run(
        written(recipe(base, pair(positive, negative, ETA)), tmp_path),
        tmp_path / "out",
        report=False,
    )
    assert_merged(str(tmp_path / "out"), expected, base)


@pytest.mark.parametrize(("family", "tied"), PARAMS)
def test_extract_and_the_dense_vector(
    family: str, tied: bool, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    base, positive, negative, expected = trained(family, tied)
    folder = tmp_path / "vector"
    extract(positive, negative, folder, ExtractOptions(base, "helpful"))
    said = {"preference": "helpful", "polarity": "vector", "eta": ETA}
    document = recipe(base, [(str(folder), said)])
    if (family, tied) in MERGEKIT_FAILS:
        run(written(document, tmp_path), tmp_path / "out", report=False)
    else:
        mergekit_yaml(document, tmp_path / "out")
    assert_merged(str(tmp_path / "out"), expected, base)


@pytest.mark.parametrize(("family", "tied"), PARAMS)
def test_dense_on_a_live_model(
    family: str, tied: bool, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    base, positive, negative, expected = trained(family, tied)
    extract(positive, negative, tmp_path / "vector", ExtractOptions(base, "helpful"))
    vector = PreferenceVector.load(tmp_path / "vector")
    policies = open_recipe(written(recipe(base, pair(positive, negative, ETA)), tmp_path))
    model = load(base)
    plain = logits(model)
    with PreferenceController(model, {"helpful": vector}) as control:
        control.set(helpful=ETA)
        assert_merged(model, expected, base)
    assert bool((logits(model) == plain).all())
    with LiveMerge(policies, model) as live:
        live.set({})
        assert_merged(model, expected, base)
    assert bool((logits(model) == plain).all())


@pytest.mark.parametrize(("family", "tied"), PARAMS)
def test_low_rank_on_a_live_model(family: str, tied: bool, tmp_path: Path) -> None:
    model = tiny(family, tied=tied)
    base = save(model, tmp_path / "base")
    modules: Any = ATTENTION if family in MIXTURES else "all-linear"
    policies = [adapted(model, seed, target_modules=modules) for seed in (1, 2)]
    adapters = [save_adapter(policy, tmp_path / str(n), base) for n, policy in enumerate(policies)]
    extract(*adapters, tmp_path / "vector", ExtractOptions(name="helpful", low_rank=True))
    vector = PreferenceVector.load(tmp_path / "vector")
    assert vector.low_rank
    expected = added(model, [(ETA, merged(policies[0]), merged(policies[1]))])
    live = load(base)
    plain = logits(live)
    with PreferenceController(live, {"helpful": vector}) as control:
        control.set(helpful=ETA)
        assert_merged(live, expected, base)
    assert bool((logits(live) == plain).all())


@pytest.mark.parametrize("family", MIXTURES)
def test_adapters_on_experts_are_refused(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    base = save(model, tmp_path / "base")
    with pytest.warns(RuntimeWarning, match="did not match"):  # PEFT's own patterns for experts
        policy = adapted(model, 1, target_modules="all-linear")
    adapter = save_adapter(policy, tmp_path / "adapter", base)
    with pytest.raises(PvMergeError, match=FUSED[0]):
        extract(adapter, adapter, tmp_path / "vector", ExtractOptions(name="helpful"))


@pytest.mark.parametrize("family", MIXTURES)
def test_a_truncated_vector_over_experts(
    family: str, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    """PEFT and the controller put rank-3 changes of single experts into the fused weight."""
    base, positive, negative, _ = trained(family, False)
    extract(
        positive, negative, tmp_path / "vector", ExtractOptions(base, "h", low_rank=True, rank=3)
    )
    vector = PreferenceVector.load(tmp_path / "vector")
    assert any(".experts." in name for name in vector.names)
    model = load(base)
    with PreferenceController(model, {"h": vector}) as control:
        control.set(h=1.0)
        live = peft.PeftModel.from_pretrained(load(base), str(tmp_path / "vector")).eval()
        assert largest_difference(logits(model), logits(live)) < TOLERANCE
        assert largest_difference(logits(model), logits(base)) > 0.05


@pytest.mark.parametrize("family", MIXTURES)
def test_a_live_mixture_in_bfloat16_has_the_bits_of_the_merged_one(
    family: str, tmp_path: Path
) -> None:
    base = tiny(family)
    models = [model.to(torch.bfloat16) for model in (perturbed(base, 1), perturbed(base, 2), base)]
    positive, negative, start = (save(model, tmp_path / str(n)) for n, model in enumerate(models))
    document = recipe(start, pair(positive, negative, ETA))
    live = load(start, torch.bfloat16)
    LiveMerge(open_recipe(written(document, tmp_path)), live).set({})
    run(tmp_path / "recipe.yml", tmp_path / "out", report=False)
    on_disk = load(tmp_path / "out", torch.bfloat16).state_dict()
    for name, weight in live.state_dict().items():
        assert torch.equal(weight, on_disk[name]), name


# ---- the page ------------------------------------------------------------------------------------


def table() -> str:
    lines = [
        "| family | heads | `mergekit-yaml` | `pv-merge run` | extract, dense vector | dense, live | low-rank, live |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, tied in CASES:
        yaml_says = "no" if (family, tied) in MERGEKIT_FAILS else "yes"
        thin = "attention" if family in MIXTURES else "yes"
        lines.append(f"| {family} | {HEADS[tied]} | {yaml_says} | yes | yes | yes | {thin} |")
    return "\n".join(lines)


def failures() -> str:
    lines = ["| family | what | message | why |", "|---|---|---|---|"]
    for (family, tied), (message, reason) in MERGEKIT_FAILS.items():
        lines.append(f"| {family} | `mergekit-yaml`, {HEADS[tied]} | `{message}` | {reason} |")
    for family in MIXTURES:
        lines.append(f"| {family} | LoRA on experts, extract | `{FUSED[0]}` | {FUSED[1]} |")
    return "\n".join(lines)


def test_the_page_says_what_the_tests_found() -> None:
    text = DOC.read_text(encoding="utf-8")
    if os.environ.get("PV_MERGE_WRITE_DOCS"):
        for name, content in (("works", table()), ("fails", failures())):
            mark = f"<!-- {name} -->", f"<!-- end of {name} -->"
            pattern = f"(?s){re.escape(mark[0])}.*{re.escape(mark[1])}"
            text = re.sub(pattern, lambda _: f"{mark[0]}\n{content}\n{mark[1]}", text)  # noqa: B023
        DOC.write_text(text, encoding="utf-8")
    assert table() in text
    assert failures() in text

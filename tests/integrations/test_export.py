"""``pv-merge export``: an adapter in PEFT, and GGUF tensors, against the merged checkpoint."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import Tensor

from pv_merge.arithmetic.low_rank import truncated, truncated_product
from pv_merge.cli import main
from pv_merge.errors import PvMergeError, Topic
from pv_merge.integrations.export import TARGETS, ExportTarget, export
from pv_merge.integrations.llama_cpp import llama_commands, paired_rows
from pv_merge.integrations.vllm.ranks import vllm_rank
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.mix import low_rank_mix
from pv_merge.merging.run import run
from pv_merge.recipe.checks.finding import Finding
from pv_merge.registry import Registry

from models import largest_difference, load, logits, pair, perturbed, recipe, save, state, tiny
from policies import LINEAR, adapted, save_adapter

Document = dict[str, Any]


def inputs(root: Path, family: str, **said: Any) -> None:
    """Write a base, two adapter policies, a low-rank vector, and two policies that are checkpoints."""
    model = tiny(family)
    base = save(model, root / "base")
    for seed, name in enumerate(("helpful", "unhelpful", "polite", "rude"), start=1):
        rank = {"r": 3 if name == "helpful" else 4}
        save_adapter(adapted(model, seed, **said, **rank), root / name, base)
    for seed, name in ((7, "full"), (8, "unfull")):
        save(perturbed(model, seed), root / name)
    extract(root / "polite", root / "rude", root / "vector", ExtractOptions(base, "polite", True))
    extract(root / "full", root / "unfull", root / "dense", ExtractOptions(base, "brief"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    inputs(root, "Llama")
    return root


@pytest.fixture
def document(root: Path) -> Document:
    """Helpful as two adapters, polite as a low-rank vector: ranks 3 + 4 + 8."""
    return make(root)


def make(root: Path) -> Document:
    helpful = pair(str(root / "helpful"), str(root / "unhelpful"), 0.8)
    polite = [
        (str(root / "vector"), {"preference": "polite", "polarity": "vector", "eta": -0.3}),
    ]
    return recipe(str(root / "base"), helpful + polite, dtype="float32")


def written(document: Document, folder: Path) -> Path:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def in_peft(root: Path, adapter: Path) -> Any:
    return peft.PeftModel.from_pretrained(load(root / "base"), str(adapter)).eval()


def agrees(root: Path, path: Path, folder: Path) -> None:
    """Assert that the adapter in PEFT is ``pv-merge run``'s model, by its logits and its weights."""
    export(path, folder / "adapter")
    run(path, folder / "merged")
    model = in_peft(root, folder / "adapter")
    assert largest_difference(logits(model), logits(folder / "merged")) < 2e-5
    assert largest_difference(logits(model), logits(root / "base")) > 0.1
    weights = model.merge_and_unload().state_dict()
    for name, tensor in state(folder / "merged").items():
        assert largest_difference(weights[name], tensor) < 1e-6, name


def test_one_adapter_is_the_merged_checkpoint(
    root: Path, document: Document, tmp_path: Path
) -> None:
    agrees(root, written(document, tmp_path), tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (15, 15)
    assert config["base_model_name_or_path"] == str(root / "base")
    assert config["target_modules"] == sorted(LINEAR)


def test_eta_by_layer_and_filter_is_linear(root: Path, document: Document, tmp_path: Path) -> None:
    document["models"][0]["parameters"]["eta"] = [
        {"filter": "mlp", "value": [0.0, 1.0]},
        {"value": -0.5},
    ]
    agrees(root, written(document, tmp_path), tmp_path)


def test_layers_that_store_transposed_weights(tmp_path: Path) -> None:
    inputs(tmp_path, "GPT-2", target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True)
    document = make(tmp_path)
    agrees(tmp_path, written(document, tmp_path), tmp_path)


def test_the_manifest_says_what_the_adapter_is(
    root: Path, document: Document, tmp_path: Path
) -> None:
    path = written(document, tmp_path)
    said = export(path, tmp_path / "adapter")
    assert said == json.loads((tmp_path / "adapter" / "pv_export.json").read_text())
    assert (said["to"], said["rank"], said["relative_error"]) == ("peft", 15, 0.0)
    assert {n: p["eta"] for n, p in said["preferences"].items()} == {"helpful": 0.8, "polite": -0.3}
    assert said["preferences"]["polite"]["inputs"][0]["manifest"]["form"] == "low-rank"
    assert said["base"]["weights_sha256"]
    assert said["recipe"] == path.read_text()


def test_truncation_of_a_product_is_that_of_the_dense_matrix() -> None:
    a, b = torch.randn(7, 20), torch.randn(30, 7)
    kept_a, kept_b, lost = truncated_product(a, b, 3)
    want_a, want_b = truncated(b @ a, 3, None)
    assert kept_a.shape == (3, 20) and kept_b.shape == (30, 3)
    assert largest_difference(kept_b @ kept_a, want_b @ want_a) < 1e-4
    assert lost == pytest.approx(float((b @ a - want_b @ want_a).square().sum()), rel=1e-4)


def test_a_truncated_rank_tells_its_error(root: Path, document: Document, tmp_path: Path) -> None:
    path = written(document, tmp_path)
    said = export(path, tmp_path / "adapter", "peft", rank=5)
    run(path, tmp_path / "merged")
    weights = in_peft(root, tmp_path / "adapter").merge_and_unload().state_dict()
    base = state(root / "base")
    lost = size = 0.0
    for name, tensor in state(tmp_path / "merged").items():
        lost += float((weights[name] - tensor).double().square().sum())
        size += float((tensor - base[name]).double().square().sum())
    assert said["rank"] == 5
    assert said["relative_error"] == pytest.approx((lost / size) ** 0.5, rel=1e-4)
    assert 0.1 < said["relative_error"] < 0.9


def test_dense_inputs_by_a_truncated_rank(root: Path, document: Document, tmp_path: Path) -> None:
    document["models"][2] = {
        "model": str(root / "dense"),
        "parameters": {"preference": "brief", "polarity": "vector", "eta": 0.5},
    }
    path = written(document, tmp_path)
    with pytest.raises(
        PvMergeError, match=r"dense: holds whole weights.*--form low-rank.*--rank R"
    ):
        export(path, tmp_path / "adapter")
    said = export(path, tmp_path / "adapter", "peft", rank=32)
    run(path, tmp_path / "merged")
    weights = in_peft(root, tmp_path / "adapter").merge_and_unload().state_dict()
    merged = state(tmp_path / "merged")
    name = "model.layers.1.mlp.up_proj.weight"  # 48 × 32, so that rank 32 is all of it
    assert largest_difference(weights[name], merged[name]) < 1e-6
    assert "model.norm.weight" in said["left_out"] and said["relative_error"] > 0


def test_the_engine_s_limit(root: Path, document: Document, tmp_path: Path) -> None:
    path = written(document, tmp_path)
    with pytest.raises(PvMergeError, match=r"rank 15, over the limit of 8 .*say --rank 8"):
        export(path, tmp_path / "adapter", "peft", max_rank=8)
    with pytest.raises(PvMergeError, match="--rank 9 is over --max-rank 8"):
        export(path, tmp_path / "adapter", "peft", rank=9, max_rank=8)
    assert not (tmp_path / "adapter").exists()
    assert [vllm_rank(rank) for rank in (1, 9, 16, 300, 513)] == [1, 16, 16, 320, None]


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("shared", "sign_consensus", "sum"),
        ("shared", "interference", "orthogonal"),
        ("shared", "density", 0.5),
        ("input", "density", [0.2, 1.0]),
        ("input", "max_relative_norm", 0.1),
    ],
)
def test_controls_that_are_not_linear_are_refused_by_name(
    where: str, key: str, value: Any, document: Document, tmp_path: Path
) -> None:
    if where == "shared":
        document["parameters"] = {key: value}
    else:
        document["models"][0]["parameters"][key] = value
    path = written(document, tmp_path)
    for target in ("peft", "gguf"):
        with pytest.raises(PvMergeError, match=rf"{key}.* is not linear in the vectors"):
            export(path, tmp_path / "adapter", target)


def test_what_is_refused(root: Path, document: Document, tmp_path: Path) -> None:
    path = written(document, tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    for target in ("peft", "gguf"):
        with pytest.raises(PvMergeError, match="already holds files"):
            export(path, tmp_path / "taken", target)
    document["models"][0]["parameters"]["eta"] = 0
    document["models"][2]["parameters"]["eta"] = 0
    with pytest.raises(PvMergeError, match="is every eta 0"):
        export(written(document, tmp_path), tmp_path / "adapter")
    document["models"][2]["parameters"] |= {"eta": -1.0, "preference": "harmless"}
    with pytest.raises(PvMergeError, match="harmless is a protected preference"):
        export(written(document, tmp_path), tmp_path / "adapter")


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    return fields, {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}


def test_gguf_holds_each_vector_with_permuted_q_and_k(
    root: Path, document: Document, tmp_path: Path
) -> None:
    said = export(written(document, tmp_path), tmp_path / "gguf", "gguf")
    fields, tensors = read_gguf(tmp_path / "gguf" / "helpful.gguf")
    assert fields["general.type"] == "adapter" and fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == "llama"
    assert fields["adapter.lora.alpha"] == said["preferences"]["helpful"]["rank"] == 7
    # Without eta: helpful - unhelpful by PEFT's own deltas.
    positive, negative = (in_peft(root, root / name) for name in ("helpful", "unhelpful"))
    heads = {"attn_q": 4, "attn_k": 2}
    for short, long in (("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"),
                        ("ffn_down", "mlp.down_proj")):  # fmt: skip
        name = f"blk.1.{short}.weight"
        product = tensors[f"{name}.lora_b"] @ tensors[f"{name}.lora_a"]
        delta = [
            p.get_submodule(f"base_model.model.model.layers.1.{long}").get_delta_weight("default")
            for p in (positive, negative)
        ]
        phi = delta[0] - delta[1]
        if short in heads:
            # Row 2i + j of a head of 8 is row i + 4j of transformers' head.
            order = [
                8 * h + i + 4 * j for h in range(heads[short]) for i in range(4) for j in (0, 1)
            ]
            phi = phi[order]
        assert largest_difference(product, phi) < 1e-6, short
    assert len(tensors) == 2 * 2 * len(LINEAR)


def test_paired_rows_by_eye() -> None:
    rows = torch.arange(8.0)[:, None]  # two heads of four
    assert paired_rows(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_gguf_refusals(root: Path, document: Document, tmp_path: Path) -> None:
    document["models"][0]["parameters"]["eta"] = [0.0, 1.0]
    with pytest.raises(PvMergeError, match=r"eta of helpful differs between weights.*--to peft"):
        export(written(document, tmp_path), tmp_path / "gguf", "gguf")
    inputs(tmp_path, "GPT-2", target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(PvMergeError, match="is a gpt2 model; GGUF adapters are made for llama"):
        export(written(make(tmp_path), tmp_path), tmp_path / "gguf", "gguf")
    assert not (tmp_path / "gguf").exists()


def test_gguf_refuses_a_lookup_table(tmp_path: Path) -> None:
    inputs(tmp_path, "Llama", target_modules=["embed_tokens", "q_proj"])
    path = written(make(tmp_path), tmp_path)
    with pytest.raises(
        PvMergeError, match=r"changes model.embed_tokens.weight, which is no linear"
    ):
        export(path, tmp_path / "gguf", "gguf")
    agrees(tmp_path, path, tmp_path)  # PEFT has a place for it


def test_the_command(root: Path, document: Document, tmp_path: Path) -> None:
    path = str(written(document, tmp_path))
    arguments = ["export", path, "--to", "peft", "-o", str(tmp_path / "a")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "rank 15" in result.output and "--max-lora-rank 16" in result.output
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "already holds files" in result.output
    arguments = ["export", path, "--to", "gguf", "-o", str(tmp_path / "g"), "--rank", "4"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "helpful.gguf, rank 4, truncated with relative error" in result.output
    assert f"{tmp_path}/g/helpful.gguf:0.8,{tmp_path}/g/polite.gguf:-0.3" in result.output


def test_the_lines_for_llama_cpp() -> None:
    said = {"preferences": {"polite": {"file": "polite.gguf", "eta": 0.5}}}
    server, request = llama_commands(said, "out")
    assert server == "llama-server -m BASE.gguf --lora-scaled out/polite.gguf:0.5"
    assert '"lora": [{"id": 0, "scale": 0.5}]' in request


def test_a_target_from_outside_is_registered(document: Document, tmp_path: Path) -> None:
    def write(sources: Any, work: Path, options: Any, manifest: Any, advance: Any) -> None:
        mix = low_rank_mix(sources, rank=options.rank)
        names = sorted(mix.changes)
        (work / "names.txt").write_text("\n".join(names))
        manifest["weights"] = len(names)

    def usage(manifest: Any, folder: str) -> list[str]:
        return [f"{manifest['weights']} names in {folder}/names.txt"]

    toy = ExportTarget("the names of what moves", write, usage=usage)
    TARGETS.register("toy", toy)
    try:
        arguments = ["export", str(written(document, tmp_path)), "--to", "toy"]
        result = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "toy")])
        assert result.exit_code == 0, result.output
        count = len((tmp_path / "toy/names.txt").read_text().splitlines())
        assert f"{count} names in {tmp_path}/toy/names.txt" in result.output and count > 2
        manifest = json.loads((tmp_path / "toy/pv_export.json").read_text())
        assert (manifest["to"], manifest["weights"]) == ("toy", count)
        with pytest.raises(PvMergeError, match="export target toy: this name is taken"):
            TARGETS.register("toy", toy)
    finally:
        TARGETS.forget("toy")
    result = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "gone")])
    assert "unknown export target 'toy'; known: gguf, gguf-model, peft" in result.output


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("bad", "no_such_package:TARGET", "group")
    found: Registry[Any] = Registry("thing", "group", {})
    monkeypatch.setitem(vars(found), "_others", {"bad": entry})
    assert found.names == ["bad"]
    with pytest.raises(PvMergeError, match="thing bad: no_such_package:TARGET cannot be loaded"):
        found.get("bad")


def test_a_recipe_with_mergekits_name_keeps_its_warnings(root: Path, tmp_path: Path) -> None:
    """A line begins with the recipe's path; what is left out goes by topic, never by wording."""
    said_of = {"preference": "helpful", "polarity": "positive"}
    models = [(str(root / "full"), {**said_of, "eta": 0.8}), (str(root / "helpful"), said_of)]
    document = recipe(str(root / "base"), models, dtype="bfloat16", out_dtype="float16")
    for name in ("recipe.yml", "mergekit_config.yml", "out_dtype.yml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        said: list[Finding] = []
        export(path, tmp_path / f"{name}-out", "peft", rank=4, found=said.extend)
        assert [(item.level, item.topic) for item in said] == [
            ("warning", Topic.DTYPE),
            ("note", Topic.POLARITY),
            ("note", Topic.POLARITY),
            ("note", Topic.OUTPUT),
        ], name
        assert all(item.text.startswith(f"{path}: ") for item in said)

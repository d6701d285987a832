"""``pv-merge run`` writes stock mergekit's weights, bit for bit, and says what was lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from pv_merge.artifacts.output_files import OutputFiles
from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.merging import stream
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.layout import Layout
from pv_merge.merging.loss import LossReport
from pv_merge.merging.products import products
from pv_merge.merging.report import report
from pv_merge.merging.run import run, run_grid
from pv_merge.merging.stream import Pass, Target
from pv_merge.recipe.opening import open_recipe
from pv_merge.recipe.recipe import Recipe

from models import mergekit_yaml, pair, perturbed, recipe, save, state, tiny, write_state
from policies import adapted, save_adapter

CONTROLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "nearest": ({"rounding": "nearest"}, {}),
    "another seed": ({"seed": 7}, {}),
    "density": ({"density": 0.3}, {}),
    "max_relative_norm": ({"max_relative_norm": 0.01}, {}),
    "sign_consensus sum": ({"sign_consensus": "sum"}, {}),
    "sign_consensus count": ({"sign_consensus": "count"}, {}),
    "orthogonal": ({"interference": "orthogonal"}, {}),
    "round_to bf16": ({"round_to": "bfloat16"}, {"out_dtype": "bfloat16"}),
    "round_to fp16": ({"round_to": "float16"}, {"out_dtype": "float16"}),
    "float32 math": ({}, {"dtype": "float32", "out_dtype": "bfloat16"}),
    "bf16 math": ({}, {"dtype": "bfloat16"}),
    "out float32": ({}, {"out_dtype": "float32"}),
}


@pytest.fixture(scope="module", params=["float32", "bfloat16", "mixed"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Base and four policies; mixed is a bfloat16 base under float32 policies."""
    root = tmp_path_factory.mktemp(request.param)
    base = tiny(tied=True)
    models = [base, *(perturbed(base, seed, 0.01) for seed in (1, 2, 3, 4))]
    dtypes = [torch.float32 if request.param != "bfloat16" else torch.bfloat16] * 5
    if request.param != "float32":
        dtypes[0] = torch.bfloat16
    return [
        save(model.to(dtype), root / f"m{index}")
        for index, (model, dtype) in enumerate(zip(models, dtypes, strict=True))
    ]


def two_preferences(folders: list[str]) -> list[tuple[str, dict[str, Any]]]:
    policies = folders[1:]
    return pair(policies[0], policies[1], 0.7) + pair(policies[2], policies[3], -0.4, "polite")


def written(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def assert_same_bits(left: str | Path, right: str | Path) -> None:
    mine, theirs = state(left), state(right)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor.view(torch.uint8), theirs[name].view(torch.uint8)), name


@pytest.mark.parametrize("control", CONTROLS)
def test_the_weights_are_stock_mergekits_bit_for_bit(
    control: str, folders: list[str], tmp_path: Path
) -> None:
    parameters, top = CONTROLS[control]
    document = recipe(folders[0], two_preferences(folders), parameters, **top)
    stock = mergekit_yaml(document, tmp_path / "stock")
    run(written(tmp_path / "r.yml", document), tmp_path / "ours")
    assert_same_bits(tmp_path / "ours", stock)
    said = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert said.get("dtype") == json.loads(Path(stock, "config.json").read_text()).get("dtype")


def test_gradients_and_filters_too(folders: list[str], tmp_path: Path) -> None:
    base, *policies = folders
    inputs = pair(policies[0], policies[1], [0.0, 1.0])
    inputs += pair(
        policies[2], policies[3], [{"filter": "mlp", "value": 0.5}, {"value": 1.0}], "polite"
    )
    document = recipe(base, inputs)
    stock = mergekit_yaml(document, tmp_path / "stock")
    run(written(tmp_path / "r.yml", document), tmp_path / "ours")
    assert_same_bits(tmp_path / "ours", stock)


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_and_any_job_size(
    threads: int, folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = recipe(folders[0], two_preferences(folders), {"round_to": "bfloat16"})
    path = written(tmp_path / "r.yml", document)
    monkeypatch.setattr(stream, "JOB_ELEMENTS", 1)
    monkeypatch.setattr(stream, "SMALLEST_WINDOW", 1024)
    monkeypatch.setattr(stream, "WINDOW_BYTES", 1)
    first = run(path, tmp_path / "one", threads=1)
    monkeypatch.setattr(stream, "JOB_ELEMENTS", 4096)
    assert run(path, tmp_path / "other", threads=threads) == first  # to the last digit
    monkeypatch.undo()
    run(path, tmp_path / "usual")
    assert_same_bits(tmp_path / "one", tmp_path / "usual")
    assert_same_bits(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("case", CONTROLS)
def test_torch_gives_the_same_bytes_and_the_same_report(
    case: str, folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = two_preferences(folders)
    document = recipe(folders[0], inputs, CONTROLS[case][0])
    document.update(CONTROLS[case][1])
    path = written(tmp_path / "r.yml", document)
    kernels = run(path, tmp_path / "kernels")
    monkeypatch.setattr(Recipe, "has_transforms", True)
    in_torch = run(path, tmp_path / "torch")
    assert_same_bits(tmp_path / "kernels", tmp_path / "torch")
    for name, entry in in_torch["preferences"].items():
        for key, value in entry.items():
            assert kernels["preferences"][name][key] == pytest.approx(value, rel=1e-4), key


@pytest.mark.parametrize("parameters", [{}, {"sign_consensus": "sum"}, {"density": 0.5}], ids=str)
def test_the_reports_of_a_grid_are_those_of_its_runs(
    parameters: dict[str, Any], folders: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path / "r.yml", recipe(folders[0], two_preferences(folders), parameters))
    grid = run_grid(path, tmp_path / "grid", [{"helpful": 0.0}, {"helpful": 1.5, "polite": -2.0}])
    for number, point in enumerate(grid):
        alone = tmp_path / f"{number}.yml"
        alone.write_text((tmp_path / "grid" / point / "mergekit_config.yml").read_text())
        single = run(alone, tmp_path / f"out{number}")
        assert_same_bits(tmp_path / "grid" / point, tmp_path / f"out{number}")
        for name, entry in single["preferences"].items():
            found = grid[point]["preferences"][name]
            assert found["share"] == pytest.approx(entry["share"], rel=1e-5)
            assert found["relative_step"] == pytest.approx(entry["relative_step"], rel=1e-5)


def test_a_grid_equals_several_runs(folders: list[str], tmp_path: Path) -> None:
    inputs = two_preferences(folders)
    controls = {"round_to": "bfloat16", "max_relative_norm": 0.02}
    path = written(tmp_path / "r.yml", recipe(folders[0], inputs, controls))
    grid = [{"helpful": 0.0}, {"helpful": 1.0, "polite": 0.5}, {"polite": -2.0}]
    reports = run_grid(path, tmp_path / "grid", grid)
    assert list(reports) == ["helpful=0", "helpful=1,polite=0.5", "polite=-2"]
    for name in reports:
        alone = tmp_path / name / "r.yml"
        alone.parent.mkdir()
        alone.write_text((tmp_path / "grid" / name / "mergekit_config.yml").read_text())
        single = run(alone, tmp_path / name / "out")
        assert_same_bits(tmp_path / "grid" / name, tmp_path / name / "out")
        for label, entry in single["preferences"].items():
            assert entry == pytest.approx(reports[name]["preferences"][label])


def test_the_grid_as_a_command(folders: list[str], tmp_path: Path) -> None:
    path = written(tmp_path / "r.yml", recipe(folders[0], two_preferences(folders)))
    command = ["run", str(path), str(tmp_path / "grid"), "--eta", "helpful=-1,1", "--no-report"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "grid").iterdir()) == ["helpful=-1", "helpful=1"]
    result = CliRunner().invoke(
        main, ["run", str(path), str(tmp_path / "g2"), "--eta", "helpfull=-1,1"]
    )
    assert result.exit_code == 1
    assert "has no preference 'helpfull'; did you mean helpful?" in result.output


def test_a_grid_does_not_flip_a_protected_preference(folders: list[str], tmp_path: Path) -> None:
    inputs = pair(folders[1], folders[2], 0.7, "harmless")
    path = written(tmp_path / "r.yml", recipe(folders[0], inputs))
    with pytest.raises(PvMergeError, match="harmless is a protected preference"):
        run_grid(path, tmp_path / "grid", [{"harmless": 1.0}, {"harmless": -1.0}])
    assert not (tmp_path / "grid").exists()
    path = written(
        tmp_path / "s.yml", recipe(folders[0], inputs, {"allow_protected_negative": True})
    )
    assert list(run_grid(path, tmp_path / "grid", [{"harmless": -1.0}])) == ["harmless=-1"]


def test_a_low_rank_vector_in_stock_mergekit_and_in_run(tmp_path: Path) -> None:
    """mergekit merges base+vector first; run adds B @ A; a dense vector adds φ: all one sum."""
    live = tiny(tied=True)
    base = save(live, tmp_path / "base")
    sides = [save_adapter(adapted(live, seed), tmp_path / f"p{seed}", base) for seed in (1, 2)]
    low, dense = str(tmp_path / "low"), str(tmp_path / "dense")
    extract(*sides, low, ExtractOptions(name="polite", low_rank=True))
    extract(*sides, dense, ExtractOptions(name="polite"))

    def said(polarity: str) -> dict[str, Any]:
        return {"preference": "polite", "polarity": polarity, "eta": 0.5}

    stock = mergekit_yaml(
        recipe(base, [(f"{base}+{low}", said("positive"))]),
        tmp_path / "stock",
        "--lora-merge-cache",
        str(tmp_path / "cache"),
    )
    outputs = {"stock": state(stock)}
    for name, model, polarity in (
        ("base+vector", f"{base}+{low}", "positive"),
        ("vector", low, "vector"),
        ("dense", dense, "vector"),
    ):
        path = written(tmp_path / f"{polarity}.yml", recipe(base, [(model, said(polarity))]))
        run(path, tmp_path / f"out-{name}")
        outputs[name] = state(tmp_path / f"out-{name}")
    for name, tensors in outputs.items():
        for key, tensor in tensors.items():
            assert (tensor - outputs["dense"][key]).abs().max() < 1e-6, (name, key)
    moved = outputs["dense"]["model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(moved, state(base)["model.layers.0.mlp.up_proj.weight"])


def test_shards_have_an_index_and_load(folders: list[str], tmp_path: Path) -> None:
    layout = Layout(
        open_recipe(written(tmp_path / "r.yml", recipe(folders[0], two_preferences(folders))))
    )
    (tmp_path / "out").mkdir()
    files = OutputFiles(tmp_path / "out", layout.tensors(), shard_bytes=9_000)
    Pass(layout, [Target({}, files)]).run()
    files.close()
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert set(index["weight_map"]) == set(state(tmp_path / "out")) == set(state(folders[0]))


def test_integer_buffers_are_copied_and_must_agree(folders: list[str], tmp_path: Path) -> None:
    counts = torch.arange(5)
    paths = [
        write_state(tmp_path / f"m{i}", {**state(folder), "model.counts": counts}, folder)
        for i, folder in enumerate(folders[:3])
    ]
    path = written(tmp_path / "r.yml", recipe(paths[0], pair(paths[1], paths[2], 1.0)))
    run(path, tmp_path / "out")
    assert torch.equal(state(tmp_path / "out")["model.counts"], counts)
    other = write_state(
        tmp_path / "m9", {**state(folders[2]), "model.counts": counts + 1}, folders[2]
    )
    path = written(tmp_path / "r2.yml", recipe(paths[0], pair(paths[1], other, 1.0)))
    with pytest.raises(PvMergeError, match=r"the buffer model\.counts differs from the base's"):
        run(path, tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_the_report_by_hand(tmp_path: Path) -> None:
    """Base 1, step 0.5 and 0.1 in two weights; the output shows 0.5 and 0: 0.25 of 0.26 arrived."""
    losses = LossReport({"helpful": 0.5})
    base, step = torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.1])
    found = products(["helpful"], base, {"helpful": step}, torch.tensor([1.5, 1.0]))
    losses.collect("w", 0, found)
    entry = losses.to_dict()["preferences"]["helpful"]
    assert entry["share"] == pytest.approx(0.25 / 0.26)
    assert entry["norm"] == pytest.approx(0.26**0.5 / 0.5)
    assert entry["relative_step"] == pytest.approx((0.26 / 2) ** 0.5)
    assert losses.to_dict()["relative_error"] == pytest.approx((0.01 / 0.26) ** 0.5)


def test_the_report_tells_nearest_from_stochastic(folders: list[str], tmp_path: Path) -> None:
    base = tiny(tied=True).to(torch.bfloat16)
    torch.manual_seed(3)
    origin = save(base, tmp_path / "base")
    policies = [save(perturbed(base.float(), seed, 2e-5), tmp_path / f"p{seed}") for seed in (1, 2)]
    found = {}
    for mode in ("nearest", "stochastic"):
        parameters = {"round_to": "bfloat16", "rounding": mode}
        path = written(tmp_path / "r.yml", recipe(origin, pair(*policies, 1.0), parameters))
        found[mode] = run(path, tmp_path / mode)["preferences"]["helpful"]["share"]
        again = report(path, tmp_path / mode)["preferences"]["helpful"]["share"]
        assert again == pytest.approx(found[mode], rel=1e-4)
    assert found["nearest"] < 0.6
    assert abs(found["stochastic"] - 1) < 0.15


def test_a_share_below_nine_tenths_is_a_warning(tmp_path: Path) -> None:
    base = tiny(tied=True).to(torch.bfloat16)
    origin = save(base, tmp_path / "base")
    policies = [save(perturbed(base.float(), seed, 2e-5), tmp_path / f"p{seed}") for seed in (1, 2)]
    parameters = {"round_to": "bfloat16", "rounding": "nearest"}
    path = written(tmp_path / "r.yml", recipe(origin, pair(*policies, 1.0), parameters))
    result = CliRunner().invoke(main, ["run", str(path), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "of eta·phi reached the output's dtype; round stochastically" in result.output


def test_nothing_is_left_after_an_error(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "r.yml", recipe(folders[0], two_preferences(folders)))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OutputFiles, "write", full)
    with pytest.raises(PvMergeError, match="out: cannot be written: the disk is full"):
        run(path, tmp_path / "out")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["r.yml"]


def test_an_existing_folder_is_never_written_to(folders: list[str], tmp_path: Path) -> None:
    path = written(tmp_path / "r.yml", recipe(folders[0], two_preferences(folders)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(PvMergeError, match="already holds files, which are never overwritten"):
        run(path, tmp_path / "out")
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("device", "said"),
    [("cuda:99", "PyTorch cannot use it here"), ("meta", "expected cpu, cuda or cuda:N")],
)
def test_a_device_that_is_not_there(
    device: str, said: str, folders: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path / "r.yml", recipe(folders[0], two_preferences(folders)))
    with pytest.raises(PvMergeError, match=f"--device {device}: .*{said}"):
        run(path, tmp_path / "out", device=device)
    assert not (tmp_path / "out").exists()

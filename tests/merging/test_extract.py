"""Extraction: adapters and checkpoints, dense and low-rank, and everything that it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch
import yaml
from click.testing import CliRunner

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.recipe.opening import check

from models import (
    largest_difference,
    load,
    logits,
    mergekit_yaml,
    pair,
    perturbed,
    recipe,
    save,
    state,
    tiny,
    write_state,
)
from policies import adapted, merged, save_adapter, say

LOW_RANK = ExtractOptions(name="helpful", low_rank=True)


class Folders(NamedTuple):
    base: str
    adapters: tuple[str, str]
    checkpoints: tuple[str, str]
    """The same policies, their adapters merged by PEFT."""
    full: tuple[str, str]
    """Policies that moved in every weight."""


def make(root: Path, family: str = "Llama", **said: Any) -> Folders:
    model = tiny(family)
    base = save(model, root / "base")
    policies = [adapted(model, seed, **said) for seed in (1, 2)]
    first, second = (save_adapter(p, root / f"a{n}", base) for n, p in enumerate(policies))
    third, fourth = (save(merged(p), root / f"c{n}") for n, p in enumerate(policies))
    fifth, sixth = (save(perturbed(model, n), root / f"f{n}") for n in (3, 4))
    return Folders(base, (first, second), (third, fourth), (fifth, sixth))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make(tmp_path_factory.mktemp("policies"))


@pytest.fixture
def options(folders: Folders) -> ExtractOptions:
    return ExtractOptions(base=folders.base, name="helpful")


# ---- what comes out ------------------------------------------------------------------------------


def test_checkpoints_by_subtraction(
    folders: Folders, options: ExtractOptions, tmp_path: Path
) -> None:
    extract(*folders.full, tmp_path / "vector", options)
    positive, negative, base = state(folders.full[0]), state(folders.full[1]), state(folders.base)
    vector = PreferenceVector.load(tmp_path / "vector")
    assert vector.preference == "helpful" and vector.names == sorted(base)
    for name, phi in vector.items():
        expected = (positive[name] - base[name]) - (negative[name] - base[name])
        assert torch.equal(phi, expected)


@pytest.mark.parametrize("low_rank", [True, False])
def test_other_users_can_read_the_files(folders: Folders, low_rank: bool, tmp_path: Path) -> None:
    extract(
        *folders.adapters,
        tmp_path / "v",
        ExtractOptions(folders.base, "helpful", low_rank=low_rank),
    )
    usual = tmp_path / "usual"
    usual.touch()
    modes = {path.stat().st_mode for path in [usual, *(tmp_path / "v").iterdir()]}
    assert len(modes) == 1


def test_adapters_and_their_merged_checkpoints_agree(
    folders: Folders, options: ExtractOptions, tmp_path: Path
) -> None:
    extract(*folders.adapters, tmp_path / "a", options)
    extract(*folders.checkpoints, tmp_path / "c", options)
    extract(folders.adapters[0], folders.checkpoints[1], tmp_path / "mixed", options)
    first = PreferenceVector.load(tmp_path / "a")
    for other in ("c", "mixed"):
        second = PreferenceVector.load(tmp_path / other)
        assert first.names == second.names
        for name in first.names:
            # The merged checkpoints hold weights, of which each was rounded once.
            assert largest_difference(first.dense(name), second.dense(name)) < 5e-7, name
        assert first.cosine(second) == pytest.approx(1.0, abs=1e-6)


def test_low_rank_is_exact_from_adapters(
    folders: Folders, options: ExtractOptions, tmp_path: Path
) -> None:
    extract(*folders.adapters, tmp_path / "dense", options)
    manifest = extract(*folders.adapters, tmp_path / "thin", LOW_RANK)
    assert manifest["rank"] == 8 and manifest["relative_error"] == 0
    wide, thin = (PreferenceVector.load(tmp_path / name) for name in ("dense", "thin"))
    assert thin.low_rank
    for name in thin.names:
        torch.testing.assert_close(thin.dense(name), wide.dense(name), rtol=1e-5, atol=1e-6)
    rest = set(wide.names) - set(thin.names)
    assert not any(wide.dense(name).any() for name in rest)
    assert thin.norm() == pytest.approx(wide.norm(), rel=1e-6)


ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("Llama", {}),
    "patterns and rslora": (
        "Llama",
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "use_rslora": True},
    ),
    "embeddings": ("Llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "Conv1D": ("GPT-2", {"target_modules": ["c_attn", "c_proj", "wte"], "fan_in_fan_out": True}),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_low_rank_loads_in_peft_with_the_same_logits(kind: str, tmp_path: Path) -> None:
    family, said = ADAPTERS[kind]
    folders = make(tmp_path, family, **said)
    extract(*folders.adapters, tmp_path / "thin", LOW_RANK)
    live = peft.PeftModel.from_pretrained(load(folders.base), str(tmp_path / "thin")).eval()
    model = load(folders.base)
    positive, negative, base = (
        state(folders.checkpoints[0]),
        state(folders.checkpoints[1]),
        state(folders.base),
    )
    with torch.no_grad():
        for name in base:
            model.get_parameter(name).copy_(base[name] + positive[name] - negative[name])
    assert largest_difference(logits(live), logits(model)) < 2e-5
    assert largest_difference(logits(live), logits(folders.base)) > 0.01


def test_mergekit_reads_the_dense_vector(
    folders: Folders, options: ExtractOptions, tmp_path: Path
) -> None:
    extract(*folders.full, tmp_path / "vector", options)
    said = {"preference": "helpful", "polarity": "vector", "eta": 0.5}
    out = mergekit_yaml(recipe(folders.base, [(str(tmp_path / "vector"), said)]), tmp_path / "out")
    base, positive, negative = state(folders.base), state(folders.full[0]), state(folders.full[1])
    for name, weight in state(out).items():
        phi = (positive[name] - base[name]) - (negative[name] - base[name])
        assert torch.equal(weight, base[name] + phi * 0.5)


@pytest.mark.parametrize("rank", [1, 3, 8, 99])
def test_truncated_error_is_the_measured_one(
    rank: int, folders: Folders, options: ExtractOptions, tmp_path: Path
) -> None:
    manifest = extract(
        *folders.full,
        tmp_path / "thin",
        ExtractOptions(folders.base, "helpful", low_rank=True, rank=rank),
    )
    assert manifest["rank"] == min(rank, 32)
    extract(*folders.full, tmp_path / "dense", options)
    wide, thin = (PreferenceVector.load(tmp_path / name) for name in ("dense", "thin"))
    lost = sum(
        float((phi - (thin.dense(name) if name in thin else 0)).double().square().sum())
        for name, phi in wide.items()
    )
    assert manifest["relative_error"] == pytest.approx(lost**0.5 / wide.norm(), rel=1e-5)
    assert manifest["measures"]["norm"] == pytest.approx(wide.norm(), rel=1e-6)


def test_energy_is_kept_in_every_weight(
    folders: Folders, options: ExtractOptions, tmp_path: Path
) -> None:
    extract(*folders.full, tmp_path / "dense", options)
    extract(
        *folders.full, tmp_path / "thin", ExtractOptions(folders.base, "helpful", True, energy=0.8)
    )
    wide, thin = (PreferenceVector.load(tmp_path / name) for name in ("dense", "thin"))
    assert thin.low_rank
    for name in thin.names:
        phi = wide.dense(name)
        assert float(thin.dense(name).norm() ** 2) >= 0.8 * float(phi.norm() ** 2) * (1 - 1e-5)


def test_truncated_conv1d_loads_in_peft(tmp_path: Path) -> None:
    folders = make(tmp_path, "GPT-2", target_modules=["c_attn"], fan_in_fan_out=True)
    full = ExtractOptions(folders.base, "helpful", low_rank=True, rank=32)
    manifest = extract(*folders.full, tmp_path / "thin", full)
    assert 0 < manifest["relative_error"] < 1  # biases, norms and embeddings are left out
    live = peft.PeftModel.from_pretrained(load(folders.base), str(tmp_path / "thin")).eval()
    model = load(folders.base)
    vector = PreferenceVector.load(tmp_path / "thin")
    extract(*folders.full, tmp_path / "dense", ExtractOptions(folders.base, "helpful"))
    wide = PreferenceVector.load(tmp_path / "dense")
    with torch.no_grad():
        for name in vector.names:  # at full rank nothing of these is lost
            assert largest_difference(vector.dense(name), wide.dense(name)) < 1e-5
            model.get_parameter(name).add_(wide.dense(name))
    assert largest_difference(logits(live), logits(model)) < 5e-5


def test_measures_by_hand(tmp_path: Path) -> None:
    model = tiny()
    base = save(model, tmp_path / "base")
    weights = state(base)
    folders = []
    for number, step in enumerate(((3.0, 4.0), (-3.0, 4.0))):
        moved = {name: weight.clone() for name, weight in weights.items()}
        moved["model.norm.weight"][:2] += torch.tensor(step)  # 1 → 4, 5 and −2, 5: exact
        folders.append(write_state(tmp_path / str(number), moved, base))
    manifest = extract(*folders, tmp_path / "vector", ExtractOptions(base, "helpful"))
    assert manifest["measures"] == {
        "norm": 6.0,
        "norm_positive": 5.0,
        "norm_negative": 5.0,
        "cosine_positive_negative": pytest.approx((16 - 9) / 25),
        "tensors_moved": 1,
    }
    vector = PreferenceVector.load(tmp_path / "vector")
    assert vector.dense("model.norm.weight")[:3].tolist() == [6.0, 0.0, 0.0]
    assert json.loads((tmp_path / "vector" / "preference_vector.json").read_text()) == manifest


def test_manifest_carries_what_is_known(folders: Folders, tmp_path: Path) -> None:
    copies = []
    for side, polarity in zip(folders.adapters, ("positive", "negative"), strict=True):
        copy = tmp_path / polarity
        copy.mkdir()
        for path in Path(side).iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        sha = Checkpoint(folders.base).weights_sha256()
        said = {"path": folders.base, "weights_sha256": sha}
        say(str(copy), polarity=polarity, preference="safety", base_model=said, seed=3)
        copies.append(str(copy))
    manifest = extract(*copies, tmp_path / "vector")
    assert manifest["preference"] == "safety" and manifest["protected"] is True
    assert manifest["base"]["weights_sha256"] == Checkpoint(folders.base).weights_sha256()
    assert manifest["positive"]["seed"] == 3 and manifest["positive"]["form"] == "adapter"
    assert PreferenceVector.load(tmp_path / "vector").manifest == manifest


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_of_the_deltas(dtype: str, folders: Folders, tmp_path: Path) -> None:
    extract(
        *folders.full, tmp_path / "vector", ExtractOptions(folders.base, "helpful", dtype=dtype)
    )
    for _name, phi in PreferenceVector.load(tmp_path / "vector").items():
        assert phi.dtype is getattr(torch, dtype)


def test_sharding_does_not_show(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    many = [
        save(load(folder), tmp_path / str(n), shard="20KB") for n, folder in enumerate(folders.full)
    ]
    assert len(list((tmp_path / "0").glob("*.safetensors"))) > 2
    extract(*many, tmp_path / "many", options)
    extract(*folders.full, tmp_path / "one", options)
    for name, phi in PreferenceVector.load(tmp_path / "one").items():
        assert torch.equal(phi, PreferenceVector.load(tmp_path / "many").dense(name))


def test_tied_heads(tmp_path: Path) -> None:
    model = tiny(tied=True)
    base, positive, negative = (
        save(m, tmp_path / n)
        for m, n in ((model, "b"), (perturbed(model, 1), "p"), (perturbed(model, 2), "n"))
    )
    extract(positive, negative, tmp_path / "vector", ExtractOptions(base, "helpful"))
    assert "lm_head.weight" not in PreferenceVector.load(tmp_path / "vector").names


# ---- what it refuses -----------------------------------------------------------------------------


def refuses(match: str, *arguments: Any) -> None:
    """Extraction must fail with one line and leave the output's parent as it was."""
    output = Path(arguments[2])
    before = sorted(output.parent.iterdir())
    with pytest.raises(PvMergeError, match=match):
        extract(*arguments)
    assert sorted(output.parent.iterdir()) == before


def manifests(tmp_path: Path, folders: Folders, *said: dict[str, Any]) -> list[str]:
    copies = []
    for number, (side, manifest) in enumerate(zip(folders.full, said, strict=True)):
        folder = write_state(tmp_path / str(number), state(side), side)
        say(folder, **manifest)
        copies.append(folder)
    return copies


def test_wrong_polarity(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    sides = manifests(tmp_path, folders, {"polarity": "negative"}, {"polarity": "positive"})
    message = r"0: its manifest says negative, it was given as the positive; are they swapped\?"
    refuses(message, *sides, tmp_path / "vector", options)


def test_two_preferences(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    sides = manifests(tmp_path, folders, {"preference": "helpful"}, {"preference": "polite"})
    refuses("0 is of the preference helpful, .*1 of polite", *sides, tmp_path / "vector", options)


def test_two_bases(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    bases = [{"base_model": {"path": f"./{n}", "weights_sha256": n}} for n in "ab"]
    sides = manifests(tmp_path, folders, *bases)
    message = (
        r"was trained from ./a, .* from ./b \(their weights differ\); add --allow-different-bases"
    )
    refuses(message, *sides, tmp_path / "vector", options)
    allowed = ExtractOptions(folders.base, "helpful", allow_different_bases=True)
    assert extract(*sides, tmp_path / "vector", allowed)["measures"]["tensors_moved"] > 0


def test_one_base_in_two_places(folders: Folders, tmp_path: Path) -> None:
    sha = Checkpoint(folders.base).weights_sha256()
    bases = [{"base_model": {"path": p, "weights_sha256": sha}} for p in (folders.base, "./moved")]
    sides = manifests(tmp_path, folders, *bases)
    assert (
        extract(*sides, tmp_path / "vector", ExtractOptions(name="helpful"))["base"]["path"]
        == folders.base
    )


def test_another_base_than_the_manifests_say(folders: Folders, tmp_path: Path) -> None:
    said = {"base_model": {"path": folders.base, "weights_sha256": "0" * 64}}
    sides = manifests(tmp_path, folders, said, said)
    refuses(
        "its weights are not those that .* were trained from",
        *sides,
        tmp_path / "vector",
        ExtractOptions(name="h"),
    )


def test_no_base(folders: Folders, tmp_path: Path) -> None:
    refuses(
        "names the base; say --base FOLDER",
        *folders.full,
        tmp_path / "vector",
        ExtractOptions(name="h"),
    )
    missing = ExtractOptions(base=str(tmp_path / "nowhere"), name="h")
    refuses("nowhere: no such folder", *folders.full, tmp_path / "vector", missing)


def test_plain_adapters_need_no_flags(folders: Folders, tmp_path: Path) -> None:
    """As TRL leaves them: an adapter among optimizer states, no manifest; the config names the base."""
    places = []
    for side, adapter in zip(("up", "down"), folders.adapters, strict=True):
        place = tmp_path / side / "checkpoint-40"
        shutil.copytree(adapter, place)
        (place / "optimizer.pt").write_bytes(b"x")
        (place / "training_args.bin").write_bytes(b"x")
        (place / "trainer_state.json").write_text("{}")
        places.append(place)
    manifest = extract(*places, tmp_path / "vectors" / "kind")
    assert (manifest["preference"], manifest["base"]["path"]) == ("kind", folders.base)
    first, second = map(state, folders.checkpoints)  # merged by PEFT
    found = state(tmp_path / "vectors" / "kind")
    for name, tensor in first.items():
        assert largest_difference(found[name], tensor - second[name]) < 4e-7, name


def test_a_folder_that_cannot_be_a_name(folders: Folders, tmp_path: Path) -> None:
    target = tmp_path / "a,b"
    refuses("say --name NAME", *folders.full, target, ExtractOptions(base=folders.base))


def test_missing_and_extra_tensors(
    folders: Folders, options: ExtractOptions, tmp_path: Path
) -> None:
    tensors = state(folders.full[0])
    less = {name: t for name, t in tensors.items() if name != "model.norm.weight"}
    lacking = write_state(tmp_path / "less", less, folders.base)
    message = "less: lacks model.norm.weight, which the base .* has; it would be dropped"
    refuses(message, lacking, folders.full[1], tmp_path / "vector", options)
    more = write_state(tmp_path / "more", {**tensors, "extra.weight": torch.ones(1)}, folders.base)
    refuses(
        "more: has extra.weight, which the base .* lacks",
        folders.full[0],
        more,
        tmp_path / "vector",
        options,
    )


def test_untied_policy_of_a_tied_base(tmp_path: Path) -> None:
    model = tiny(tied=True)
    base, policy = save(model, tmp_path / "base"), save(perturbed(model, 1), tmp_path / "policy")
    tensors = state(policy)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    untied = write_state(tmp_path / "untied", tensors, base)
    message = r"untied: has lm_head.weight, .*\(is the head tied in the base and untied here\?\)"
    refuses(message, policy, untied, tmp_path / "vector", ExtractOptions(base, "helpful"))


def test_other_shapes(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    other = save(tiny(vocab_size=97), tmp_path / "other")
    message = r"other: has 97 rows in lm_head.weight, the base 96 .*; does its tokenizer have other tokens\?"
    refuses(message, folders.full[0], other, tmp_path / "vector", options)
    wide = tiny(hidden_size=40)
    base = save(wide, tmp_path / "wide")
    adapter = save_adapter(adapted(wide, 1), tmp_path / "adapter", base)
    message = r"adapts model.layers.0.* as .*; was it trained from another base\?"
    refuses(message, adapter, folders.full[1], tmp_path / "vector", options)


def test_all_problems_at_once(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    tensors = state(folders.full[0])
    less = {name: t for name, t in tensors.items() if name != "model.norm.weight"}
    lacking = write_state(tmp_path / "less", less, folders.base)
    say(lacking, polarity="negative")
    message = r"(?s)its manifest says negative.*\n.*lacks model.norm.weight"
    refuses(message, lacking, folders.full[1], tmp_path / "vector", options)


def test_a_pickle(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    torch.save(state(folders.full[0]), pickled / "pytorch_model.bin")
    (pickled / "config.json").write_text((Path(folders.base) / "config.json").read_text())
    message = (
        "pickled: holds no safetensors weights; convert its pickled weights to safetensors first"
    )
    refuses(message, str(pickled), folders.full[1], tmp_path / "vector", options)


def test_a_truncated_file(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    broken = Path(write_state(tmp_path / "broken", state(folders.full[0]), folders.base))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refuses(
        "not a whole safetensors file", str(broken), folders.full[1], tmp_path / "vector", options
    )


def test_a_missing_shard(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    broken = save(load(folders.full[0]), tmp_path / "broken", shard="20KB")
    sorted(Path(broken).glob("*.safetensors"))[1].unlink()
    refuses(
        "missing, though the index names it", broken, folders.full[1], tmp_path / "vector", options
    )


def test_missing_folders(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    refuses(
        "none: no such folder",
        str(tmp_path / "none"),
        folders.full[1],
        tmp_path / "vector",
        options,
    )


def test_the_same_policy_twice(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    message = r"are the same; was one trained twice\?"
    refuses(message, folders.full[0], folders.full[0], tmp_path / "vector", options)
    refuses(message, folders.base, folders.base, tmp_path / "vector", options)


def test_two_equal_adapters(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    message = r"are the same; was one trained twice\?"
    refuses(message, folders.adapters[0], folders.adapters[0], tmp_path / "vector", options)
    refuses(message, folders.adapters[0], folders.adapters[0], tmp_path / "vector", LOW_RANK)


def test_which_part_to_keep(folders: Folders, tmp_path: Path) -> None:
    exact = ExtractOptions(name="helpful", low_rank=True, rank=2)
    refuses("of two adapters is exact", *folders.adapters, tmp_path / "vector", exact)
    unsaid = ExtractOptions(folders.base, "helpful", low_rank=True)
    refuses("--rank N or --energy 0.99", *folders.full, tmp_path / "vector", unsaid)


def test_the_output_exists(folders: Folders, options: ExtractOptions, tmp_path: Path) -> None:
    (tmp_path / "vector").mkdir()
    extract(*folders.full, tmp_path / "vector", options)  # an empty folder is fine
    refuses("already holds files", *folders.full, tmp_path / "vector", options)


def test_an_error_half_way_leaves_nothing(
    folders: Folders, options: ExtractOptions, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(*folders.full, tmp_path / "vector", options, stop)
    assert not list(tmp_path.iterdir())


def test_the_command(folders: Folders, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from pv_merge.cli import main

    arguments = ["extract", *folders.full, "-o", str(tmp_path / "v"), "--base", folders.base]
    done = CliRunner().invoke(main, [*arguments, "--name", "helpful"])
    assert done.exit_code == 0, done.output
    assert "helpful: dense vector in" in done.output
    again = CliRunner().invoke(main, [*arguments, "--name", "helpful"])
    assert again.exit_code == 1
    assert again.output.splitlines()[-1].startswith(f"Error: {tmp_path / 'v'}: already holds files")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_policies_in_16_bits_say_how_much_is_rounding(dtype: torch.dtype, tmp_path: Path) -> None:
    """The estimate from the narrow policies alone is what the wide ones show."""
    model = tiny()
    base = save(model, tmp_path / "base")
    size = 1e-3 if dtype is torch.bfloat16 else 1e-4
    policies = [perturbed(model, seed, size) for seed in (1, 2)]
    wide = [save(policy, tmp_path / f"wide{n}") for n, policy in enumerate(policies)]
    narrow = [save(policy.to(dtype), tmp_path / f"narrow{n}") for n, policy in enumerate(policies)]
    exact = extract(*wide, tmp_path / "exact", ExtractOptions(base, "helpful"))
    assert "rounding_noise" not in exact["measures"]
    found = extract(*narrow, tmp_path / "found", ExtractOptions(base, "helpful"))
    lost = PreferenceVector.load(tmp_path / "found") - PreferenceVector.load(tmp_path / "exact")
    true = lost.norm() / found["measures"]["norm"]
    assert true > 0.1 and found["measures"]["rounding_noise"] == pytest.approx(true, rel=0.1)

    words = ["extract", *narrow, "--base", base, "--name", "helpful", "-o", str(tmp_path / "cli")]
    said = CliRunner().invoke(main, words)
    assert f"about {found['measures']['rounding_noise']:.0%} of ‖φ‖ of helpful is" in said.stderr

    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe(base, pair(narrow[0], narrow[1], 0.5))))
    (line,) = [item.text for item in check(path) if "rounding noise" in item.text]
    assert int(re.findall(r"about (\d+)%", line)[0]) == pytest.approx(100 * true, rel=0.15)
    path.write_text(yaml.safe_dump(recipe(base, pair(wide[0], wide[1], 0.5))))
    assert not [item for item in check(path) if "rounding noise" in item.text]


def test_a_vector_inside_a_folder_that_is_read_is_refused(folders: Folders) -> None:
    target = Path(folders.base) / "vector"
    with pytest.raises(PvMergeError, match="which is read; name a folder elsewhere"):
        extract(*folders.full, target, ExtractOptions(folders.base, "helpful"))
    assert not target.exists()


def test_the_manifest_names_no_place_of_the_machine(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(folders.base).parent)
    manifest = extract(*folders.full, tmp_path / "vector", ExtractOptions(folders.base, "helpful"))
    assert manifest["base"]["path"] == f"./{Path(folders.base).name}"
    monkeypatch.chdir(tmp_path)
    manifest = extract(*folders.full, tmp_path / "other", ExtractOptions(folders.base, "helpful"))
    assert [manifest[side]["path"] for side in ("positive", "negative")] == [
        Path(folder).name for folder in folders.full
    ]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a=b", "a,b", ".."])
def test_names_that_would_become_paths(name: str, folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match="cannot be the name of a preference"):
        extract(*folders.full, tmp_path / "vector", ExtractOptions(folders.base, name))

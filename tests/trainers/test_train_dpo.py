"""Training both polarities: equal to TRL's own, computed once, whole or absent, resumable."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import DPOTrainer

import trainers.dpo
from pv_merge.data.pairs import load_pairs
from pv_merge.errors import PvMergeError
from trainers.arguments import dpo_arguments
from trainers.config_file import read_settings
from trainers.dpo import train
from trainers.dpo_trainer import SharedReferenceTrainer
from trainers.model import load_model, load_tokenizer, lora_config
from trainers.settings import POLARITIES, DPOSettings
from trainers.tokens import to_rows

from train_tiny import ROOT, config, pair_rows, save_base, write_config, write_rows

TOLERANCE = 2e-6
"""Nats. The head sums fewer positions in one matrix product, so the last float32 bits may differ."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", pair_rows())


def settings(folder: Path, base: Path, rows: Path, **changes: Any) -> DPOSettings:
    return read_settings(write_config(folder / "config.yml", config(folder, base, rows, **changes)))


def logged(folder: Path, key: str = "loss") -> list[float]:
    log = json.loads((folder / "pv_training_log.json").read_text())
    return [float(entry[key]) for entry in log if key in entry]


def plain_trl(config: DPOSettings, swap: bool, folder: Path) -> DPOTrainer:
    """Train as one would with TRL alone: no store, the reference computed in every step."""
    arguments = dpo_arguments(config, folder)
    arguments.precompute_ref_log_probs = False
    arguments.save_strategy = "no"
    tokenizer = load_tokenizer(config.base_model)
    pairs = load_pairs(config.dataset).pairs
    if swap:
        pairs = tuple(pair.swapped() for pair in pairs)
    trainer = DPOTrainer(
        model=load_model(config),
        args=arguments,
        train_dataset=to_rows(pairs, tokenizer.chat_template is not None),
        processing_class=tokenizer,
        peft_config=lora_config(config),
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"lora": None, "dpo": {"learning_rate": 1e-4}}, marks=pytest.mark.slow),
        {"dpo": {"max_length": 24}},
        pytest.param(
            {"dpo": {"max_length": 24, "truncation_mode": "keep_end"}}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"dpo": {"loss_type": ["ipo"], "gradient_accumulation_steps": 2}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"dpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.1]}},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["lora", "full", "truncated", "keep_end", "ipo", "with-sft"],
)
def test_losses_equal_those_of_trl_step_by_step(
    tmp_path: Path, base: Path, rows: Path, changes: dict[str, Any]
) -> None:
    ours = settings(tmp_path, base, rows, **changes)
    train(ours, POLARITIES)
    for polarity in POLARITIES:
        plain = plain_trl(ours, polarity == "negative", tmp_path / "plain").state.log_history
        for key in ("loss", "rewards/margins", "logps/chosen"):
            expected = [float(entry[key]) for entry in plain if key in entry]
            found = logged(tmp_path / "run" / polarity, key)
            assert len(found) == 3
            assert found == pytest.approx(expected, abs=TOLERANCE, rel=1e-6), (polarity, key)


def test_a_base_without_a_chat_template_is_trained_on_plain_text(
    tmp_path: Path, rows: Path
) -> None:
    bare = save_base(tmp_path / "bare", template=False)
    ours = settings(tmp_path, bare, rows)
    train(ours, ["positive"])
    plain = plain_trl(ours, False, tmp_path / "plain").state.log_history
    expected = [float(entry["loss"]) for entry in plain if "loss" in entry]
    assert logged(tmp_path / "run/positive") == pytest.approx(expected, abs=TOLERANCE)


def test_the_reference_is_computed_once_for_two_polarities_and_two_preferences(
    tmp_path: Path, base: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    original = SharedReferenceTrainer._reference

    def counted(self: Any, sequences: Any) -> Any:
        computed.extend(sequences)
        return original(self, sequences)

    monkeypatch.setattr(SharedReferenceTrainer, "_reference", counted)
    train(settings(tmp_path, base, rows), POLARITIES)
    assert len(computed) == 24  # twelve pairs of two answers
    other = pair_rows()
    for row in other[::2]:  # another preference, that sees half the pairs the other way round
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    second = write_rows(tmp_path / "second.jsonl", other)
    changes = {"preference": "terse", "output_dir": str(tmp_path / "terse")}
    train(settings(tmp_path, base, second, **changes), POLARITIES)
    assert len(computed) == 24


def test_policies_are_whole_folders_that_peft_loads(tmp_path: Path, base: Path, rows: Path) -> None:
    from peft import PeftModel

    outcomes = train(settings(tmp_path, base, rows), POLARITIES)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["negative", "positive"]
    for outcome, swapped in zip(outcomes, (False, True), strict=True):
        assert {path.name for path in outcome.folder.iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
            "pv_run.json",
            "pv_training.png",
            "pv_training_log.json",
        }
        manifest = json.loads((outcome.folder / "pv_run.json").read_text())
        for key in [
            "kind",
            "format",
            "preference",
            "polarity",
            "protected",
            "base_model",
            "dataset",
            "lora",
            "adapter_dtype",
            "seed",
            "dpo",
            "hyperparameters",
            "metrics",
            "versions",
        ]:
            assert key in manifest, key
        assert manifest["dataset"]["labels_swapped"] is swapped
        assert len(manifest["base_model"]["weights_sha256"]) == 64
        assert {
            t.dtype for t in load_file(outcome.folder / "adapter_model.safetensors").values()
        } == {torch.float32}
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), outcome.folder)


def test_the_polarities_pull_apart(tmp_path: Path, base: Path, rows: Path) -> None:
    train(settings(tmp_path, base, rows, lora=None, dpo={"max_steps": 6}), POLARITIES)
    start = load_file(base / "model.safetensors")
    deltas = []
    for polarity in POLARITIES:
        weights = load_file(tmp_path / "run" / polarity / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        deltas.append(torch.cat([(weights[k] - start[k]).flatten() for k in sorted(start)]))
    assert torch.nn.functional.cosine_similarity(*deltas, dim=0) < -0.3


def test_an_adapter_is_stored_in_bfloat16_if_asked(tmp_path: Path, base: Path, rows: Path) -> None:
    train(settings(tmp_path, base, rows, adapter_dtype="bfloat16"), ["positive"])
    stored = load_file(tmp_path / "run/positive/adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_an_existing_run_is_refused(tmp_path: Path, base: Path, rows: Path) -> None:
    ours = settings(tmp_path, base, rows)
    train(ours, ["positive"])
    with pytest.raises(PvMergeError, match=r"positive: already holds a finished run; add --resume"):
        train(ours, POLARITIES)
    assert not (tmp_path / "run/negative").exists()
    train(ours, ["negative"])  # the other polarity is not there yet, and may come later


def test_finished_polarities_are_not_trained_again(tmp_path: Path, base: Path, rows: Path) -> None:
    ours = settings(tmp_path, base, rows)
    train(ours, ["positive"])
    before = (tmp_path / "run/positive/pv_run.json").stat().st_mtime_ns
    for left in (".positive.unfinished", ".positive.x1y2z3"):  # by a kill around the rename
        (tmp_path / "run" / left).mkdir()
    outcomes = train(ours, POLARITIES, resume=True)
    assert [outcome.skipped for outcome in outcomes] == [True, False]
    assert (tmp_path / "run/positive/pv_run.json").stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["negative", "positive"]


def test_a_run_shorter_than_an_epoch_computes_only_the_rows_it_reads(
    tmp_path: Path, base: Path
) -> None:
    rows = write_rows(tmp_path / "many.jsonl", pair_rows(40))
    ours = settings(tmp_path, base, rows, dpo={"gradient_accumulation_steps": 2, "max_steps": 2})
    train(ours, POLARITIES)
    manifests = [
        json.loads((tmp_path / "run" / polarity / "pv_run.json").read_text())
        for polarity in POLARITIES
    ]
    # two steps of twice four pairs, each of two answers; the other polarity reads the same rows
    assert [m["reference_sequences_computed"] for m in manifests] == [32, 0]
    plain = plain_trl(ours, False, tmp_path / "plain").state.log_history
    expected = [float(entry["loss"]) for entry in plain if "loss" in entry]
    assert logged(tmp_path / "run/positive") == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model": "./nowhere"}, r"\./nowhere: no such folder"),
        ({"dataset": {"path": "./nowhere.jsonl"}}, "no such file or folder"),
        ({"dpo": {"loss_type": ["sigmiod"]}}, "sigmiod"),
        ({"lora": {"r": -1}}, "lora|dpo"),
        ({"dpo": {"max_length": 5}}, "in each of 12 rows the prompt alone fills max_length: 5 tokens"),
        ({"dpo": {"ld_alpha": 0.5}}, "ld_alpha cannot be set"),
        ({"dpo": {"use_liger_kernel": True}}, "use_liger_kernel cannot be set; .*use_kernels: true"),
        ({"use_kernels": True}, "use_kernels: needs kernels, which is not installed"),
        ({"dpo": {"report_to": "wandb"}}, "dpo: .*wandb"),
        ({"quantization": "nf4"}, "quantization: nf4 needs a CUDA device"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attention_2"),
    ],
)  # fmt: skip
def test_an_error_leaves_nothing_behind(
    tmp_path: Path, base: Path, rows: Path, changes: dict[str, Any], message: str
) -> None:
    if "use_kernels" in changes and importlib.util.find_spec("kernels"):
        pytest.skip("kernels is installed")
    if "quantization" in changes and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(PvMergeError, match=message) as caught:
        train(settings(tmp_path, base, rows, **changes), POLARITIES)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_crash_before_any_checkpoint_leaves_nothing_behind(
    tmp_path: Path, base: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(trainers.dpo.SharedReferenceTrainer, "training_step", crash)
    with pytest.raises(ZeroDivisionError):
        train(settings(tmp_path, base, rows), POLARITIES)
    assert not (tmp_path / "run").exists()


def test_rows_whose_prompt_fills_max_length_are_counted(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"prompt": "x" * 200, "chosen": "a", "rejected": "b"}
    cut = {"prompt": "x" * 90, "chosen": "a" * 20, "rejected": "b"}
    equal = {"prompt": "x", "chosen": "a", "rejected": "a"}
    data = write_rows(tmp_path / "rows.jsonl", [*pair_rows(), long, cut, equal])
    (outcome,) = train(settings(tmp_path, base, data), ["positive"])
    dataset = json.loads((outcome.folder / "pv_run.json").read_text())["dataset"]
    assert dataset["dropped"]["prompt_fills_max_length"] == 1
    assert dataset["dropped"]["chosen_equals_rejected"] == 1
    assert dataset["truncated"] == 1
    assert outcome.notes[0] == (
        "13 pairs; left out: 1 chosen equals rejected, 1 prompt fills max length"
    )
    assert outcome.notes[1] == "7.7% of the pairs are cut at max_length"


def test_evaluation_early_stopping_and_logs(tmp_path: Path, base: Path, rows: Path) -> None:
    pytest.importorskip("tensorboard")
    swapped = [
        {"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]}
        for row in pair_rows()
    ]  # so that the held-out loss gets worse as the training loss gets better
    changes: dict[str, Any] = {
        "eval_dataset": {"path": str(write_rows(tmp_path / "swapped.jsonl", swapped))},
        "early_stopping_patience": 1,
        "dpo": {"max_steps": 12, "eval_steps": 2, "report_to": "tensorboard"},
    }
    (outcome,) = train(settings(tmp_path, base, rows, **changes), ["positive"])
    assert outcome.metrics["steps"] == 4
    held_out = logged(outcome.folder, "eval_loss")
    assert len(held_out) == 3  # at steps 2 and 4, and of the best checkpoint at the end
    assert outcome.metrics["heldout_loss"] == pytest.approx(min(held_out), abs=1e-5)
    assert list((tmp_path / "run/logs/positive").glob("events.*"))


def test_gradient_checkpointing_and_grouping_by_length(
    tmp_path: Path, base: Path, rows: Path
) -> None:
    plain = settings(tmp_path, base, rows)
    train(plain, ["positive"])
    again = settings(
        tmp_path, base, rows, output_dir=str(tmp_path / "b"), dpo={"gradient_checkpointing": True}
    )
    train(again, ["positive"])
    assert logged(tmp_path / "b/positive") == pytest.approx(
        logged(tmp_path / "run/positive"), abs=1e-6
    )
    grouped = settings(
        tmp_path,
        base,
        rows,
        output_dir=str(tmp_path / "c"),
        dpo={"train_sampling_strategy": "group_by_length"},
    )
    train(grouped, ["positive"])
    assert logged(tmp_path / "c/positive") != logged(tmp_path / "run/positive")


KILLED = """
import os, signal, sys
from trainers.progress import ProgressCallback

def on_step_end(self, args, state, control, **_):
    if self._label.endswith({polarity!r}) and state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)

ProgressCallback.on_step_end = on_step_end
from trainers.cli import main
main(["dpo", {config!r}])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("polarity", "step", "lora"), [("positive", 1, True), ("negative", 7, True), ("positive", 5, False)]
)  # fmt: skip
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, base: Path, rows: Path, polarity: str, step: int, lora: bool
) -> None:
    changes: dict[str, Any] = {"dpo": {"max_steps": 8, "save_steps": 2}}
    if lora:  # dropout draws on the random state, which a resumed run must restore
        changes["lora"] = {"r": 4, "lora_dropout": 0.2, "target_modules": "all-linear"}
        changes["dpo"]["disable_dropout"] = False
    else:
        changes["lora"] = None
    killed = config(tmp_path, base, rows, **changes)
    place = write_config(tmp_path / "killed.yml", killed)
    script = KILLED.format(polarity=polarity, step=step, config=str(place))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
    assert done.returncode == -9
    assert (tmp_path / f"run/.{polarity}.unfinished").exists()
    assert not (tmp_path / f"run/{polarity}").exists()
    with pytest.raises(PvMergeError, match=r"already holds an? (un)?finished run; add --resume"):
        train(read_settings(place), POLARITIES)
    train(read_settings(place), POLARITIES, resume=True)
    whole = settings(tmp_path, base, rows, **changes, output_dir=str(tmp_path / "whole"))
    train(whole, POLARITIES)
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    for side in POLARITIES:
        a, b = (load_file(tmp_path / run / side / name) for run in ("run", "whole"))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert logged(tmp_path / "run" / side) == logged(tmp_path / "whole" / side)
        tokens = [
            json.loads((tmp_path / run / side / "pv_run.json").read_text())["metrics"]["tokens"]
            for run in ("run", "whole")
        ]
        assert tokens[0] == tokens[1]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["negative", "positive"]


def test_resuming_with_another_config_is_refused(
    tmp_path: Path, base: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SharedReferenceTrainer.training_step

    def crash(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(SharedReferenceTrainer, "training_step", crash)
    with pytest.raises(KeyboardInterrupt):
        train(settings(tmp_path, base, rows, dpo={"save_steps": 1}), ["positive"])
    monkeypatch.undo()
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PvMergeError, match="was begun with another config, base or data"):
        train(
            settings(tmp_path, base, rows, dpo={"save_steps": 1, "beta": 0.2}),
            ["positive"],
            resume=True,
        )
    train(settings(tmp_path, base, rows, dpo={"save_steps": 1}), ["positive"], resume=True)

"""Supervised fine-tuning: a checkpoint that the policies start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer

from pv_merge.data.instructions import load_examples, to_rows
from pv_merge.errors import PvMergeError
from trainers.arguments import sft_arguments
from trainers.cli import main
from trainers.config_file import read_settings, read_sft_settings
from trainers.dpo import train
from trainers.model import load_model, load_tokenizer
from trainers.settings import SFTSettings
from trainers.sft import train_base

from train_tiny import LORA, config, pair_rows, save_base, write_config, write_rows

pytestmark = pytest.mark.slow  # several trainings

ROWS = [{"instruction": f"Say {i}", "input": "", "output": f"{i} " * (1 + i % 3)} for i in range(8)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "base")


def settings(
    folder: Path, base: Path, rows: list[dict[str, Any]] = ROWS, **changes: Any
) -> SFTSettings:
    sft = {
        "learning_rate": 1e-3,
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "max_length": 64,
    }
    data = {
        "base_model": str(base),
        "dataset": {"path": str(write_rows(folder / "sft.jsonl", rows))},
        "output_dir": str(folder / "base"),
        **changes,
        "sft": sft | changes.get("sft", {}),
    }
    return read_sft_settings(write_config(folder / "sft.yml", data))


def test_losses_equal_those_of_trl_step_by_step(tmp_path: Path, base: Path) -> None:
    ours = settings(tmp_path, base)
    train_base(ours)
    log = json.loads((tmp_path / "base/pv_training_log.json").read_text())
    arguments = sft_arguments(ours, tmp_path / "plain")
    arguments.save_strategy = "no"
    plain = SFTTrainer(
        model=load_model(ours),
        args=arguments,
        train_dataset=to_rows(load_examples(ours.dataset).examples, chat=True),
        processing_class=load_tokenizer(str(base)),
    )
    plain.train()
    expected = [float(entry["loss"]) for entry in plain.state.log_history if "loss" in entry]
    assert [e["loss"] for e in log if "loss" in e] == pytest.approx(expected, abs=2e-6)
    weights = load_file(tmp_path / "base/model.safetensors")
    for name, tensor in plain.model.state_dict().items():
        if name in weights:
            assert torch.allclose(weights[name], tensor, atol=1e-6), name


def test_the_base_is_whole_and_dpo_goes_on_from_it(tmp_path: Path, base: Path) -> None:
    outcome = train_base(
        settings(tmp_path, base, eval_dataset={"path": str(tmp_path / "sft.jsonl")})
    )
    assert outcome.metrics["steps"] == 3
    assert "heldout_loss" in outcome.metrics
    folder = tmp_path / "base"
    manifest = json.loads((folder / "pv_run.json").read_text())
    assert (manifest["kind"], manifest["dataset"]["rows"]) == ("sft", 8)
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {
        torch.float32
    }
    assert (folder / "pv_training.png").exists()
    assert not list(tmp_path.glob(".base*"))
    rows = write_rows(tmp_path / "rows.jsonl", pair_rows())
    dpo = read_settings(write_config(tmp_path / "dpo.yml", config(tmp_path, folder, rows)))
    (policy,) = train(dpo, ["positive"])
    made_from = json.loads((policy.folder / "pv_run.json").read_text())["base_model"]
    assert made_from["sft"]["dataset"]["path"] == str(tmp_path / "sft.jsonl")
    assert made_from["sft"]["base_model"]["path"] == str(base)


def test_a_lora_is_merged_into_the_base(tmp_path: Path, base: Path) -> None:
    train_base(settings(tmp_path, base, lora=LORA))
    before, after = (
        load_file(base / "model.safetensors"),
        load_file(tmp_path / "base/model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert not torch.equal(
        before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"]
    )
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_a_chat_template_is_given_to_a_base_without_one(tmp_path: Path) -> None:
    bare = save_base(tmp_path / "bare", template=False)
    template = tmp_path / "chat.jinja"
    template.write_text(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    train_base(settings(tmp_path, bare, sft={"chat_template_path": str(template)}))
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template == template.read_text()
    train_base(settings(tmp_path, bare, output_dir=str(tmp_path / "plain")))
    assert AutoTokenizer.from_pretrained(tmp_path / "plain").chat_template is None


def test_rows_without_anything_to_learn_are_dropped_and_counted(tmp_path: Path, base: Path) -> None:
    rows = [
        *ROWS,
        {"instruction": "x" * 99, "input": "", "output": "a"},
        {"instruction": "x", "output": ""},
    ]
    outcome = train_base(settings(tmp_path, base, rows))
    dropped = json.loads((tmp_path / "base/pv_run.json").read_text())["dataset"]["dropped"]
    assert dropped == {"empty_answer": 1, "over_max_chars": 0, "prompt_fills_max_length": 1}
    assert outcome.notes == ("8 rows; left out: 1 empty answer, 1 prompt fills max length",)
    with pytest.raises(
        PvMergeError, match="in each of 8 rows the prompt alone fills max_length: 4"
    ):
        train_base(settings(tmp_path, base, output_dir=str(tmp_path / "no"), sft={"max_length": 4}))
    assert not (tmp_path / "no").exists()


def test_refused_resumed_finished(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainers.sft import CompletionTrainer

    original = CompletionTrainer.training_step

    def crash(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    ours = settings(tmp_path, base, sft={"save_steps": 1})
    monkeypatch.setattr(CompletionTrainer, "training_step", crash)
    with pytest.raises(KeyboardInterrupt):
        train_base(ours)
    monkeypatch.setattr(CompletionTrainer, "training_step", original)
    with pytest.raises(PvMergeError, match="base: already holds an unfinished run; add --resume"):
        train_base(ours)
    train_base(ours, resume=True)
    train_base(settings(tmp_path, base, output_dir=str(tmp_path / "whole"), sft={"save_steps": 1}))
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "whole"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(PvMergeError, match="base: already holds a finished run"):
        train_base(ours)
    assert train_base(ours, resume=True).skipped


def test_a_finished_base_that_is_resumed_shows_its_whole_table(tmp_path: Path, base: Path) -> None:
    settings(tmp_path, base)
    tables = []
    for more in ([], ["--resume"]):
        result = CliRunner().invoke(main, ["sft", str(tmp_path / "sft.yml"), *more])
        assert result.exit_code == 0, result.output
        lines = [line.strip("│ ").split("│") for line in result.output.splitlines() if "│" in line]
        tables.append({name.strip(): value.strip() for name, value in lines})
    assert "already there" in result.output
    assert tables[0] == tables[1]
    assert tables[0].keys() == {"steps", "loss", "token accuracy", "seconds", "tokens per second"}
    assert tables[0]["steps"] == "3"


def test_quantization_is_for_dpo(tmp_path: Path, base: Path) -> None:
    with pytest.raises(PvMergeError, match="quantization is for pv-train dpo"):
        settings(tmp_path, base, lora=LORA, quantization="nf4")

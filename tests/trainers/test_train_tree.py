"""Training on trees of tokens: the loss, the gradients and the weights of TRL's padded rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pv_merge.data.pairs import load_pairs
from pv_merge.errors import PvMergeError
from trainers.arguments import dpo_arguments
from trainers.config_file import read_settings
from trainers.dpo import train
from trainers.dpo_trainer import SharedReferenceTrainer
from trainers.model import load_model, load_tokenizer, lora_config
from trainers.settings import POLARITIES, DPOSettings
from trainers.tokens import tokenize

from models import tiny
from train_tiny import config, pair_rows, save_base, write_config, write_rows

SYSTEM = {"role": "system", "content": "You are a careful assistant that answers in one line."}
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "prompts of their own": pair_rows(8),
    "one system prompt": [
        {**row, "prompt": [SYSTEM, {"role": "user", "content": row["prompt"]}]}
        for row in pair_rows(8)
    ],
    "dialogues": [
        {
            **row,
            "prompt": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hello! " * (1 + i % 3)},
                {"role": "user", "content": row["prompt"]},
            ],
        }
        for i, row in enumerate(pair_rows(8))
    ],
    "one prompt for all": [{**row, "prompt": "Why?"} for row in pair_rows(8)],
    "answers that begin alike": [
        {**row, "rejected": row["chosen"][:9] + row["rejected"]} for row in pair_rows(8)
    ],
    "a prompt that begins another": [
        {**row, "prompt": "Why" + " so" * i} for i, row in enumerate(pair_rows(8))
    ],
}
FULL: dict[str, Any] = {"lora": None, "dpo": {"learning_rate": 1e-4}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "base")


def settings(folder: Path, base: Path, rows: Any, **changes: Any) -> DPOSettings:
    data = write_rows(folder / "rows.jsonl", rows)
    return read_settings(write_config(folder / "config.yml", config(folder, base, data, **changes)))


def trainer_of(ours: DPOSettings, folder: Path) -> SharedReferenceTrainer:
    arguments = dpo_arguments(ours, folder / "work")
    tokenizer = load_tokenizer(ours.base_model)
    tokens = tokenize(load_pairs(ours.dataset).pairs, tokenizer, arguments, "rows")
    return SharedReferenceTrainer(
        model=load_model(ours),
        args=arguments,
        train_dataset=tokens.rows,
        processing_class=tokenizer,
        peft_config=lora_config(ours),
        store=None,
        bar=Progress(disable=True),
        tree=ours.tree,
    )


def loss_and_gradients(ours: DPOSettings, folder: Path) -> tuple[float, torch.Tensor, Any]:
    trainer = trainer_of(ours, folder)
    assert trainer.tree is ours.tree
    with torch.no_grad():  # off the start, where an adapter is zero and a loss is log 2
        generator = torch.Generator().manual_seed(1)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    parts = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(parts), trainer._metrics["train"]


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradients_are_those_of_padded_rows(
    tmp_path: Path, base: Path, layout: str, full: bool
) -> None:
    check(tmp_path, base, LAYOUTS[layout], FULL if full else {})


@pytest.mark.parametrize(
    "dpo",
    [
        {"max_length": 20},
        {"max_length": 20, "truncation_mode": "keep_end"},
        {"max_length": 12, "truncation_mode": "keep_end"},
        {"gradient_checkpointing": True},
        {"use_weighting": True},
    ],
    ids=str,
)
def test_so_they_are_with_other_options(tmp_path: Path, base: Path, dpo: dict[str, Any]) -> None:
    check(
        tmp_path, base, LAYOUTS["one system prompt"] if len(dpo) > 2 else pair_rows(8), {"dpo": dpo}
    )


def test_so_they_are_on_plain_text(tmp_path: Path) -> None:
    check(tmp_path, save_base(tmp_path / "bare", template=False), pair_rows(8), {})


def check(folder: Path, base: Path, rows: Any, changes: dict[str, Any]) -> None:
    batch = {"per_device_train_batch_size": 8}
    changes = {**changes, "dpo": batch | changes.get("dpo", {})}
    tree, plain = (
        loss_and_gradients(settings(folder, base, rows, tree=on, **changes), folder)
        for on in (True, False)
    )
    assert tree[0] == pytest.approx(plain[0], rel=2e-6)
    assert float((tree[1] - plain[1]).norm() / plain[1].norm()) < 5e-6
    assert tree[2].keys() == plain[2].keys()
    for name, values in plain[2].items():  # entropy, accuracies, tokens: every figure that TRL logs
        assert tree[2][name] == pytest.approx(values, rel=1e-4, abs=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, FULL], ids=["lora", "full"])
def test_twenty_steps_end_at_the_same_weights(
    tmp_path: Path, base: Path, changes: dict[str, Any]
) -> None:
    # Adam divides by gradients that may be all rounding; its epsilon is what keeps those out.
    dpo = {"max_steps": 20, "gradient_accumulation_steps": 2, "adam_epsilon": 1e-6}
    changes = {**changes, "dpo": dpo | changes.get("dpo", {})}
    ends = []
    for on in (True, False):
        place = tmp_path / str(on)
        place.mkdir()
        (outcome,) = train(settings(place, base, pair_rows(24), tree=on, **changes), ["negative"])
        assert json.loads((outcome.folder / "pv_run.json").read_text())["tree"] is on
        ends.append(load_file(next(outcome.folder.glob("*model.safetensors"))))
    start = load_file(base / "model.safetensors") if "lora" in changes else {}
    apart = moved = 0.0
    for name, tensor in ends[1].items():
        apart += float((ends[0][name] - tensor).square().sum())
        moved += float((tensor - start.get(name, torch.zeros(()))).square().sum())
    assert (apart / moved) ** 0.5 < 1e-4


def test_a_tree_computes_each_prompt_once(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = settings(tmp_path, base, LAYOUTS["one system prompt"])
    trainer = trainer_of(ours, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    widths = []
    trainer.model.get_base_model().model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    trainer.compute_loss(trainer.model, batch)
    ((rows, width),) = widths
    assert rows == 1
    assert width < 0.5 * int(batch["attention_mask"].sum())


def other_base(folder: Path, base: Path, family: str, **changes: Any) -> Path:
    """Save a model of another family, with weights large enough to tell right from wrong."""
    tokenizer = load_tokenizer(str(base))
    tokenizer.save_pretrained(folder / "other")
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "pad_token_id": 0}
    model = tiny(family, **{**size, **changes, "bos_token_id": 1, "eos_token_id": 1})
    model.save_pretrained(folder / "other")
    return folder / "other"


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("Mistral", {"sliding_window": 16}, "sees only the last 16 tokens"),
        ("Falcon", {}, "has an attention of its own"),
        ("Mixtral", {"router_aux_loss_coef": 0.1}, "balances its experts by counting tokens"),
    ],
)
def test_where_a_tree_does_not_hold_the_padded_way_is_taken_and_said(
    tmp_path: Path,
    base: Path,
    capsys: pytest.CaptureFixture[str],
    family: str,
    changes: dict[str, Any],
    reason: str,
) -> None:
    other = other_base(tmp_path, base, family, **changes)
    (outcome,) = train(settings(tmp_path, other, pair_rows(8), dpo={"max_steps": 1}), ["positive"])
    assert (
        capsys.readouterr().err.replace("\n", " ").count(f"no tree of tokens: the model {reason}")
        == 1
    )
    assert json.loads((outcome.folder / "pv_run.json").read_text())["tree"] is False


def test_a_model_that_gives_other_values_is_not_trusted(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainers.tree

    def shallow(tree: Any, device: Any) -> Any:
        found = tree_inputs(tree, device)
        return {**found, "position_ids": torch.arange(len(tree))[None]}

    tree_inputs = trainers.tree.tree_inputs
    monkeypatch.setattr(trainers.tree, "tree_inputs", shallow)
    other = other_base(tmp_path, base, "Llama")
    trainer = trainer_of(settings(tmp_path, other, pair_rows(8)), tmp_path)
    assert trainer.tree is False
    assert trainer.model.config._attn_implementation == "sdpa"


def test_a_row_beyond_the_positions_of_the_base_is_refused(tmp_path: Path, base: Path) -> None:
    rows = [*pair_rows(4), {"prompt": "x" * 600, "chosen": "a", "rejected": "b"}]
    with pytest.raises(
        PvMergeError,
        match=r"a row has 6.. tokens, and the base has positions for 512; set max_length",
    ):
        train(settings(tmp_path, base, rows, dpo={"max_length": None}), POLARITIES)
    assert not (tmp_path / "run").exists()


def test_the_saved_config_knows_nothing_of_the_tree(tmp_path: Path, base: Path) -> None:
    (outcome,) = train(settings(tmp_path, base, pair_rows(8), **FULL), ["positive"])
    assert "token_tree" not in (outcome.folder / "config.json").read_text()
    AutoModelForCausalLM.from_pretrained(outcome.folder)

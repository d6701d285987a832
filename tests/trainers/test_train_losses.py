"""Every loss of TRL's that needs no more than both answers, on trees and the shared reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rich.progress import Progress
from trl import DPOTrainer

from pv_merge.data.pairs import load_pairs
from trainers.arguments import dpo_arguments
from trainers.config_file import read_settings
from trainers.dpo_trainer import SharedReferenceTrainer
from trainers.model import load_model, load_tokenizer, lora_config
from trainers.reference import ReferenceStore
from trainers.tokens import to_rows, tokenize

from train_tiny import config, pair_rows, save_base, write_config, write_rows

LOSSES: list[tuple[list[str], list[float]]] = [
    *(([name], [1.0]) for name in ("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust")),
    *(([name], [1.0]) for name in ("bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero")),
    *(([name], [1.0]) for name in ("apo_down", "discopop", "sigmoid_norm", "sft")),
    (["sigmoid", "sft"], [1.0, 0.5]),
    (["ipo", "apo_zero", "sft"], [0.2, 1.0, 0.1]),
]
"""TRL 1.16's whole list, and two sums."""


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any, Any]]:
    """Return, of each polarity, our trainer, TRL's own, and a batch; off the start, alike."""
    place = tmp_path_factory.mktemp("losses")
    base = save_base(place / "base")
    rows = write_rows(place / "rows.jsonl", pair_rows(8))
    options = {"label_smoothing": 0.1, "per_device_train_batch_size": 8}
    ours = read_settings(write_config(place / "c.yml", config(place, base, rows, dpo=options)))
    store = ReferenceStore(place / "reference.sqlite", "base")
    tokenizer = load_tokenizer(str(base))
    found = {}
    for polarity in ("positive", "negative"):
        arguments = dpo_arguments(ours, place / "work")
        pairs = load_pairs(ours.dataset).pairs
        tokens = tokenize(pairs, tokenizer, arguments, "rows")
        shared = SharedReferenceTrainer(
            model=load_model(ours),
            args=arguments,
            train_dataset=tokens.rows if polarity == "positive" else tokens.swapped(),
            processing_class=tokenizer,
            peft_config=lora_config(ours),
            store=store,
            bar=Progress(disable=True),
            tree=True,
        )
        assert shared.tree
        # The reference of the second polarity is the first one's.
        assert shared.reference_computed == (16 if polarity == "positive" else 0)
        if polarity == "negative":
            pairs = tuple(pair.swapped() for pair in pairs)
        plain_arguments = dpo_arguments(ours, place / "plain")
        plain_arguments.precompute_ref_log_probs = False
        plain = DPOTrainer(
            model=load_model(ours),
            args=plain_arguments,
            train_dataset=to_rows(pairs, chat=True),
            processing_class=tokenizer,
            peft_config=lora_config(ours),
        )
        for trainer in (shared, plain):
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for parameter in trainer.model.parameters():
                    if parameter.requires_grad:
                        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
            trainer.model.train()
        batches = [next(iter(trainer.get_train_dataloader())) for trainer in (shared, plain)]
        assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
        found[polarity] = (shared, plain, batches)
    store.close()
    return found


@pytest.mark.parametrize("polarity", ["positive", "negative"])
@pytest.mark.parametrize(("kinds", "weights"), LOSSES, ids=lambda value: "+".join(map(str, value)))
def test_a_loss_and_its_gradients_are_trls(
    sides: dict[str, Any], polarity: str, kinds: list[str], weights: list[float]
) -> None:
    shared, plain, batches = sides[polarity]
    found = []
    for trainer, batch in zip((shared, plain), batches, strict=True):
        trainer.loss_types, trainer.loss_weights = kinds, weights
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
        parts = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        found.append((float(loss.detach()), torch.cat(parts)))
    assert found[0][0] == pytest.approx(found[1][0], rel=2e-5, abs=2e-6)
    assert float(found[1][1].norm()) > 0
    assert float((found[0][1] - found[1][1]).norm() / found[1][1].norm()) < 1e-4

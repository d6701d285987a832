"""Log-probabilities against a naive loop, against TRL, and over model families."""

import pytest
import torch

from pv_merge.data.encoding import Encoded, encode_pair
from pv_merge.data.pairs import Pair
from pv_merge.data.token_tree import packs
from pv_merge.data.tree_attention import attending_to_trees
from pv_merge.evaluation.logprobs import Scorer, plain_logps, tree_logps

from eval_tiny import subject
from models import FAMILIES, tiny
from train_tiny import pair_rows


def naive(model, sequence):
    """Return Σ log p by whole logits, one token after the other."""
    with torch.no_grad():
        table = model(torch.tensor([sequence.tokens])).logits[0].float().log_softmax(-1)
    places = range(max(sequence.start, 1), len(sequence.tokens))
    return sum(float(table[place - 1, sequence.tokens[place]]) for place in places)


SEQUENCES = [
    Encoded((1, 5, 9, 20, 21, 22, 2), 3),
    Encoded((1, 5, 9, 20, 40, 2), 3),  # shares the prompt and the first token of its answer
    Encoded((1, 5, 7, 33, 2), 3),
    Encoded((1, 5, 9, 60, 61, 62, 63, 64, 65, 2), 3),
    Encoded((70, 71, 72, 73), 1),
    Encoded((80, 81, 82), 0),  # no prompt: its first token has no prediction
]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_naive_loop(family):
    model = tiny(family)
    expected = [naive(model, sequence) for sequence in SEQUENCES]
    heard = []
    scores = Scorer(SEQUENCES).score(model, heard.append)
    assert scores == pytest.approx(expected, abs=2e-4)
    assert plain_logps(model, SEQUENCES) == pytest.approx(expected, abs=2e-4)
    assert sum(heard) == len(SEQUENCES)


def test_the_tree_is_used_where_it_holds_and_only_there():
    scorer = Scorer(SEQUENCES)
    scorer.score(tiny("Llama"))
    assert scorer._plain is False
    # A window of 4 tokens: the tree's mask would let a token see further back.
    model = tiny("Mistral", sliding_window=4)
    scorer = Scorer(SEQUENCES)
    assert scorer.score(model) == pytest.approx([naive(model, s) for s in SEQUENCES], abs=2e-4)
    assert scorer._plain is True


def test_a_model_without_logits_to_keep():
    model = tiny("Llama")

    class Old(torch.nn.Module):
        device, dtype = model.device, model.dtype

        def forward(self, input_ids=None, attention_mask=None, position_ids=None, use_cache=None):
            return model(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids
            )

    expected = [naive(model, sequence) for sequence in SEQUENCES]
    assert Scorer(SEQUENCES).score(Old()) == pytest.approx(expected, abs=2e-4)


def test_many_packs_agree_with_one():
    model = tiny("Llama")
    merged = {}
    with attending_to_trees(model):
        for pack in packs(SEQUENCES, 8):
            found = tree_logps(model, [SEQUENCES[index] for index in pack])
            merged |= dict(zip(pack, found, strict=True))
    assert [merged[i] for i in range(6)] == pytest.approx(plain_logps(model, SEQUENCES), abs=2e-4)


def test_a_model_is_left_with_the_attention_that_it_had():
    model = tiny("Llama")
    Scorer(SEQUENCES).score(model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("template", [True, False])
def test_tokens_and_values_are_those_of_trl(tmp_path, template):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    loaded = subject(tmp_path)
    rows = pair_rows(5)
    if not template:
        loaded.tokenizer.chat_template = None
        trl_rows = [{**row, "prompt": row["prompt"] + "\n\n"} for row in rows]
    else:
        trl_rows = [
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "chosen": [{"role": "assistant", "content": row["chosen"]}],
                "rejected": [{"role": "assistant", "content": row["rejected"]}],
            }
            for row in rows
        ]
    trainer = DPOTrainer(
        model=loaded.model,
        args=DPOConfig(
            str(tmp_path / "out"),
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_length=None,
            precompute_ref_log_probs=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(trl_rows),
        processing_class=loaded.tokenizer,
    )
    trainer.get_train_dataloader()
    pairs = [Pair((("user", r["prompt"]),), r["chosen"], r["rejected"]) for r in rows]
    encoded = [encode_pair(loaded.tokenizer, pair) for pair in pairs]
    sides = {"chosen": [c for c, _ in encoded], "rejected": [r for _, r in encoded]}
    for side, sequences in sides.items():
        data = trainer.train_dataset
        whole = [[*p, *c] for p, c in zip(data["prompt_ids"], data[f"{side}_ids"], strict=True)]
        assert [list(sequence.tokens) for sequence in sequences] == whole
        assert [sequence.start for sequence in sequences] == [len(p) for p in data["prompt_ids"]]
        found = Scorer(sequences).score(loaded.model)
        assert found == pytest.approx(list(data[f"ref_{side}_logps"]), abs=1e-3)

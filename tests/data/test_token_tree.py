"""Trees of tokens: what is shared, what sees what, and gradients equal to those of separate rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pv_merge.data.encoding import Encoded
from pv_merge.data.token_tree import UNSCORED, make_tree, packs
from pv_merge.data.tree_attention import attending_to_trees, tree_inputs, why_not

from models import FAMILIES, tiny

SEQUENCES = [
    Encoded((1, 5, 9, 20, 21, 22, 2), 3),
    Encoded((1, 5, 9, 20, 40, 2), 3),  # shares the prompt
    Encoded((1, 5, 7, 33, 2), 3),
    Encoded((1, 5, 9, 60, 61, 62, 63, 64, 65, 2), 3),
    Encoded((70, 71, 72, 73), 1),
    Encoded((80, 81, 82), 0),  # no prompt: its first token has no prediction
    Encoded((1, 5), 2),  # cut before its answer: nothing to score
]
OWN_ATTENTION = {"Falcon", "Falcon (new decoder)"}

encoded = st.builds(
    lambda tokens, start: Encoded(tuple(tokens), min(start, len(tokens))),
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    st.integers(0, 9),
)


def test_two_answers_share_all_of_their_prompt_but_its_last_token() -> None:
    tree = make_tree([Encoded((1, 2, 3, 4, 6), 3), Encoded((1, 2, 3, 5), 3)])
    assert tree.tokens == [1, 2, 3, 4, 3]  # the last token of an answer predicts nothing
    assert tree.labels == [UNSCORED, UNSCORED, 4, 6, 5]
    assert tree.depths == [0, 1, 2, 3, 2]
    assert tree.until == [5, 5, 4, 4, 5]
    assert tree.scored == [range(2, 4), range(4, 5)]


@given(st.lists(encoded, min_size=1, max_size=8))
def test_every_sequence_can_be_read_back_from_what_its_tokens_see(sequences: list[Encoded]) -> None:
    tree = make_tree(sequences)
    for sequence, places in zip(sequences, tree.scored, strict=True):
        assert len(places) == max(0, sequence.length)
        for step, place in enumerate(places):
            seen = [i for i in range(place + 1) if place < tree.until[i]]
            end = max(sequence.start, 1) + step
            assert [tree.tokens[i] for i in seen] == list(sequence.tokens[:end])
            assert [tree.depths[i] for i in seen] == list(range(end))
            assert tree.labels[place] == sequence.tokens[end]
    scored = sorted(place for places in tree.scored for place in places)
    assert scored == [i for i, label in enumerate(tree.labels) if label != UNSCORED]


@given(st.lists(encoded, min_size=1, max_size=12), st.integers(1, 20))
def test_packs_keep_to_their_budget_and_hold_all(sequences: list[Encoded], budget: int) -> None:
    found = packs(sequences, budget)
    assert sorted(index for pack in found for index in pack) == list(range(len(sequences)))
    for pack in found:
        assert len(pack) == 1 or len(make_tree([sequences[i] for i in pack])) <= budget


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_separate_rows(family: str) -> None:
    model = tiny(family)
    reason = why_not(model, 10)
    if family in OWN_ATTENTION:
        assert reason == "has an attention of its own"
        return
    assert reason is None
    tree = make_tree(SEQUENCES)
    places = [i for i, label in enumerate(tree.labels) if label != UNSCORED]
    labels = torch.tensor([tree.labels[i] for i in places])

    def gradients(loss: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    plain = torch.zeros(())
    for sequence in SEQUENCES:
        if sequence.length > 0:
            first = max(sequence.start, 1)
            logits = model(torch.tensor([sequence.tokens])).logits[0, first - 1 : -1]
            target = torch.tensor(sequence.tokens[first:])
            plain = plain + torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    expected = gradients(plain)
    with attending_to_trees(model):
        logits = model(**tree_inputs(tree, model.device), use_cache=False).logits[0, places]
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        found = gradients(loss)
    assert float(loss) == pytest.approx(float(plain), rel=1e-6)
    assert float((found - expected).norm() / expected.norm()) < 2e-6


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("Mistral", {"sliding_window": 9}, "sees only the last 9 tokens"),
        ("Mistral", {"sliding_window": 10}, None),
        ("Gemma 3 (text)", {"sliding_window": 9}, "sees only the last 9 tokens"),
        ("Llama", {"attn_implementation": "eager"}, "uses eager for its attention"),
    ],
)
def test_where_a_tree_does_not_hold(family: str, changes: dict, reason: str | None) -> None:
    assert why_not(tiny(family, **changes), 10) == reason


def test_a_model_with_a_state_cannot_read_a_tree() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    small = MambaConfig(vocab_size=96, hidden_size=16, num_hidden_layers=1, state_size=4)
    assert why_not(MambaForCausalLM(small), 10) == "keeps a state from token to token"


def test_a_tree_deeper_than_a_window_is_refused_by_the_attention_itself() -> None:
    model = tiny("Mistral", sliding_window=4)
    with attending_to_trees(model), pytest.raises(ValueError, match="sliding window of 4 tokens"):
        model(**tree_inputs(make_tree(SEQUENCES), model.device), use_cache=False)


def test_what_is_not_a_tree_goes_the_usual_way() -> None:
    model = tiny("Llama")
    tokens = torch.tensor([[1, 5, 9, 20], [1, 5, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    expected = model(tokens, attention_mask=mask).logits
    with attending_to_trees(model):
        assert torch.equal(model(tokens, attention_mask=mask).logits, expected)

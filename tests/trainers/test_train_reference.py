"""The store of reference log-probabilities: what it keys on, and that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pv_merge.errors import PvMergeError
from trainers.reference import ReferenceStore, Sequence_, cut, reference_columns, sequence_key


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReferenceStore]:
    store = ReferenceStore(tmp_path / "reference" / "base.sqlite", "base")
    yield store
    store.close()


ROWS = [
    {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]},
    {"prompt_ids": [1, 2], "chosen_ids": [4, 5], "rejected_ids": [6]},
]
"""Two pairs with three distinct sequences; [4, 5] is rejected in one and chosen in the other."""


class Model:
    """Gives each sequence the sum of its completion's tokens, and counts."""

    def __init__(self) -> None:
        self.batches: list[list[Sequence_]] = []

    def __call__(self, sequences: list[Sequence_]) -> list[float]:
        self.batches.append(sequences)
        return [float(sum(completion)) for _, completion in sequences]


def test_each_distinct_sequence_is_computed_once(store: ReferenceStore) -> None:
    model = Model()
    assert reference_columns(ROWS, store, 16, 2, model) == ([3.0, 9.0], [9.0, 6.0])
    assert sum(map(len, model.batches)) == 3
    assert [len(batch) for batch in model.batches] == [2, 1]
    assert model.batches[0][0] == ([1, 2], [4, 5])  # the longest first


def test_swapped_columns_compute_nothing(store: ReferenceStore) -> None:
    reference_columns(ROWS, store, 16, 2, Model())
    swapped = [
        {**row, "chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]}
        for row in ROWS
    ]
    model = Model()
    assert reference_columns(swapped, store, 16, 2, model) == ([9.0, 6.0], [3.0, 9.0])
    assert model.batches == []


def test_values_outlive_the_process_and_other_bases_do_not_see_them(tmp_path: Path) -> None:
    place = tmp_path / "base.sqlite"
    first = ReferenceStore(place, "base")
    reference_columns(ROWS, first, 16, 8, Model())
    first.close()
    again, other = ReferenceStore(place, "base"), ReferenceStore(place, "another base")
    key = sequence_key([1, 2], [3])
    assert again.get([key]) == {key: 3.0}
    assert other.get([key]) == {}
    again.close()
    other.close()


def test_a_pass_that_was_interrupted_goes_on_where_it_was(store: ReferenceStore) -> None:
    class Stops(Model):
        def __call__(self, sequences: list[Sequence_]) -> list[float]:
            if self.batches:
                raise KeyboardInterrupt
            return super().__call__(sequences)

    with pytest.raises(KeyboardInterrupt):
        reference_columns(ROWS, store, 16, 2, Stops())
    model = Model()
    reference_columns(ROWS, store, 16, 2, model)
    assert sum(map(len, model.batches)) == 1


def test_the_key_knows_where_the_completion_starts() -> None:
    assert sequence_key([1], [2, 3]) != sequence_key([1, 2], [3])
    assert sequence_key([1], [2, 3]) == sequence_key([1], [2, 3])


def test_cutting() -> None:
    assert cut(([1, 2, 3], [4, 5]), None) == ([1, 2, 3], [4, 5])
    assert cut(([1, 2, 3], [4, 5]), 4) == ([1, 2, 3], [4])
    assert cut(([1, 2, 3], [4, 5]), 2) == ([1, 2], [])
    assert cut(([1, 2, 3], [4, 5]), 4, keep_end=True) == ([2, 3], [4, 5])
    assert cut(([1, 2, 3], [4, 5]), 1, keep_end=True) == ([], [5])
    assert cut(([1, 2, 3], [4, 5]), 9, keep_end=True) == ([1, 2, 3], [4, 5])


def test_sequences_that_differ_only_beyond_the_cut_are_one(store: ReferenceStore) -> None:
    row = {"prompt_ids": [1], "chosen_ids": [2, 3, 4], "rejected_ids": [2, 3, 5]}
    model = Model()
    assert reference_columns([row], store, 3, 8, model) == ([5.0], [5.0])
    assert sum(map(len, model.batches)) == 1


def test_a_store_that_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    place = tmp_path / "base.sqlite"
    place.write_text("this is no database, and long enough to be sure of it" * 20)
    with pytest.raises(PvMergeError, match="delete it, or set PV_MERGE_CACHE to another folder"):
        ReferenceStore(place, "base")

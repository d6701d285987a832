"""The adapter of a mix: the exact concatenation of its vectors, eta in B."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pv_merge.arithmetic.dtypes import TORCH_DTYPES
from pv_merge.arithmetic.low_rank import LowRank, summed
from pv_merge.artifacts.adapter import weight_name
from pv_merge.artifacts.adapter_folder import write_adapter

if TYPE_CHECKING:
    from pv_merge.integrations.mixes.name import Terms
    from pv_merge.integrations.mixes.shelf import Shelf


def mixed(shelf: Shelf, terms: Terms) -> dict[str, LowRank]:
    """Return Σ η·φ by weight, of the summed rank; with no term left, one module that stays put."""
    vectors = [(float(eta), shelf.adapters[name].changes) for name, eta in terms if eta]
    return summed(vectors) or _standing_still(shelf)


def write_mix(shelf: Shelf, terms: Terms, folder: Path) -> None:
    """Write the adapter of a mix into an existing ``folder``, as PEFT and vLLM read it."""
    changes = mixed(shelf, terms)
    leaves = {name.removesuffix(".weight").rpartition(".")[2] for name in changes}
    first = next(iter(shelf.adapters.values()))
    write_adapter(
        folder,
        changes,
        first.base_model,
        sorted(leaves),
        transposed=first.transposed,
        dtype=TORCH_DTYPES[shelf.dtype],
    )


def expected_bytes(shelf: Shelf, terms: Terms) -> int:
    """Return about how many bytes the adapter of a mix takes, a little more rather than less."""
    total = 0
    for name, eta in terms:
        changes = shelf.adapters[name].modules.values() if eta else ()
        widest = max((change.a.shape[0] for change in changes), default=0)
        total += sum(widest * (c.a.shape[1] + c.b.shape[0]) for c in changes)
    return total * TORCH_DTYPES[shelf.dtype].itemsize + 200_000


def _standing_still(shelf: Shelf) -> dict[str, LowRank]:
    """Return a change of rank 1 that is zero: an engine takes no adapter without weights."""
    modules = next(iter(shelf.adapters.values())).modules
    name = min(modules, key=lambda name: (modules[name].embedding, name))
    change = modules[name]
    nothing = LowRank(
        change.a[:1] * 0, change.b[:, :1] * 0, 1.0, change.transposed, change.embedding
    )
    return {weight_name(name): nothing}

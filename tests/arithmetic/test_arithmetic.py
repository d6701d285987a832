"""The arithmetic: by hand, against mergekit's own kernels, and for the properties it must have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.merge_methods import merge_tensors
from mergekit.merge_methods.generalized_task_arithmetic import (
    ConsensusMethod,
    GeneralizedTaskArithmeticMerge,
)
from mergekit.sparsify import magnitude
from torch import Tensor

from pv_merge.arithmetic import blocks
from pv_merge.arithmetic.blocks import merge_in_torch
from pv_merge.arithmetic.low_rank import low_rank_dot, truncated
from pv_merge.arithmetic.measures import cosine, norm, square_sum
from pv_merge.arithmetic.merge import merge
from pv_merge.arithmetic.preference import (
    SignConsensus,
    capped_eta,
    consensus,
    keep_largest,
    orthogonalize,
    preference_vector,
)
from pv_merge.arithmetic.rounding import BLOCK
from pv_merge.arithmetic.terms import Controls, PreferenceInputs


def t(*values: float) -> Tensor:
    return torch.tensor(values)


def vector(eta: float, phi: Tensor, name: str = "helpful", **said: Any) -> PreferenceInputs:
    return PreferenceInputs(name, eta, vectors=(phi,), **said)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dyadic(seed: int, *shape: int) -> Tensor:
    """Multiples of 1/64 below 1, whose sums and products by simple factors are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-63, 64, shape, generator=generator) / 64


seeds = st.integers(0, 10**6)
etas = st.floats(-4, 4, allow_nan=False).map(lambda eta: round(eta * 8) / 8)


# ---- Eq. 4 and 5 ---------------------------------------------------------------------------------


def test_preference_vector_by_hand() -> None:
    base, positive, negative = t(1.0), t(3.0), t(2.0)
    phi = preference_vector(base, [positive], [negative])
    assert phi.tolist() == [1.0]
    assert merge(base, [vector(0.5, phi)]).tolist() == [1.5]


def test_preference_vector_adds_all_inputs() -> None:
    # (3 - 1) + (4 - 1) - (2 - 1) - (0 - 1) + 10 = 15
    phi = preference_vector(t(1.0), [t(3.0), t(4.0)], [t(2.0), t(0.0)], [t(10.0)])
    assert phi.tolist() == [15.0]


def test_a_negative_policy_alone_points_the_other_way() -> None:
    assert preference_vector(t(1.0), (), [t(3.0)]).tolist() == [-2.0]


def test_no_inputs_give_zero() -> None:
    assert preference_vector(t(1.0, 2.0)).tolist() == [0.0, 0.0]


def test_subtracts_before_adding() -> None:
    # 2^24 + 2 is a float32 number, but twice it, less twice 2^24, is only exact by differences.
    large = 2.0**24
    phi = preference_vector(t(large), [t(large + 2), t(large + 2)], [])
    assert phi.tolist() == [4.0]


def test_bfloat16_policies_are_subtracted_in_float32() -> None:
    base = t(1.0).bfloat16()
    phi = preference_vector(base, [t(1.0078125).bfloat16()], [t(256.0).bfloat16()])
    assert phi.dtype is torch.float32
    assert phi.tolist() == [0.0078125 - 255.0]


def test_inputs_are_left_alone() -> None:
    base, policy, phi = t(1.0), t(3.0), t(5.0)
    preference_vector(base, [policy], [policy], [phi])
    merge(base, [vector(0.5, phi), PreferenceInputs("b", -1.0, (policy,), (policy,))])
    controls = Controls(sign_consensus="sum", interference="orthogonal")
    merge(base, [vector(0.5, phi, density=0.5), vector(1, phi, "b")], controls)
    assert (base.item(), policy.item(), phi.item()) == (1.0, 3.0, 5.0)


def test_memory_to_work_in_changes_nothing() -> None:
    base, inputs = noise(0, 99), ([noise(1, 99).half()], [noise(2, 99)], [noise(3, 99).bfloat16()])
    out, spare = noise(4, 99), noise(5, 99)
    phi = preference_vector(base, *inputs, out=out, spare=spare)
    assert phi is out
    assert torch.equal(phi, preference_vector(base, *inputs))
    assert preference_vector(base, out=out, spare=spare).count_nonzero() == 0


def test_two_vectors_by_hand() -> None:
    first, second = vector(0.5, t(2.0, 0.0)), vector(-1.0, t(0.0, 3.0), "b")
    assert merge(t(1.0, 2.0), [first, second]).tolist() == [2.0, -1.0]
    out = torch.empty(2)
    assert merge(t(1.0, 2.0), [first, second], out=out) is out
    assert out.tolist() == [2.0, -1.0]


def test_merge_by_hand() -> None:
    inputs = PreferenceInputs("helpful", 0.5, (t(3.0),), (t(2.0),))
    other = PreferenceInputs("harmless", -1.0, (t(2.0),), (t(4.0),), (t(1.0),))
    # 1 + 0.5 * (3 - 2) - 1 * ((2 - 4) + 1) = 2.5
    assert merge(t(1.0), [inputs]).tolist() == [1.5]
    assert merge(t(1.0), [inputs, other]).tolist() == [2.5]


@given(seeds, etas, etas)
def test_merge_is_linear_in_eta(seed: int, first: float, second: float) -> None:
    base, phi = dyadic(seed, 5, 7), dyadic(seed + 1, 5, 7)
    both = merge(base, [vector(first + second, phi)])
    one_by_one = merge(merge(base, [vector(first, phi)]), [vector(second, phi)])
    assert torch.equal(both, one_by_one)
    assert torch.equal(both, base + (first + second) * phi)


@given(seeds, st.permutations([0.7, -0.3, 1.9]))
def test_order_of_preferences_does_not_matter(seed: int, order: list[float]) -> None:
    base = noise(seed, 33)
    terms = {eta: noise(seed + number, 33) for number, eta in enumerate((0.7, -0.3, 1.9))}
    straight = merge(base, [vector(eta, phi, str(eta)) for eta, phi in terms.items()])
    shuffled = merge(base, [vector(eta, terms[eta], str(eta)) for eta in order])
    torch.testing.assert_close(straight, shuffled, rtol=0, atol=4 * 2**-23 * 10)


@given(seeds, st.sampled_from(["sum", "count"]))
def test_consensus_does_not_depend_on_order(seed: int, rule: SignConsensus) -> None:
    steps = [dyadic(seed + number, 64) for number in range(3)]
    straight = consensus([step.clone() for step in steps], rule)
    assert torch.equal(straight, consensus([step.clone() for step in steps[::-1]], rule))


# ---- what must not move --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [vector(0.0, t(1.0, 2.0, 3.0))],
        [vector(0.5, t(0.0, 0.0, 0.0))],
        [vector(0.5, t(0.0, -0.0, 0.0), density=0.5)],
        [vector(0.0, t(float("nan"), 1.0, 1.0), max_relative_norm=0.1)],
    ],
    ids=["no vectors", "eta 0", "phi 0", "phi 0 and density", "eta 0 and a cap"],
)
def test_keeps_exact_bits(dtype: torch.dtype, inputs: list[PreferenceInputs]) -> None:
    base = torch.tensor([-0.0, 1 / 3, 65000.0], dtype=dtype)
    merged = merge(base, inputs, dtype=dtype, name="w")
    assert merged.dtype is dtype
    assert merged.tolist() == base.tolist()
    assert torch.signbit(merged).tolist() == [True, False, False]


def test_policies_equal_to_the_base_keep_exact_bits() -> None:
    base = t(-0.0, 1.0).bfloat16()
    merged = merge(base, [PreferenceInputs("p", 2.0, (base,), (base,))], dtype=torch.bfloat16)
    assert torch.equal(merged.view(torch.int16), base.view(torch.int16))


def test_empty_and_scalar_tensors() -> None:
    assert merge(torch.zeros(0, 4), [vector(1.0, torch.zeros(0, 4))]).shape == (0, 4)
    scalar = merge(torch.tensor(1.0), [vector(0.5, torch.tensor(1.0), density=0.5)])
    assert scalar.shape == () and scalar.item() == 1.5


def test_tensors_with_strides() -> None:
    base, phi = noise(0, 6, 4), noise(1, 6, 4)
    straight = merge(base, [vector(0.5, phi, density=0.5)], dtype=torch.bfloat16, name="w")
    turned = merge(
        base.T.contiguous().T,
        [vector(0.5, phi.T.contiguous().T, density=0.5)],
        dtype=torch.bfloat16,
        name="w",
    )
    assert torch.equal(straight, turned)


CONTROLS: dict[str, tuple[Controls, dict[str, Any]]] = {
    "plain": (Controls(), {}),
    "consensus": (Controls(sign_consensus="sum"), {}),
    "orthogonal": (Controls(interference="orthogonal"), {}),
    "density": (Controls(sign_consensus="count"), {"density": 0.3}),
    "cap": (Controls(), {"max_relative_norm": 0.1}),
    "everything": (
        Controls(sign_consensus="sum", interference="orthogonal", seed=3),
        {"density": 0.4, "max_relative_norm": 0.2},
    ),
}


@pytest.mark.parametrize("eta", [0.5, -0.5])
@pytest.mark.parametrize("block", [1, 3, 1000])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_negative_zero_that_nothing_moves_stays(
    eta: float,
    block: int,
    stored: torch.dtype,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "STEP", block)
    base = t(-0.0, 0.0, 1.0, -0.0, -0.0, 0.0).to(stored)
    policy = t(-0.0, 0.0, 1.0, 2.0, -2.0, -0.0).to(stored)
    result = merge_in_torch(base, [PreferenceInputs("a", eta, (policy,))], dtype=dtype)
    kernels = merge(base, [PreferenceInputs("a", eta, (policy,))], dtype=dtype)
    assert kernels.tolist() == result.tolist()
    assert kernels.signbit().tolist() == result.signbit().tolist()
    assert result.tolist() == [0.0, 0.0, 1.0, 2 * eta, -2 * eta, 0.0]
    assert result.signbit().tolist() == [True, False, False, eta < 0, eta > 0, False]


@pytest.mark.parametrize("case", CONTROLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [1, 7, 100, 1000])
def test_block_size_does_not_show(
    case: str, dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls, said = CONTROLS[case]
    base, first, second = (noise(seed, 10, 37) for seed in range(3))
    inputs = [vector(0.5, first, **said), vector(-0.25, second, "harmless", **said)]
    whole = merge(base, inputs, controls, dtype=dtype, name="w")
    monkeypatch.setattr(blocks, "STEP", block)
    assert torch.equal(whole, merge_in_torch(base, inputs, controls, dtype=dtype, name="w"))


@pytest.mark.parametrize("case", CONTROLS)
def test_thread_count_does_not_show(case: str) -> None:
    controls, said = CONTROLS[case]
    base, first, second = (noise(seed, 300, 1111) for seed in range(3))  # more than one block
    inputs = [vector(0.5, first, **said), vector(-0.25, second, "harmless", **said)]
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(merge(base, inputs, controls, dtype=torch.bfloat16, name="w"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_controls_by_hand_in_their_order() -> None:
    # density keeps [4, 0, 3, 0]; the second vector loses its projection on it, 4/25 of it; then
    # the cap: |eta phi| is 5 and 2, and 1.0 times |base| is 2.
    base = t(1.0, 1.0, 1.0, 1.0)
    first = vector(1.0, t(4.0, 1.0, 3.0, -2.0), "a", density=0.5, max_relative_norm=1.0)
    second = vector(1.0, t(1.0, 0.0, 0.0, 2.0), "b")
    phi = t(4.0, 0.0, 3.0, 0.0)
    rest = t(1.0, 0.0, 0.0, 2.0) - 4 / 25 * phi
    merged = merge(base, [first, second], Controls(interference="orthogonal"))
    torch.testing.assert_close(merged, base + 0.4 * phi + rest)


# ---- density -------------------------------------------------------------------------------------


def test_keep_largest_by_hand() -> None:
    assert keep_largest(t(1.0, -5.0, 3.0, 2.0), 0.5).tolist() == [0.0, -5.0, 3.0, 0.0]


def test_among_equals_the_first_stay() -> None:
    assert keep_largest(t(2.0, -2.0, 2.0, 2.0, 1.0), 0.6).tolist() == [2.0, -2.0, 2.0, 0.0, 0.0]
    assert keep_largest(t(1.0, 2.0, -1.0, 1.0), 0.5).tolist() == [1.0, 2.0, 0.0, 0.0]
    assert keep_largest(torch.zeros(4), 0.5).tolist() == [0.0] * 4


def test_density_at_its_ends() -> None:
    phi = t(3.0, 1.0, 2.0)
    assert keep_largest(phi, 1.0).tolist() == [3.0, 1.0, 2.0]
    assert keep_largest(phi, 0.0).tolist() == [0.0, 0.0, 0.0]
    assert keep_largest(phi, 1e-9).tolist() == [3.0, 0.0, 0.0]  # at least one, as in mergekit
    assert keep_largest(torch.zeros(0), 0.5).numel() == 0


@given(seeds, st.integers(1, 80), st.floats(0.001, 0.999))
def test_density_keeps_exactly_k(seed: int, size: int, density: float) -> None:
    # A coarse grid without zero, so that there are many ties.
    generator = torch.Generator().manual_seed(seed)
    phi = torch.randint(1, 6, (size,), generator=generator).float()
    kept = keep_largest(phi, density)
    assert int((kept != 0).sum()) == max(1, int(density * size))
    assert float(kept[kept != 0].min()) >= float(phi[kept == 0].max() if (kept == 0).any() else 0)


@given(seeds, st.floats(0.001, 0.999))
def test_density_equals_mergekit_where_there_are_no_ties(seed: int, density: float) -> None:
    phi = noise(seed, 9, 11)
    assert torch.equal(keep_largest(phi, density), magnitude(phi, density))


# ---- the cap -------------------------------------------------------------------------------------


def test_capped_eta_by_hand() -> None:
    base, phi = t(3.0, 4.0), t(0.0, 2.0)  # norms 5 and 2
    assert capped_eta(1.0, phi, base, None) == 1.0
    assert capped_eta(1.0, phi, base, 0.5) == 1.0  # 2 <= 2.5
    assert capped_eta(2.0, phi, base, 0.5) == 1.25  # 4 > 2.5
    assert capped_eta(-2.0, phi, base, 0.5) == -1.25
    assert capped_eta(2.0, phi, torch.zeros(2), 0.5) == 0.0
    assert capped_eta(2.0, torch.zeros(2), torch.zeros(2), 0.5) == 2.0


@given(seeds, etas, st.floats(0.001, 2))
def test_the_cap_holds(seed: int, eta: float, limit: float) -> None:
    base, phi = noise(seed, 20, 20), noise(seed + 1, 20, 20)
    merged = merge(base.double(), [vector(eta, phi, max_relative_norm=limit)], dtype=torch.float64)
    step = float((merged - base.double()).norm())
    allowed = limit * float(base.double().norm())
    # The merged weight is a float32 number, so it cannot be nearer than that.
    assert step <= allowed * (1 + 1e-6) + 2**-23 * float(base.norm())
    wanted = abs(eta) * float(phi.norm())
    if wanted > allowed * 1.001:
        assert step == pytest.approx(allowed, rel=1e-4)


# ---- interference --------------------------------------------------------------------------------


def test_orthogonalize_by_hand() -> None:
    first, second = orthogonalize([t(2.0, 0.0), t(3.0, 4.0)])
    assert first.tolist() == [2.0, 0.0]
    assert second.tolist() == [0.0, 4.0]


def test_orthogonalize_passes_over_zeros() -> None:
    zero, second = orthogonalize([torch.zeros(2), t(3.0, 4.0)])
    assert zero.tolist() == [0.0, 0.0]
    assert second.tolist() == [3.0, 4.0]


@given(seeds)
def test_orthogonal_vectors_have_no_projection_on_each_other(seed: int) -> None:
    phis = [noise(seed + number, 50) for number in range(3)]
    done = orthogonalize(phis)
    assert torch.equal(done[0], phis[0])
    for right in range(3):
        for left in range(right):
            assert abs(cosine(done[left], done[right])) < 1e-6
    # They span the same space: the last one is a combination of the three originals.
    matrix = torch.stack(phis).double()
    solution = torch.linalg.lstsq(matrix.T, done[2].double()[:, None]).solution
    torch.testing.assert_close((matrix.T @ solution)[:, 0], done[2].double(), rtol=0, atol=1e-5)


# ---- sign consensus ------------------------------------------------------------------------------


def test_consensus_by_hand() -> None:
    #              agree  sum is −  count is −  tie of both  one is zero
    first = t(1.0, 1.0, 5.0, 1.0, 0.0)
    second = t(2.0, -3.0, -1.0, -1.0, -2.0)
    third = t(3.0, 1.0, -1.0, 0.0, 0.0)
    steps = [first, second, third]
    assert consensus([s.clone() for s in steps], "none").tolist() == [6.0, -1.0, 3.0, 0.0, -2.0]
    assert consensus([s.clone() for s in steps], "sum").tolist() == [6.0, -3.0, 5.0, 1.0, -2.0]
    assert consensus([s.clone() for s in steps], "count").tolist() == [6.0, 2.0, -2.0, 1.0, -2.0]


@pytest.mark.parametrize("rule", ["none", "sum", "count"])
def test_consensus_of_one_is_itself(rule: SignConsensus) -> None:
    assert consensus([t(1.0, -2.0)], rule).tolist() == [1.0, -2.0]


def _with_mergekit(base: Tensor, policies: list[Tensor], weights: list[float], rule: str) -> Tensor:
    method: Any = "ties"
    if rule == "count":  # mergekit has it, but names no method that uses it
        method = GeneralizedTaskArithmeticMerge(
            consensus_method=ConsensusMethod.count,
            sparsification_method=None,
            default_normalize=False,
            default_rescale=False,
            method_name="ties_count",
            method_pretty_name=None,
            method_reference_url=None,
        )
    merged: Tensor = merge_tensors(
        [base, *policies],
        method,
        parameters={"weight": weights, "density": 1.0, "normalize": False},
        base_index=0,
    )
    return merged


@given(seeds, st.lists(etas, min_size=2, max_size=3), st.sampled_from(["sum", "count"]))
def test_consensus_equals_ties(seed: int, weights: list[float], rule: SignConsensus) -> None:
    # One positive policy a preference: there an election over preferences is one over policies.
    base = dyadic(seed, 40)
    policies = [dyadic(seed + 1 + number, 40) for number in range(len(weights))]
    inputs = [
        PreferenceInputs(str(number), eta, (policy,))
        for number, (eta, policy) in enumerate(zip(weights, policies, strict=True))
    ]
    ours = merge(base, inputs, Controls(sign_consensus=rule))
    # A vote of a policy with weight 0 counts 0 in mergekit's sums too.
    assert torch.equal(ours, _with_mergekit(base, policies, weights, rule))


def test_policies_of_one_preference_vote_together() -> None:
    # +3 and −2 (its two policies' +1 and −3) elect +; over policies it would be +3, +1 against −3.
    base = t(0.0)
    inputs = [
        PreferenceInputs("a", 1.0, (t(3.0),)),
        PreferenceInputs("b", 1.0, (t(1.0),), (t(3.0),)),
    ]
    assert merge(base, inputs, Controls(sign_consensus="sum")).tolist() == [3.0]


# ---- norms and low rank --------------------------------------------------------------------------


def test_norm_and_cosine_by_hand() -> None:
    assert norm(t(3.0, 4.0)) == 5.0
    assert square_sum(t(1.0, 2.0), t(3.0, 4.0)) == 11.0
    assert cosine(t(1.0, 0.0), t(-2.0, 0.0)) == -1.0
    assert cosine(t(1.0, 0.0), t(0.0, 0.0)) == 0.0


def test_square_sum_is_accurate_over_blocks() -> None:
    tensor = noise(0, BLOCK + 777)
    assert square_sum(tensor) == pytest.approx(float((tensor.double() ** 2).sum()), rel=1e-12)


@given(seeds)
def test_low_rank_dot_against_dense(seed: int) -> None:
    a1, b1 = noise(seed, 3, 11).double(), noise(seed + 1, 7, 3).double()
    a2, b2 = noise(seed + 2, 2, 11).double(), noise(seed + 3, 7, 2).double()
    dense = float(((b1 @ a1) * (b2 @ a2)).sum())
    assert low_rank_dot(a1, b1, a2, b2) == pytest.approx(dense, rel=1e-9, abs=1e-9)


def test_truncated_by_hand() -> None:
    # Singular values 3, 2 and 1: squares 9, 4 and 1 of 14.
    phi = torch.diag(t(1.0, 3.0, 2.0))
    for rank, kept in ((1, [0, 3, 0]), (2, [0, 3, 2]), (3, [1, 3, 2]), (9, [1, 3, 2])):
        a, b = truncated(phi, rank, None)
        assert a.shape[0] == b.shape[1] == min(rank, 3)
        torch.testing.assert_close(b @ a, torch.diag(torch.tensor(kept).float()))
    for energy, rank in ((0.5, 1), (9 / 14, 1), (0.65, 2), (13 / 14, 2), (0.95, 3), (1.0, 3)):
        assert truncated(phi, None, energy)[0].shape[0] == rank, energy


@given(seeds, st.integers(1, 6))
def test_truncated_error_is_what_the_singular_values_say(seed: int, rank: int) -> None:
    phi = noise(seed, 6, 9)
    a, b = truncated(phi, rank, None)
    lost = float((phi - b @ a).norm())
    tail = float(torch.linalg.svdvals(phi.double())[rank:].norm())
    assert lost == pytest.approx(tail, abs=1e-5)


def test_truncated_zero_matrix() -> None:
    a, b = truncated(torch.zeros(3, 4), None, 0.9)
    assert a.shape == (1, 4) and b.shape == (3, 1)
    assert not (b @ a).any()

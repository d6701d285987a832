"""The merge method ``preference_vector``, as mergekit sees it.

Importing this module registers the method with mergekit. The signature of ``preference_vector``
below is the schema of the YAML: mergekit reads its parameters from there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import torch
from mergekit.common import ModelReference
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import (
    BasePolicy,
    BatchOptions,
    FunctionalGroupMergeMethod,
    InputContract,
    PerNonBase,
    TensorGroup,
)
from mergekit.merge_methods.easy_define import merge_method
from pydantic import Field, ValidationError, WrapValidator

from pv_merge.arithmetic.blocks import Controls, PreferenceInputs, merge
from pv_merge.arithmetic.dtypes import NARROW
from pv_merge.arithmetic.preference import Interference, SignConsensus
from pv_merge.arithmetic.rounding import RoundingMode
from pv_merge.artifacts.manifest import said_in
from pv_merge.artifacts.protection import negative_problem
from pv_merge.artifacts.reference import parse_reference
from pv_merge.errors import PvMergeError
from pv_merge.recipe.grouping import InputSettings, group_inputs

NAME = "preference_vector"


def _one_line(name: str, expected: str) -> WrapValidator:
    """Say in one line what pydantic would say in several, and with a traceback."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PvMergeError(f"parameters: {name} must be {expected}, got {value!r}") from None

    return WrapValidator(check)


def _choice(name: str, literal: Any) -> WrapValidator:
    return _one_line(name, f"one of {', '.join(get_args(literal))}")


Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NarrowDtype = Literal["bfloat16", "float16"]


def preference_vector(
    group: TensorGroup,
    preference: PerNonBase[str | None] = None,
    polarity: PerNonBase[str | None] = None,
    eta: PerNonBase[Annotated[Finite | None, _one_line("eta", "a finite number")]] = None,
    density: PerNonBase[Annotated[Fraction | None, _one_line("density", "in (0, 1]")]] = None,
    max_relative_norm: PerNonBase[
        Annotated[Positive | None, _one_line("max_relative_norm", "a positive number")]
    ] = None,
    sign_consensus: Annotated[SignConsensus, _choice("sign_consensus", SignConsensus)] = "none",
    interference: Annotated[Interference, _choice("interference", Interference)] = "none",
    round_to: Annotated[NarrowDtype | None, _choice("round_to", NarrowDtype)] = None,
    rounding: Annotated[RoundingMode, _choice("rounding", RoundingMode)] = "stochastic",
    seed: Annotated[int, _one_line("seed", "a whole number")] = 0,
    allow_protected_negative: bool = False,
) -> torch.Tensor:
    """Return base + Σ η·φ of one tensor (Eq. 4 and 5), in ``round_to`` or the promoted dtype."""
    base = group.base
    assert base is not None  # the contract requires it
    entries = group.non_base
    settings = [
        InputSettings(
            str(entry.id),
            preference[entry.id],
            polarity[entry.id],
            eta[entry.id],
            density[entry.id],
            max_relative_norm[entry.id],
        )
        for entry in entries
    ]
    preferences = group_inputs(settings, [entry.tensor for entry in entries])
    if not allow_protected_negative:
        _refuse_negative(preferences, settings)
    dtype = base.tensor.dtype
    for entry in entries:
        dtype = torch.promote_types(dtype, entry.tensor.dtype)
    if round_to is not None:
        dtype = NARROW[round_to]
    controls = Controls(sign_consensus, interference, rounding, seed)
    return merge(base.tensor, preferences, controls, dtype=dtype, name=group.metadata.name or "")


def _refuse_negative(
    preferences: Sequence[PreferenceInputs], settings: Sequence[InputSettings]
) -> None:
    for item in preferences:
        if item.eta < 0:
            folders = [parse_reference(s.model).name for s in settings if s.preference == item.name]
            problem = negative_problem(item.name, (said_in(f, item.name) for f in folders))
            if problem:
                raise PvMergeError(problem)


class PreferenceVectorMethod(FunctionalGroupMergeMethod):
    """Hands the kernel every input in its stored dtype, and checks the inputs' headers first."""

    def validate_inputs(
        self,
        input_ids: Sequence[Hashable],
        base_id: Hashable | None = None,
        *,
        group_name: str | None = None,
    ) -> None:
        """Check the contract and, while mergekit plans, that all shapes agree.

        mergekit calls this with the name of an output slice before it has written anything.
        """
        super().validate_inputs(input_ids, base_id, group_name=group_name)
        if group_name and ".slices[" in group_name and isinstance(base_id, ModelReference):
            from pv_merge.artifacts.fit import compare_headers

            folders = [
                item.model.path
                for item in input_ids
                if isinstance(item, ModelReference) and item.lora is None and item != base_id
            ]
            if base_id.lora is None:
                compare_headers(base_id.model.path, folders)

    def _execute(
        self,
        groups: Sequence[TensorGroup],
        parameters: list[dict[str, Any]],
        options: BatchOptions,
        *,
        input_dtypes: Sequence[torch.dtype | None],
        out_dtype: torch.dtype | None = None,
    ) -> tuple[torch.Tensor, ...]:
        # mergekit's own loop converts each input whole to the promoted dtype before it calls the
        # kernel. The kernel converts chunks as it goes, so that copy would be pure loss.
        results = []
        for group, arguments in zip(groups, parameters, strict=True):
            result = self.merge_group(group, **arguments)
            results.append(result if out_dtype is None else result.to(out_dtype))
        return tuple(results)


METHOD = PreferenceVectorMethod(
    merge_method(
        preference_vector,
        name=NAME,
        pretty_name="Preference Vectors",
        reference_url="https://arxiv.org/abs/2504.20106",
        contract=InputContract(base=BasePolicy.REQUIRED, min_non_base=1),
    ).spec,
    preference_vector,
)


def _known() -> Mapping[str, Any]:
    return {method.spec.name: method for method in registry.registered_methods()}


if NAME not in _known():
    registry.register(METHOD)

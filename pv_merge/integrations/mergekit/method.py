"""The merge method ``preference_vector``, as mergekit sees it.

Importing this module registers the method with mergekit. The schema of the YAML is made from the
record of controls (``pv_merge.recipe.controls``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from mergekit.common import ModelReference
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import (
    BasePolicy,
    BatchOptions,
    FunctionalGroupMergeMethod,
    InputContract,
    MergeMethodSpec,
    ParameterScope,
    ParameterSpec,
    PerInputValues,
    TensorGroup,
)
from pydantic import WrapValidator
from torch import Tensor

from pv_merge.arithmetic.dtypes import NARROW
from pv_merge.arithmetic.merge import merge
from pv_merge.arithmetic.terms import Controls, PreferenceInputs
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import compare_headers, unmergeable
from pv_merge.artifacts.manifest import said_in
from pv_merge.artifacts.protection import negative_problem
from pv_merge.artifacts.reference import parse_reference
from pv_merge.errors import PvMergeError, Topic, raise_all
from pv_merge.integrations.mergekit.related import origin_inputs, refuse_other_bases
from pv_merge.recipe.control import Control, Scope
from pv_merge.recipe.controls import controls
from pv_merge.recipe.grouping import InputSettings, group_inputs

NAME = "preference_vector"


def preference_vector(
    group: TensorGroup,
    *,
    preference: PerInputValues[str | None],
    polarity: PerInputValues[str | None],
    base: PerInputValues[str | None],
    **said: Any,
) -> torch.Tensor:
    """Return base + Σ η·φ of one tensor (Eq. 4 and 5), in ``round_to`` or the promoted dtype.

    ``said`` has a value for each control on record: of preferences by input, of the merge as it is.
    """
    own = group.base
    assert own is not None  # the contract requires it
    entries = group.non_base
    keys = controls(Scope.PREFERENCE)
    settings = [
        InputSettings(
            str(entry.id),
            preference[entry.id],
            polarity[entry.id],
            {key: said[key][entry.id] for key in keys},
        )
        for entry in entries
    ]
    tensors = [entry.tensor for entry in entries]
    name = group.metadata.name or ""
    made_from = tuple((str(entry.id), base[entry.id] or "") for entry in entries)
    if said["allow_related_base"]:
        for item in origin_inputs(own.id, made_from, settings):
            settings.append(item.settings)
            tensors.append(item.tensor(name, own.tensor))
    else:
        refuse_other_bases(own.id, made_from)
    preferences = group_inputs(settings, tensors)
    if not said["allow_protected_negative"]:
        _refuse_negative(preferences, settings)
    dtype = own.tensor.dtype
    for entry in entries:
        dtype = torch.promote_types(dtype, entry.tensor.dtype)
    if said["round_to"] is not None:
        dtype = NARROW[said["round_to"]]
    chosen = Controls(
        said["sign_consensus"],
        said["interference"],
        said["rounding"],
        said["seed"],
        said["not_finite"],
    )
    return merge(own.tensor, preferences, chosen, dtype=dtype, name=name)


def _refuse_negative(
    preferences: Sequence[PreferenceInputs[Tensor]], settings: Sequence[InputSettings]
) -> None:
    for item in preferences:
        if item.eta < 0:
            folders = [parse_reference(s.model).name for s in settings if s.preference == item.name]
            problem = negative_problem(item.name, (said_in(f, item.name) for f in folders))
            if problem:
                raise PvMergeError(problem, Topic.PROTECTED)


def _parameters() -> Iterator[ParameterSpec]:
    """Yield the schema of the YAML, from the record of controls."""
    for name in ("preference", "polarity", "base"):
        yield ParameterSpec(
            name=name, value_type=str | None, scope=ParameterScope.NON_BASE, default=None
        )
    for name, control in controls().items():
        per_input = control.scope is Scope.PREFERENCE
        yield ParameterSpec(
            name=name,
            value_type=_one_line(control),
            scope=ParameterScope.NON_BASE if per_input else ParameterScope.SHARED,
            default=None if per_input else control.default,
        )


def _one_line(control: Control) -> Any:
    """Return the type of a control's value, which says in one line what pydantic would in several."""

    def check(value: object, handler: Callable[[object], object]) -> object:
        try:
            return control.one(value)
        except PvMergeError as error:
            raise PvMergeError(f"parameters: {error.message}", error.topic) from None

    return Annotated[object, WrapValidator(check)]


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
            inputs = [
                item for item in input_ids if isinstance(item, ModelReference) and item != base_id
            ]
            if base_id.lora is None and Path(base_id.model.path).is_dir():
                raise_all(unmergeable(Checkpoint(base_id.model.path)), Topic.DTYPE)
                compare_headers(
                    base_id.model.path, [item.model.path for item in inputs if item.lora is None]
                )

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
    MergeMethodSpec(
        name=NAME,
        pretty_name="Preference Vectors",
        reference_url="https://arxiv.org/abs/2504.20106",
        contract=InputContract(base=BasePolicy.REQUIRED, min_non_base=1),
        parameters=tuple(_parameters()),
    ),
    preference_vector,
)


def _known() -> Mapping[str, Any]:
    return {method.spec.name: method for method in registry.registered_methods()}


if NAME not in _known():
    registry.register(METHOD)

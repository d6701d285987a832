"""One pass over a recipe's inputs, for any number of outputs.

Blocks of a weight are read into memory that is used again, worked on, and written at their place.
Each worker thread does all three for its own blocks, with one thread of torch: reading, arithmetic
and writing overlap without any queue between them. What comes out does not depend on their number,
since every block is worked on as in ``pv_merge.arithmetic.blocks.merge``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pv_merge.arithmetic.blocks import (
    STEP,
    Record,
    merge_block,
    needs_whole_tensors,
    whole_tensor_steps,
)
from pv_merge.arithmetic.dtypes import NARROW, TORCH_DTYPES
from pv_merge.arithmetic.preference import preference_vector
from pv_merge.arithmetic.rounding import BLOCK, Rounder
from pv_merge.arithmetic.terms import PreferenceInputs
from pv_merge.artifacts.byte_ranges import Files, Memory, Range, ranges, read_part
from pv_merge.artifacts.tensor_files import OutputFiles
from pv_merge.errors import PvMergeError
from pv_merge.merging.loss import LossReport
from pv_merge.recipe.opened import OpenRecipe, Stored

JOB_STEPS = 8
"""Blocks of ``STEP`` elements that a worker takes at a time."""

DEVICE_STEP = 32 * BLOCK
"""Elements that go to an accelerator at a time."""

Group = list[PreferenceInputs[Stored | Tensor]]
"""Every preference's inputs for one weight, most of them still to be read."""

WHOLE_TOGETHER = 8_000_000
"""Elements of a weight up to which several may be whole in memory at a time, one a worker."""


@dataclass(frozen=True)
class Target:
    """One output of the pass."""

    etas: Mapping[str, float]
    """Etas that replace the recipe's; empty for the recipe as it is."""
    files: OutputFiles
    report: LossReport | None = None


class Layout:
    """Which tensors come out, and in which dtype: the rules of stock mergekit."""

    def __init__(self, opened: OpenRecipe) -> None:
        self.opened = opened
        self.places = ranges(opened.base)
        self.inputs = {checkpoint.folder: ranges(checkpoint) for checkpoint in opened.checkpoints}
        recipe = opened.recipe
        self.cast = TORCH_DTYPES[recipe.dtype] if recipe.dtype else None
        self.out = TORCH_DTYPES[recipe.out_dtype] if recipe.out_dtype else None
        self.round_to = NARROW[recipe.round_to] if recipe.round_to else None

    def kernel_dtype(self, name: str) -> torch.dtype:
        """Return the dtype that the arithmetic rounds to: round_to, or the inputs' promoted one."""
        if self.round_to is not None:
            return self.round_to
        if self.cast is not None:
            return self.cast
        dtype = self.places[name].dtype
        for group in self.inputs.values():
            if name in group:
                dtype = torch.promote_types(dtype, group[name].dtype)
        return torch.promote_types(dtype, torch.float32) if self.opened.adapters else dtype

    def tensors(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Return (dtype, shape) of every output tensor."""
        found = {}
        for name, place in self.places.items():
            floating = place.dtype.is_floating_point
            dtype = (self.out or self.kernel_dtype(name)) if floating else place.dtype
            found[name] = (dtype, place.shape)
        return found

    @property
    def read_bytes(self) -> int:
        """Bytes of base and inputs together."""
        every = [self.places, *self.inputs.values()]
        return sum(place.nbytes for group in every for place in group.values())


class Pass:
    """Streams all weights of a recipe into its targets."""

    def __init__(
        self,
        layout: Layout,
        targets: Sequence[Target],
        advance: Callable[[int], None] = lambda done: None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.layout, self.targets, self.advance = layout, targets, advance
        self.threads = threads or os.cpu_count() or 1
        self.device = torch.device(device)
        self.step = STEP if self.device.type == "cpu" else DEVICE_STEP
        self._files = Files()
        self._memory = Memory()
        self._whole = threading.Lock()  # one large tensor whole in memory at a time
        self._lock = threading.Lock()

    def run(self) -> None:
        """Do it. Any worker's exception stops the pass and is raised."""
        before = torch.get_num_threads()
        for place in [*self.layout.places.values()]:
            self._files.descriptor(place.path)
        for group in self.layout.inputs.values():
            for place in group.values():
                self._files.descriptor(place.path)
        try:
            with ThreadPoolExecutor(self.threads, initializer=_single_threaded) as pool:
                futures = [pool.submit(job, *arguments) for job, arguments in self._jobs()]
                done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
                for future in waiting:
                    future.cancel()
                for future in done:
                    future.result()
        finally:
            torch.set_num_threads(before)
            self._files.close()

    def _jobs(self) -> Iterator[tuple[Callable[..., None], tuple[Any, ...]]]:
        for name, place in sorted(self.layout.places.items(), key=lambda item: -item[1].nbytes):
            if not place.dtype.is_floating_point:
                yield self._copy_buffer, (name,)
                continue
            groups = [self.layout.opened.parts(name, target.etas) for target in self.targets]
            whole = any(needs_whole_tensors(g, self.layout.opened.controls) for g in groups)
            step = place.elements if whole else JOB_STEPS * self.step
            for start in range(0, max(place.elements, 1), max(step, 1)):
                count = min(step, place.elements - start)
                yield (self._whole_job if whole else self._job), (name, groups, start, count)

    def _copy_buffer(self, name: str) -> None:
        """Copy an integer buffer, which must be the same in all inputs, as in mergekit."""
        place = self.layout.places[name]
        base = self._read(place, 0, place.elements, 0).clone()
        for folder, group in self.layout.inputs.items():
            if name in group and not torch.equal(
                base, self._read(group[name], 0, place.elements, 1)
            ):
                raise PvMergeError(f"{folder}: the buffer {name} differs from the base's")
        for target in self.targets:
            target.files.write(name, 0, base)

    def _whole_job(self, name: str, groups: list[Group], start: int, count: int) -> None:
        with self._whole if count > WHOLE_TOGETHER else nullcontext():
            self._work(name, groups, start, count, whole=True)

    def _job(self, name: str, groups: list[Group], start: int, count: int) -> None:
        for block in range(start, start + count, self.step):
            self._work(name, groups, block, min(self.step, start + count - block), whole=False)

    def _work(self, name: str, groups: list[Group], start: int, count: int, whole: bool) -> None:
        """Read one part of a weight, and write it merged into every target."""
        base = self._load(Stored(self.layout.opened.base, name), start, count, 0)
        phis = self._phis(groups, base, start, count)
        controls = self.layout.opened.controls
        kernel = self.layout.kernel_dtype(name)
        for target, group in zip(self.targets, groups, strict=True):
            active = (
                [
                    item.holding(vectors=(phis[item.name],))
                    for item in group
                    if item.eta != 0 and item.name in phis
                ]
                if len(self.targets) > 1
                else [item for item in self._loaded(groups[0], start, count) if item.eta != 0]
            )
            if whole:
                active = whole_tensor_steps(base, active, controls)
            rounder = Rounder(kernel, controls.rounding, controls.seed, name)
            out = self._memory.output(count, kernel, self.device)
            for block in range(0, count, self.step):
                window = slice(block, block + self.step)
                part = [item.window(window) for item in active] if whole else active
                merge_block(
                    base[window], part, controls, rounder, start + block, out[window],
                    self._recorder(target, name, part),
                )  # fmt: skip
            written = out if self.layout.out is None else out.to(self.layout.out)
            target.files.write(name, start, written.cpu())
        with self._lock:
            self.advance(count)

    def _phis(self, groups: list[Group], base: Tensor, start: int, count: int) -> dict[str, Tensor]:
        """Return φ of every preference that any of several targets needs."""
        if len(groups) == 1:
            return {}
        needed = {item.name: item for group in groups for item in group if item.eta != 0}
        loaded = self._loaded(list(needed.values()), start, count)
        return {
            item.name: preference_vector(base, item.positives, item.negatives, item.vectors)
            for item in loaded
            if item.positives or item.negatives or item.vectors
        }

    def _loaded(
        self, group: Sequence[PreferenceInputs[Stored | Tensor]], start: int, count: int
    ) -> list[PreferenceInputs[Tensor]]:
        numbers = iter(range(1, 1000))
        return [
            item.mapped(lambda part: self._load(part, start, count, next(numbers)))
            for item in group
        ]

    def _load(self, part: Stored | Tensor, start: int, count: int, number: int) -> Tensor:
        if isinstance(part, Tensor):
            tensor = part.reshape(-1)[start : start + count]
        else:
            places = self.layout.inputs.get(part.checkpoint.folder, self.layout.places)
            tensor = self._read(places[part.name], start, count, number)
        return tensor.to(self.device, self.layout.cast or tensor.dtype)

    def _read(self, place: Range, start: int, count: int, number: int) -> Tensor:
        buffer = self._memory.buffer(number, max(count * place.dtype.itemsize, 1))
        return read_part(self._files, place, start, count, buffer)

    def _recorder(
        self, target: Target, name: str, part: Sequence[PreferenceInputs[Tensor]]
    ) -> Record | None:
        report, cast = target.report, self.layout.out
        if report is None:
            return None

        def record(base: Tensor, steps: list[Tensor], out: Tensor) -> None:
            moved = {item.name: step for item, step in zip(part, steps, strict=True)}
            sums = report.products(base, moved, out if cast is None else out.to(cast))
            with self._lock:
                report.collect(name, sums)

        return record


def _single_threaded() -> None:
    torch.set_num_threads(1)

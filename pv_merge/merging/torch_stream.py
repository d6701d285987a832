"""The same pass with torch's arithmetic: for accelerators, and for controls that kernels do not know.

The bytes are those of ``pv_merge.merging.stream``, which does all the rest.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from pv_merge.arithmetic.blocks import (
    STEP,
    Record,
    merge_block,
    needs_whole_tensors,
    whole_tensor_steps,
)
from pv_merge.arithmetic.dtypes import DTYPES
from pv_merge.arithmetic.kernel_shape import BLOCK
from pv_merge.arithmetic.merge import not_finite_problem
from pv_merge.arithmetic.rounding import Rounder
from pv_merge.arithmetic.terms import PreferenceInputs
from pv_merge.arithmetic.windows import Flat
from pv_merge.errors import PvMergeError, Topic
from pv_merge.merging.layout import Layout, Weight
from pv_merge.merging.loss import LossReport
from pv_merge.merging.products import products
from pv_merge.merging.stream import Pass, Target
from pv_merge.recipe.opened import Part, Stored

DEVICE_STEP = 32 * BLOCK
"""Elements that go to an accelerator at a time."""

WHOLE_TOGETHER = 8_000_000
"""Elements of a weight up to which several may be whole in memory at a time, one a worker."""


class TorchPass(Pass):
    """Streams all weights of a recipe into its targets by way of ``device``."""

    def __init__(
        self,
        layout: Layout,
        targets: Sequence[Target],
        advance: Callable[[int], None] = lambda done: None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(layout, targets, advance, threads)
        self._recipe = layout
        self.device = torch.device(device)
        self.step = STEP if self.device.type == "cpu" else DEVICE_STEP
        self._large = threading.Lock()  # one large tensor whole in memory at a time

    def run(self) -> None:
        """Do it, with one thread of torch for each worker. Any worker's exception is raised."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            super().run()
        finally:
            torch.set_num_threads(before)

    def _whole(self, weight: Weight) -> bool:
        groups = (self._recipe.opened.parts(weight.name, target.etas) for target in self.targets)
        return any(needs_whole_tensors(group, self._recipe.opened.controls) for group in groups)

    def _window(self, weight: Weight) -> int:
        if weight.is_low_rank or self._whole(weight):
            return max(weight.base.elements, 1)
        return self.step

    def _job(self, weight: Weight, start: int, count: int, window: int) -> None:
        """Merge a part of a weight, window by window, into every target."""
        with self._large if window > max(WHOLE_TOGETHER, self.step) else nullcontext():
            for begin in range(start, start + count, window):
                here = min(window, start + count - begin)
                for target in self.targets:
                    self._into(target, weight, begin, here)
                with self._lock:
                    self.advance(here)

    def _into(self, target: Target, weight: Weight, start: int, count: int) -> None:
        """Read a window and write it, merged, into one target."""
        numbers = iter(range(1, 1 << 20))
        stored = Stored(self._recipe.opened.base, weight.name)
        base = self._tensor(stored, start, count, 0)
        parts = self._recipe.opened.parts(weight.name, target.etas)
        active = [
            item.mapped(lambda part: self._tensor(part, start, count, next(numbers)))
            for item in parts
            if item.moves
        ]
        controls = self._recipe.opened.controls
        steps = active
        if needs_whole_tensors(active, controls):
            steps = whole_tensor_steps(base, active, controls)
        kernel = DTYPES[self._recipe.kernel_dtype(weight.name)]
        rounder = Rounder(kernel, controls.rounding, controls.seed, weight.name)
        out = torch.empty(count, dtype=kernel, device=self.device)
        for block in range(0, count, self.step):
            here = slice(block, block + self.step)
            part = [item.window(here) for item in steps]
            record = self._recorder(target, weight.name, start + block, part)
            merge_block(base[here], part, controls, rounder, start + block, out[here], record)
        written = self._finite(weight.name, base, active, self._cast(out))
        target.files.write(weight.name, start, written.cpu().view(torch.uint8).numpy().data)

    def _cast(self, out: Tensor) -> Tensor:
        return out if self._recipe.out is None else out.to(DTYPES[self._recipe.out])

    def _finite(
        self, name: str, base: Tensor, active: Sequence[PreferenceInputs[Tensor]], out: Tensor
    ) -> Tensor:
        """Return the result with the base's values where it is not finite, if that is asked for."""
        odd = ~out.isfinite()
        found = int(odd.sum())
        if found and self._recipe.opened.controls.not_finite != "keep_base":
            raise PvMergeError(not_finite_problem(name, base, active), Topic.FINITE)
        if found:
            with self._lock:
                self.base_kept[name] = self.base_kept.get(name, 0) + found
            out = torch.where(odd, base.to(out.dtype), out)
        return out

    def _tensor(self, part: Part, start: int, count: int, number: int) -> Tensor:
        flat = self._flat(self._recipe.source(part), start, count, number)
        cast = self._recipe.cast
        return _view(flat, count).to(self.device, DTYPES[cast] if cast else None)

    def _recorder(
        self, target: Target, name: str, start: int, part: Sequence[PreferenceInputs[Tensor]]
    ) -> Record | None:
        report = target.report
        if not isinstance(report, LossReport):
            return None

        def record(base: Tensor, steps: list[Tensor], out: Tensor) -> None:
            moved = {item.name: step for item, step in zip(part, steps, strict=True)}
            found = products(list(report.etas), base, moved, self._cast(out))
            report.collect(name, start, found)

        return record


def _view(flat: Flat, count: int) -> Tensor:
    """Return the elements as a tensor."""
    dtype = DTYPES[flat.dtype]
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(flat.address)
    return torch.frombuffer(memory, dtype=dtype, count=count)

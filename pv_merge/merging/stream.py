"""One pass over a recipe's inputs, for any number of outputs.

Windows of a weight are mapped (or read into memory that is used again), worked on by fused kernels,
and written at their place. Each worker thread does all three for its own windows, outside the interpreter's
lock: reading, arithmetic and writing overlap without any queue between them. What comes out does not
depend on their number. Nothing here needs torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from pv_merge.arithmetic.fused import merge_part
from pv_merge.arithmetic.kernel_shape import BLOCK
from pv_merge.arithmetic.low_rank_rows import block_rows
from pv_merge.arithmetic.stored import SIZES, is_weight
from pv_merge.arithmetic.surveys import survey
from pv_merge.arithmetic.windows import Flat, Inputs, Plan, Rules, not_finite_in
from pv_merge.artifacts.byte_ranges import Files, Memory, Range
from pv_merge.artifacts.output_files import OutputFiles
from pv_merge.errors import PvMergeError, Topic
from pv_merge.merging.layout import Collector, Sheet, Source, Weight, Weights

JOB_ELEMENTS = 8 * BLOCK
"""Elements of a weight that a worker takes at a time, about."""

WINDOW_BYTES = 6_000_000
"""Memory that a worker fills with a window: outputs, and inputs that cannot be mapped."""

SMALLEST_WINDOW = BLOCK // 16
"""Elements of a window, however many inputs there are."""


@dataclass(frozen=True)
class Target:
    """One output of the pass."""

    etas: Mapping[str, float]
    """Etas that replace the recipe's; empty for the recipe as it is."""
    files: OutputFiles
    report: Collector | None = None


class Pass:
    """Streams all weights of a recipe into its targets."""

    def __init__(
        self,
        layout: Weights,
        targets: Sequence[Target],
        advance: Callable[[int], None] = lambda done: None,
        threads: int | None = None,
    ) -> None:
        self.layout, self.targets, self.advance = layout, targets, advance
        self.threads = threads or os.cpu_count() or 1
        self.base_kept: dict[str, int] = {}
        """How many values of each weight were not finite, and are the base's."""
        self._files = Files()
        self._memory = Memory()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Do it. Any worker's exception stops the pass and is raised."""
        # BLAS's own threads would wait for each other in every worker, and burn the time.
        try:
            with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.threads) as pool:
                futures = [pool.submit(job, *arguments) for job, arguments in self._jobs()]
                try:
                    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                finally:  # also when the user interrupts
                    for future in futures:
                        future.cancel()
                for future in done:
                    future.result()
        finally:
            self._files.close()

    def _jobs(self) -> Iterator[tuple[Callable[..., None], tuple[object, ...]]]:
        etas = [target.etas for target in self.targets]
        for name, place in sorted(self.layout.places.items(), key=lambda item: -item[1].nbytes):
            if not is_weight(place.dtype):
                yield self._copy_buffer, (name,)
                continue
            weight = self.layout.weight(name, etas)
            window = self._window(weight)
            step = (
                place.elements
                if self._whole(weight)
                else max(window, JOB_ELEMENTS // window * window)
            )
            for start in range(0, place.elements, max(step, 1)):
                yield self._job, (weight, start, min(step, place.elements - start), window)

    def _whole(self, weight: Weight) -> bool:
        """Return whether one worker must go through a weight in order."""
        return weight.survey

    def _window(self, weight: Weight) -> int:
        """Return how many elements are read at a time; windows of low-rank changes are their blocks."""
        if weight.is_low_rank:
            columns = weight.base.shape[1]
            return columns * block_rows(columns)
        sources = [weight.base, *(source for group in weight.groups for _, source, _ in group)]
        stored = [source for source in sources if isinstance(source, Range)]
        width = SIZES[self.layout.rules(weight.name, False).stored] * len(self.targets)
        if not all(map(self._files.maps, stored)):
            width += sum(SIZES[source.dtype] for source in stored)
        step = max(JOB_ELEMENTS, SMALLEST_WINDOW)
        while step * width > WINDOW_BYTES and step > SMALLEST_WINDOW:
            step //= 2
        return step

    def _copy_buffer(self, name: str) -> None:
        """Copy an integer buffer, which must be the same in all inputs, as in mergekit."""
        place = self.layout.places[name]
        base = self._read(place, 0, place.elements, 0)
        for folder, group in self.layout.inputs.items():
            if name not in group:
                continue
            other = self._read(group[name], 0, group[name].elements, 1)
            if group[name].dtype != place.dtype or other != base:
                raise PvMergeError(f"{folder}: the buffer {name} differs from the base's")
        for target in self.targets:
            target.files.write(name, 0, base)

    def _job(self, weight: Weight, start: int, count: int, window: int) -> None:
        """Merge a part of a weight, window by window, into every target."""
        report = any(target.report is not None for target in self.targets)
        rules = self.layout.rules(weight.name, report)
        plans = [self._plan(weight, sheet, rules, window) for sheet in weight.sheets]
        for begin in range(start, start + count, window):
            here = min(window, start + count - begin)
            inputs = self._load(weight, begin, here)
            for sheet, plan in zip(weight.sheets, plans, strict=True):
                self._write(weight, sheet, plan, rules, inputs, begin, here)
            with self._lock:
                self.advance(here)

    def _plan(self, weight: Weight, sheet: Sheet, rules: Rules, window: int) -> Plan:
        if not sheet.survey:
            return Plan.plain([[item.eta for item in row] for row in sheet.strengths])

        def load(start: int, count: int) -> Inputs:
            inputs = self._load(weight, start, count)
            return Inputs(inputs.base, [inputs.groups[member] for member in sheet.members])

        return survey(weight.base.elements, load, sheet.strengths[0], rules, window)

    def _write(
        self,
        weight: Weight,
        sheet: Sheet,
        plan: Plan,
        rules: Rules,
        inputs: Inputs,
        start: int,
        count: int,
    ) -> None:
        chosen = Inputs(inputs.base, [inputs.groups[member] for member in sheet.members])
        size = count * SIZES[rules.stored]
        outs = [self._memory.buffer(-1 - number, size) for number in range(len(sheet.targets))]
        sums = merge_part(chosen, start, count, plan, rules, [int(out.ctypes.data) for out in outs])
        if sums.not_finite:
            self._odd(weight, rules, inputs, start, count, sums.not_finite)
        labels = [weight.preferences[member] for member in sheet.members]
        for number, (at, out) in enumerate(zip(sheet.targets, outs, strict=True)):
            target = self.targets[at]
            target.files.write(weight.name, start, out.data[:size])
            if target.report is not None:
                target.report.take(weight.name, start, labels, plan.etas[number], sums, number)

    def _odd(
        self, weight: Weight, rules: Rules, inputs: Inputs, start: int, count: int, found: int
    ) -> None:
        """Count values that are not finite, or say whose they are."""
        if rules.keep_base:
            with self._lock:
                self.base_kept[weight.name] = self.base_kept.get(weight.name, 0) + found
            return
        held = [(str(self.layout.base), inputs.base)]
        for group, flats in zip(weight.groups, inputs.groups, strict=True):
            held += [(said, flat) for (_, _, said), (_, flat) in zip(group, flats, strict=True)]
        for said, flat in held:
            place = not_finite_in(flat, count)
            if place is not None:
                raise PvMergeError(
                    f"{said}: {weight.name} holds values that are not finite (the first is element "
                    f"{start + place}); did its training diverge?{self.layout.hint}",
                    Topic.FINITE,
                )
        raise PvMergeError(
            f"{weight.name}: base + Σ eta·phi is beyond {rules.stored}; is an eta too large?",
            Topic.FINITE,
        )

    def _load(self, weight: Weight, start: int, count: int) -> Inputs:
        number = 0
        groups = []
        for group in weight.groups:
            flats = []
            for role, source, _ in group:
                number += 1
                flats.append((role, self._flat(source, start, count, number)))
            groups.append(flats)
        return Inputs(self._flat(weight.base, start, count, 0), groups)

    def _flat(self, source: Source, start: int, count: int, number: int) -> Flat:
        if isinstance(source, Range):
            address = self._files.address(source, start, count)
            if address is not None:
                return Flat(address, source.dtype)
            buffer = self._memory.buffer(number, count * SIZES[source.dtype])
            self._files.read(source, start, count, buffer.data)
            return Flat(int(buffer.ctypes.data), source.dtype, buffer)
        buffer = self._memory.buffer(number, 4 * count)
        columns = source.shape[1]
        rows = buffer[: 4 * count].view(np.float32).reshape(-1, columns)
        source.rows(start // columns, (start + count) // columns, rows)
        return Flat(int(buffer.ctypes.data), "F32", buffer)

    def _read(self, place: Range, start: int, count: int, number: int) -> memoryview:
        buffer = self._memory.buffer(number, count * SIZES[place.dtype])
        return self._files.read(place, start, count, buffer.data)

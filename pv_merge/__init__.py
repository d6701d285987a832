"""Preference vectors for large language models, as a plugin of mergekit.

What the commands do, as functions with typed arguments and results that print nothing:
``help(pv_merge.sweep)``, or ``docs/api.md``. Training is ``trainers.train``.

Importing this package loads neither torch nor mergekit: PyTorch itself imports it (see
``pv_merge.integrations.mergekit.plugin``), so it must stay light. Each name is imported when it is
first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pv_merge.version import __version__

if TYPE_CHECKING:
    from pv_merge.artifacts.vector import PreferenceVector as PreferenceVector
    from pv_merge.errors import PvMergeError as PvMergeError
    from pv_merge.evaluation.calibrate.calibrate import calibrate as calibrate
    from pv_merge.evaluation.evaluate import evaluate as evaluate
    from pv_merge.evaluation.measures.registry import measure as measure
    from pv_merge.evaluation.sweep.sweep import sweep as sweep
    from pv_merge.hub.merge import merge as merge
    from pv_merge.hub.merge import merge_grid as merge_grid
    from pv_merge.hub.pull import pull as pull
    from pv_merge.hub.push import push as push
    from pv_merge.hub.push_plan import PushOptions as PushOptions
    from pv_merge.integrations.export import export as export
    from pv_merge.live.controller import PreferenceController as PreferenceController
    from pv_merge.merging.drift import drift as drift
    from pv_merge.merging.extract import ExtractOptions as ExtractOptions
    from pv_merge.merging.extract import extract as extract
    from pv_merge.merging.inspection import inspect as inspect
    from pv_merge.merging.report import report as report
    from pv_merge.recipe.opening import check as check

    load = PreferenceVector.load

_PLACES = {
    "ExtractOptions": "pv_merge.merging.extract:ExtractOptions",
    "PreferenceController": "pv_merge.live.controller:PreferenceController",
    "PreferenceVector": "pv_merge.artifacts.vector:PreferenceVector",
    "PushOptions": "pv_merge.hub.push_plan:PushOptions",
    "PvMergeError": "pv_merge.errors:PvMergeError",
    "calibrate": "pv_merge.evaluation.calibrate.calibrate:calibrate",
    "check": "pv_merge.recipe.opening:check",
    "drift": "pv_merge.merging.drift:drift",
    "evaluate": "pv_merge.evaluation.evaluate:evaluate",
    "export": "pv_merge.integrations.export:export",
    "extract": "pv_merge.merging.extract:extract",
    "inspect": "pv_merge.merging.inspection:inspect",
    "measure": "pv_merge.evaluation.measures.registry:measure",
    "merge": "pv_merge.hub.merge:merge",
    "merge_grid": "pv_merge.hub.merge:merge_grid",
    "pull": "pv_merge.hub.pull:pull",
    "push": "pv_merge.hub.push:push",
    "report": "pv_merge.merging.report:report",
    "sweep": "pv_merge.evaluation.sweep.sweep:sweep",
    "load": "pv_merge.artifacts.vector:PreferenceVector.load",
}
"""Where each public name is."""

__all__ = [
    "ExtractOptions",
    "PreferenceController",
    "PreferenceVector",
    "PushOptions",
    "PvMergeError",
    "__version__",
    "calibrate",
    "check",
    "drift",
    "evaluate",
    "export",
    "extract",
    "inspect",
    "load",
    "measure",
    "merge",
    "merge_grid",
    "pull",
    "push",
    "report",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    from operator import attrgetter

    module, _, attribute = _PLACES[name].partition(":")
    found = attrgetter(attribute)(import_module(module))
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The client's side of the Hub tests: huggingface_hub pointed at the server, and folders to push."""

from __future__ import annotations

import json
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hub_store import WRITE_TOKEN

from hub_server import Hub, running


class Waits(types.SimpleNamespace):
    """Stands in for the module ``time`` where the client waits: notes the seconds, does not wait."""

    def __init__(self) -> None:
        super().__init__(seconds=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


@contextmanager
def connected(patch: Any, cache: Any, token: str | None = WRITE_TOKEN) -> Iterator[Hub]:
    """Yield a server that huggingface_hub in this process talks to.

    The client itself is not changed: its endpoint, cache and mode, which it reads from the
    environment once, are set to what a process with those variables would have, and what it would
    wait between tries is noted in ``hub.waits``.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    from pv_merge.artifacts import network as hub_errors

    with running() as hub:
        hub.waits = Waits()
        patch.setenv("NO_PROXY", "*")
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        patch.setenv("HF_TOKEN_PATH", str(cache / "no-token"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        patch.setenv("HF_TOKEN", token) if token else patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        patch.setattr(_http, "time", hub.waits)
        patch.setattr(hub_errors, "time", hub.waits)
        _http.close_session()
        try:
            yield hub
        finally:
            _http.close_session()


RECIPE = """# pv-merge run recipe.yml ./merged
merge_method: preference_vector
base_model: ./models/base
models:
  - model: ./inputs/NAME
    parameters: {preference: NAME, polarity: vector, eta: ETA}
parameters: {round_to: bfloat16}
out_dtype: bfloat16
"""


def merge_folder(folder: Any, eta: float = 1.0, name: str = "polite", seed: int = 0) -> Any:
    """Write a folder that looks like a merge by pv-merge, with 200 kB of weights, and return it."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    weights = np.random.default_rng(seed).standard_normal((100, 500)).astype("float32")
    save_file({"model.weight": weights + eta}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    text = RECIPE.replace("NAME", name).replace("ETA", f"{eta:g}")
    (folder / "mergekit_config.yml").write_text(text)
    figures = {"eta": eta, "norm": 2.0 if eta else None, "relative_step": 0.001, "share": 0.97}
    layer = {"preferences": {name: {**figures, "share": 0.91}}, "relative_error": 0.1}
    report = {"kind": "merge_report", "preferences": {name: figures}, "layers": {"3": layer}}
    (folder / "pv_merge_report.json").write_text(json.dumps({**report, "pv_merge": "0.1.0"}))
    (folder / "README.md").write_text("# written by the merge\n")
    return folder


def content(folder: Any, without: tuple[str, ...] = ("README.md",)) -> dict[str, bytes]:
    """Return every file of a folder, by name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in named.items() if name not in without}

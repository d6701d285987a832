"""The entry point that vLLM calls at its start; light, silent when not wanted, and never raises."""

from __future__ import annotations

import logging
import os

NAME = "preference vectors"
"""The resolver's name in vLLM's registry."""

SAID = "PV_MERGE_SERVE_SAID"
"""Set once the folder is in the log: vLLM calls plugins in each of its processes."""

log = logging.getLogger("vllm.pv_merge")


def register() -> None:
    """Register the resolver if ``PV_MERGE_VECTORS`` names a folder that can be served."""
    if not os.environ.get("PV_MERGE_VECTORS", "").strip():
        return
    first = not os.environ.get(SAID)
    os.environ[SAID] = "1"
    try:
        names = _register()
        if first:
            log.info("pv-merge: serves any mix of %s", ", ".join(names))
    except Exception as error:
        if first:
            reason = " ".join(str(error).split())
            log.error("pv-merge: serves no mixes: %s", reason or type(error).__name__)


def _register() -> list[str]:
    from vllm.lora.resolver import LoRAResolverRegistry

    from pv_merge.serving import restore
    from pv_merge.serving.resolver import PreferenceResolver
    from pv_merge.serving.settings import required
    from pv_merge.serving.vectors import scan

    settings = required()
    vectors = scan(settings.vectors)
    restore.activate()
    LoRAResolverRegistry.register_resolver(NAME, PreferenceResolver(vectors, settings))
    return list(vectors)

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
    try:
        names = _register()
        _say(logging.INFO, f"serves any mix of {', '.join(names)}")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        _say(logging.ERROR, f"serves no mixes: {reason}")


def _say(level: int, text: str) -> None:
    """Log once for all processes; the first one calls plugins before it sets up its log."""
    if log.isEnabledFor(level) and not os.environ.get(SAID):
        os.environ[SAID] = "1"
        log.log(level, "pv-merge: %s", text)


def _register() -> list[str]:
    from vllm.lora.resolver import LoRAResolverRegistry

    from pv_merge.integrations.mixes.settings import required
    from pv_merge.integrations.mixes.vectors import scan
    from pv_merge.integrations.vllm import restore
    from pv_merge.integrations.vllm.resolver import PreferenceResolver

    settings = required()
    vectors = scan(settings.vectors, related=settings.allow_related_base)
    restore.activate()
    LoRAResolverRegistry.register_resolver(NAME, PreferenceResolver(vectors, settings))
    return list(vectors)

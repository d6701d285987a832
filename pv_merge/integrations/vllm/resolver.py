"""``PreferenceResolver``: from the name in a request to the adapter of that mix; imports vLLM."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import cached_property

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from pv_merge.errors import PvMergeError
from pv_merge.integrations.mixes.cache import MixCache
from pv_merge.integrations.mixes.name import NamedMix, read, shown
from pv_merge.integrations.mixes.settings import Settings
from pv_merge.integrations.mixes.shelf import fill
from pv_merge.integrations.mixes.vectors import ServedVector, refuse_other_base
from pv_merge.integrations.vllm.request import MixRequest, request_for
from pv_merge.integrations.vllm.restore import can_restore

log = logging.getLogger("vllm.pv_merge")


class PreferenceResolver(LoRAResolver):
    """Resolves ``helpful=0.8,polite=-0.3``; anything else, or not allowed, is a 404 for the client.

    vLLM passes no reason on to the client, so it stands in the server's log, in one line.
    """

    def __init__(self, vectors: dict[str, ServedVector], settings: Settings) -> None:
        self.vectors = vectors
        self.settings = settings
        self._requests: dict[str, MixRequest] = {}
        self._lock = threading.Lock()
        self._base_is_right = False

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """Return the request for a mix, or None with a line in the log; never raises."""
        try:
            mix = read(lora_name, self.vectors, self.settings)
            return await asyncio.to_thread(self.request, mix, base_model_name)
        except PvMergeError as error:
            reason = " ".join(error.message.split())
        except Exception as error:
            reason = ascii(f"{type(error).__name__}: {error}")
        log.warning("pv-merge: no adapter for model %s: %s", shown(lora_name), reason)
        return None

    def request(self, mix: NamedMix, base: str) -> MixRequest:
        """Return the one request of a mix, its adapter made if need be."""
        with self._lock:
            if not self._base_is_right:
                if not self.settings.allow_related_base:
                    refuse_other_base(self.vectors, base)
                self._base_is_right = True
            cache = self._cache
            start = time.perf_counter()
            folder = cache.adapter(mix.terms)
            spent = time.perf_counter() - start
            if mix.name not in self._requests:
                self._requests[mix.name] = request_for(mix.name, folder)
                log.info("pv-merge: adapter of %s in %.0f ms", mix.name, spent * 1000)
            return self._requests[mix.name]

    @cached_property
    def _cache(self) -> MixCache:
        start = time.perf_counter()
        shelf = fill(self.vectors, self.settings.dtype)
        _ = shelf.adapters
        evict = can_restore()
        if not evict:
            log.warning(
                "pv-merge: this vLLM cannot load a mix again that the cache drops, so after %d "
                "mixes new ones are refused",
                self.settings.cache_mixes,
            )
        log.info("pv-merge: vectors copied to the cache in %.1f s", time.perf_counter() - start)
        return MixCache(shelf, self.settings.cache_mixes, self.settings.cache_bytes, evict=evict)

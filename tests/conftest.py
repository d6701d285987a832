"""Every test runs offline, on one thread, with a cache of its own."""

from __future__ import annotations

import os
import signal
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="pv-merge-datasets-"))
os.environ.setdefault("PV_MERGE_CACHE", tempfile.mkdtemp(prefix="pv-merge-cache-"))

# A job in the background of a shell is started with Ctrl-C ignored, and so is all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("pv-merge", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("pv-merge")

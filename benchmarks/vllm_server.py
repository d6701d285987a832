"""A vLLM server on the loopback interface, for the tests and the benchmark; stops with the block."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

START_S = 600
"""Seconds that a server may take to start."""


class Server:
    """``python -m vllm.entrypoints.openai.api_server`` in float32, with ``base`` as the model's name.

    (``vllm serve`` looks for a distribution called vllm, which the build for CPUs is not.)
    """

    def __init__(
        self, model: str | Path, log: Path, *options: str, environment: dict[str, str] | None = None
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(model), "--served-model-name", "base"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--dtype", "float32", "--max-model-len", "1024", "--enforce-eager", *options),
        ]
        offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        variables = {**os.environ, **offline, "VLLM_CPU_KVCACHE_SPACE": "1", **(environment or {})}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command, env=variables, stdout=out, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        start = time.monotonic()
        try:
            while not self.healthy():
                if self.process.poll() is not None or time.monotonic() - start > START_S:
                    tail = "\n".join(self.text().splitlines()[-20:])
                    raise RuntimeError(f"the server did not start; its log ends:\n{tail}")
                time.sleep(0.5)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def healthy(self) -> bool:
        """Return whether the server answers and its engine is alive."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/health", timeout=10
            ) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def client(self) -> Any:
        """Return an official OpenAI client that never retries."""
        from openai import OpenAI

        return OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=300
        )

    def text(self) -> str:
        """Return the server's log so far."""
        return self.log.read_text(errors="replace")

    def lines(self) -> list[str]:
        """Return our plugin's lines of the log, without what vLLM puts before them."""
        return [
            found.group(1)
            for found in re.finditer(r"(pv-merge: .*)$", self.text(), flags=re.MULTILINE)
        ]

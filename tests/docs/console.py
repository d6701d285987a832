"""The console blocks of the documentation: what each command is, and whether a test runs it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "recipes" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OURS = ("pv-merge", "pv-train", "mergekit-yaml", "mergekit-multi")

RUN = (
    "docs/tutorials/first-vector.md",
    "docs/tutorials/own-preference.md",
    "docs/tutorials/two-preferences.md",
    "docs/tutorials/publish.md",
    "docs/tutorials/serve.md",
    "docs/tutorials/laptop.md",
    "docs/tutorials/when-it-goes-wrong.md",
    "docs/how-to/ollama.md",
)
"""Pages whose commands are run, in order, on a tiny stand-in for the quickstart's model."""

NOT_RUN = {
    r"pip install |pv-merge quickstart|cd quickstart": "run by tests/start/test_wheel.py, from the wheel",
    r"pv-merge ui(?!.*--space)": "stays until it is ended; run by tests/ui/test_page.py",
    r"make ": "what make calls is run by tests of its own",
    r"hf |pv-merge push (?!.*--dry-run)|pv-merge pull|.*example/smollm2": "needs the Hub; tests/hub runs it against a server of its own",
    r"vllm |bash serve.sh": "needs vLLM: make test-vllm",
    r"ollama |python llama.cpp|llama-server": "needs llama.cpp or Ollama: make test-llama",
    r"pv-merge export .*--to gguf-model": "needs llama.cpp; tests/integrations/test_gguf_model.py runs it",
    r"python -c": "loads the adapter with PEFT; tests/integrations/test_export.py does",
}
"""Commands that no page's test runs, and who does instead, or why not."""


@dataclass(frozen=True)
class Command:
    """One line after a prompt."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        """The command's words up to a comment or a shell's operator."""
        words = shlex.split(self.line, comments=True)
        ends = [i for i, word in enumerate(words) if word in (">", "|", "&&", ";", "2>")]
        return words[: ends[0]] if ends else words


def commands(page: Path) -> list[Command]:
    """Return every command of a page's console blocks, in order."""
    name = page.relative_to(ROOT).as_posix()
    text = re.sub(r"(?ms)^~~~~.*?^~~~~$", "", page.read_text(encoding="utf-8"))
    found = []
    for kind, body in re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", text):
        lines = body.replace("\\\n", " ").splitlines()
        if kind == "console":
            found += [Command(name, line[2:]) for line in lines if line.startswith("$ ")]
        elif kind == "sh":
            found += [Command(name, line) for line in lines if line.startswith(OURS)]
    return found


def reason(command: Command) -> str | None:
    """Return why no test of the pages runs the command; None if there is no reason."""
    for pattern, text in NOT_RUN.items():
        if re.match(pattern, command.line):
            return text
    return None

"""The chat on a terminal: two columns that grow as the answers come, and lines that are typed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pv_merge.artifacts.cache import cache_folder
from pv_merge.errors import PvMergeError, harmless_text
from pv_merge.live.chat.commands import NAMES, Quit, etas_text, run_command
from pv_merge.live.chat.session import SIDES, ChatSession, Side


def talk(session: ChatSession, console: Console) -> None:
    """Read lines until they end: each is a command or a question to both sides."""
    console.print(Text(f"base | mix: {etas_text(session.etas)}; /help shows the commands"))
    try:
        for line in typed_lines(console, session.mix.recipe.preferences):
            if not line:
                continue
            try:
                if line.startswith("/"):
                    console.print(Text(run_command(session, line)))
                else:
                    show_answers(session, line, console)
            except PvMergeError as error:
                console.print(Text(f"error: {error.message}", style="red"), soft_wrap=True)
    except Quit:
        pass


def show_answers(session: ChatSession, question: str, console: Console) -> None:
    """Ask both sides and show their answers side by side, while they are being made."""
    said: dict[Side, str] = {}
    titles: dict[Side, str] = {"base": "base", "mix": f"mix: {etas_text(session.etas)}"}

    def columns() -> Table:
        grid = Table.grid(expand=True)
        for _ in SIDES:
            grid.add_column(ratio=1)
        panels = [
            Panel(Text(said.get(side, "")), title=Text(titles[side]), title_align="left")
            for side in SIDES
        ]
        grid.add_row(*panels)
        return grid

    def show(side: Side, text: str) -> None:
        said[side] = harmless_text(text.strip())
        live.update(columns(), refresh=True)

    if not console.is_terminal:
        turn = session.ask(question, lambda side, text: None)
        said.update({side: harmless_text(text) for side, text in turn.answers.items()})
        console.print(columns())
        return
    # A terminal that is too low shows the beginning while it grows, and all of it at the end.
    with Live(columns(), console=console, auto_refresh=False) as live:
        turn = session.ask(question, show)
        said.update({side: harmless_text(text) for side, text in turn.answers.items()})
        live.update(columns(), refresh=True)
    if turn.stopped:
        console.print(Text("stopped", style="yellow"))


def typed_lines(console: Console, preferences: list[str]) -> Iterator[str]:
    """Yield stripped lines: edited ones with a history at a terminal, else those of stdin."""
    if not sys.stdin.isatty():
        try:
            for line in sys.stdin:
                console.print(Text(f"> {harmless_text(line.strip())}"))
                yield line.strip()
        except UnicodeDecodeError:
            raise PvMergeError("the lines are not text in UTF-8") from None
        return
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    place = cache_folder() / "chat_history"
    history: History = InMemoryHistory()
    with suppress(OSError):  # a home that cannot be written keeps no history
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        history = FileHistory(str(place))
    prompt: PromptSession[str] = PromptSession(
        history=history,
        completer=WordCompleter([*NAMES, *preferences], sentence=False, WORD=True),
        complete_while_typing=False,
    )
    while True:
        try:
            yield prompt.prompt("> ").strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return

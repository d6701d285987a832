"""The chat on a terminal: two columns that grow as the answers come, and lines that are typed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pv_merge.cache import cache_folder
from pv_merge.errors import PvMergeError, harmless_text
from pv_merge.live.chat.commands import NAMES, Quit, etas_text, run_command
from pv_merge.live.chat.engine import SIDES, Side
from pv_merge.live.chat.session import ChatSession


def talk(session: ChatSession, console: Console) -> None:
    """Read lines until they end: each is a command or a question to both sides."""
    console.print(Text(f"base | mix: {etas_text(session.etas)}; /help shows the commands"))
    try:
        for line in typed_lines(console, session.engine.recipe.preferences):
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
    together = session.engine.together
    said: dict[Side, str] = {}

    def columns(height: int | None = None) -> Table:
        grid = Table.grid(expand=True)
        width = (console.width - 1) // 2
        for _ in SIDES:
            grid.add_column(width=width)
        grid.add_row(*[_panel(side, said, session, width, height, together) for side in SIDES])
        return grid

    def show(side: Side, text: str) -> None:
        said[side] = harmless_text(text.strip())
        live.update(columns(console.height), refresh=True)

    if not console.is_terminal:
        turn = session.ask(question, lambda side, text: None)
    else:
        # On a screen of its own a frame is drawn anew as a whole, whatever size it has become.
        with Live(console=console, auto_refresh=False, screen=True) as live:
            turn = session.ask(question, show)
    said.update({side: harmless_text(text) for side, text in turn.answers.items()})
    together = True  # nobody waits any more
    console.print(columns())
    if turn.stopped:
        console.print(Text("stopped", style="yellow"))


def _panel(
    side: Side,
    said: Mapping[Side, str],
    session: ChatSession,
    width: int,
    height: int | None,
    together: bool,
) -> Panel:
    """Return a side's answer in a frame; of one that is too long for ``height``, the end."""
    title = "base" if side == "base" else f"mix: {etas_text(session.etas)}"
    text = Text(said.get(side, ""))
    if side == "mix" and side not in said and not together:
        text = Text("answers after the base", style="dim")
    lines = list(text.wrap(Console(width=width - 4), width - 4))
    head = []
    if len(title) > width - 6:  # a frame cuts its title, and every eta is to be seen
        head = [*Text(title, style="dim").wrap(Console(width=width - 4), width - 4), Text("")]
        title = side
    if height is not None:
        lines = lines[-max(height - 2 - len(head), 1) :]
    body = Text("\n").join([*head, *lines])
    return Panel(body, title=Text(title), title_align="left")


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

"""Opens the page: on this machine alone unless said, with nothing told to anybody."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError
from pv_merge.live.chat.engine import Engine, live_engine
from pv_merge.live.chat.stream import ChatSettings
from pv_merge.recipe.reading import read_recipe

Say = Callable[[str], None]


def open_page(
    recipe: str | Path,
    *,
    engine: str | None = None,
    settings: ChatSettings | None = None,
    prompts: Sequence[str] = (),
    dtype: str = "float32",
    host: str = "127.0.0.1",
    port: int = 7860,
    browser: bool = False,
    say: Say = print,
) -> None:
    """Serve the page over ``recipe`` until it is interrupted.

    ``engine`` is the address of a server that takes mixes as names of models; without it the
    recipe's base is loaded here. Raises ``PvMergeError`` for a port that is taken, a model that is
    too large, and what the check finds.
    """
    _need_gradio()
    port = free_port(host, port)
    settings = settings or ChatSettings()
    if engine is not None:
        from pv_merge.ui.server import ServerEngine

        _serve(
            ServerEngine(engine, read_recipe(recipe)), settings, prompts, host, port, browser, say
        )
        return
    say(f"{recipe}: loading the base …")
    with live_engine(recipe, dtype) as live:
        _serve(live, settings, prompts, host, port, browser, say)


def free_port(host: str, port: int) -> int:
    """Return ``port``, or any free one for 0; ``PvMergeError`` if it cannot be listened on."""
    try:
        with socket.create_server((host, port)) as server:
            return int(server.getsockname()[1])
    except OSError as error:
        raise PvMergeError(
            f"{host}:{port}: cannot be listened on ({error.strerror}); say --port 0 for any free port"
        ) from None


def _serve(
    engine: Engine,
    settings: ChatSettings,
    prompts: Sequence[str],
    host: str,
    port: int,
    browser: bool,
    say: Say,
) -> None:
    with tempfile.TemporaryDirectory(prefix="pv-merge-ui-") as files:
        os.environ["GRADIO_TEMP_DIR"] = files
        import gradio as gr

        from pv_merge.ui.page import STYLE, Page, zero_marks
        from pv_merge.ui.sliders import slider_ranges

        page = Page(engine, settings, prompts, Path(files))
        # Fonts of the machine: nothing is loaded from elsewhere.
        theme = gr.themes.Soft(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        )
        _, address, _ = page.blocks.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
            allowed_paths=[files], max_file_size=1, ssr_mode=False, enable_monitoring=False,
            theme=theme, css=STYLE + zero_marks(slider_ranges(engine.recipe, engine.locked)),
            footer_links=[], app_kwargs={"middleware": [_no_uploads()]},
        )  # fmt: skip
        say(f"{address} (Ctrl-C ends it){_reach(host)}")
        if browser and not _open(address):
            say("no display here: open the address in a browser")
        page.blocks.block_thread()


def _reach(host: str) -> str:
    return "" if host in ("127.0.0.1", "localhost", "::1") else "; others on the network can use it"


def _open(address: str) -> bool:
    """Open a browser with windows; a text browser would take the terminal over."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not display:
        return False
    return webbrowser.open(address)


def _need_gradio() -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
        import openai  # noqa: F401
    except ImportError as error:
        raise PvMergeError(
            f"the page needs {error.name}; install it with: pip install 'pv-merge[ui]'"
        ) from None


def _no_uploads() -> Any:
    """Return a middleware that refuses files, which the page has no use for."""
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse

    class NoUploads:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/upload"):
                await PlainTextResponse("uploads are off", 403)(scope, receive, send)
                return
            await self.app(scope, receive, send)

    return Middleware(NoUploads)

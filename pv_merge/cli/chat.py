"""``pv-merge chat``."""

from __future__ import annotations

import click


@click.command("chat")
@click.argument("recipe", type=click.Path())
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Longest answer, in tokens.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0 takes the likeliest token each time.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of sampling, for both sides.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Dtype of the model in memory.",
)
def command(
    recipe: str, max_new_tokens: int, temperature: float, seed: int, system: str | None, dtype: str
) -> None:
    """Talk to RECIPE's base and its mix side by side, and change eta between two questions.

    Both answers come from one model in memory. /eta helpful 0.8 changes the mix, /help shows the
    other commands, Ctrl-C stops an answer, Ctrl-D leaves.
    """
    from rich.console import Console

    from pv_merge.live.chat.engine import live_engine
    from pv_merge.live.chat.screen import talk
    from pv_merge.live.chat.session import ChatSession
    from pv_merge.live.chat.stream import ChatSettings

    settings = ChatSettings(max_new_tokens, temperature, seed, system)
    with live_engine(recipe, dtype) as engine:
        talk(ChatSession(engine, settings), Console(highlight=False))

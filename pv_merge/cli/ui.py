"""``pv-merge ui``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("ui")
@click.argument(
    "recipe", type=click.Path(path_type=Path), default="recipes/quickstart/playground.yml"
)
@click.option(
    "--engine",
    metavar="URL",
    help="Ask this server (pv-merge serve-config) instead of loading the base.",
)
@click.option(
    "--space",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write what a Hugging Face Space needs, and end.",
)
@click.option("--base-model", metavar="NAME", help="With --space: the base's name on the Hub.")
@click.option(
    "--prompt", "prompts", multiple=True, metavar="TEXT", help="A prompt to try; repeat for more."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="0 takes any free port.",
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=120,
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
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Dtype of the model in memory.",
)
def command(
    recipe: Path, engine: str | None, space: Path | None, base_model: str | None,
    prompts: tuple[str, ...], host: str, port: int, browser: bool, max_new_tokens: int,
    temperature: float, system: str | None, dtype: str,
) -> None:  # fmt: skip
    """A page in the browser: RECIPE's base and mix side by side, a slider for each preference.

    \b
    pv-merge ui recipe.yml
    pv-merge ui recipe.yml --engine http://127.0.0.1:8000
    pv-merge ui recipe.yml --space ./space
    """
    if space is not None:
        from pv_merge.ui.space import write_space

        for line in write_space(recipe, space, base_model):
            click.echo(line)
        return
    from pv_merge.live.chat.stream import ChatSettings
    from pv_merge.ui.serve import open_page

    open_page(
        recipe, engine=engine, prompts=prompts, dtype=dtype, host=host, port=port, browser=browser,
        settings=ChatSettings(max_new_tokens, temperature, system=system), say=click.echo,
    )  # fmt: skip

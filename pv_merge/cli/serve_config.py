"""``pv-merge serve-config``."""

from __future__ import annotations

import click


@click.command("serve-config")
@click.argument("vectors", type=click.Path())
@click.option("--base", required=True, type=click.Path(), help="The model that vLLM will serve.")
@click.option(
    "--terms",
    type=click.IntRange(min=1),
    help="Most preferences in one mix. [default: all of them, at most 8]",
)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Different mixes that are served at the same time.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Read the base to compare it with the manifests, whatever its size.",
)
@click.option(
    "--allow-related-base",
    "related",
    is_flag=True,
    help="Serve vectors that were made from other bases, as a recipe's allow_related_base does.",
)
def command(
    vectors: str, base: str, terms: int | None, clients: int, deep: bool, related: bool
) -> None:
    """Print the command that serves any mix of VECTORS, a folder of low-rank vectors.

    \b
    pv-merge serve-config ./vectors --base ./models/base > serve.sh && bash serve.sh
    """
    from pv_merge.integrations.vllm.command_line import notes, plan, render

    made = plan(vectors, base, terms, clients, deep=deep, related=related)
    for note in notes(made):
        click.echo(f"# {note}", err=True)
    click.echo(render(made))

"""``pv-merge export``."""

from __future__ import annotations

from typing import Any

import click


@click.command("export")
@click.argument("recipe", type=click.Path())
@click.option(
    "--to",
    "target",
    metavar="peft|gguf",
    required=True,
    help="peft: one adapter that is the whole mix; gguf: one for each vector, for llama.cpp; or what another package registers.",
)
@click.option("-o", "--output", required=True, type=click.Path(), help="New folder for it.")
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    help="Truncate each weight's change to this rank, and tell the error; by default nothing is lost.",
)
@click.option(
    "--max-rank",
    type=click.IntRange(min=1),
    help="The engine's limit, above which an adapter is refused; 512 for peft (vLLM's), none for gguf.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Dtype of A and B.",
)
def command(
    recipe: str, target: str, output: str, rank: int | None, max_rank: int | None, dtype: str
) -> None:
    """Write RECIPE's vectors as LoRA adapters, for engines that serve them over the base.

    \b
    pv-merge export recipe.yml --to peft -o ./adapters/mix      # eta baked in: PEFT, vLLM
    pv-merge export recipe.yml --to gguf -o ./adapters/gguf     # eta is llama.cpp's scale
    """
    from pv_merge.cli.findings import print_findings
    from pv_merge.cli.progress import bar
    from pv_merge.integrations.export import TARGETS, export

    options: dict[str, Any] = {"rank": rank, "max_rank": max_rank, "dtype": dtype}
    with bar("export") as advance:
        manifest = export(recipe, output, target, **options, found=print_findings, advance=advance)
    for line in TARGETS.get(target).usage(manifest, output):
        click.echo(line)

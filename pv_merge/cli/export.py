"""``pv-merge export``."""

from __future__ import annotations

from typing import Any

import click


@click.command("export")
@click.argument("recipe", type=click.Path())
@click.option(
    "--to",
    "target",
    metavar="peft|gguf|gguf-model",
    required=True,
    help="peft: one adapter that is the whole mix; gguf: one for each vector, for llama.cpp; gguf-model: the whole merged model; or what another package registers.",
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
@click.option(
    "--mix", is_flag=True, help="gguf: one adapter that is the whole mix, as Ollama takes it."
)
@click.option(
    "--quantize",
    metavar="TYPE",
    help="gguf-model: llama.cpp's type of the weights, such as Q4_K_M; by default the recipe's dtype.",
)
def command(recipe: str, target: str, output: str, **said: Any) -> None:
    """Write RECIPE's vectors as LoRA adapters, for engines that serve them over the base, or the merged model.

    \b
    pv-merge export recipe.yml --to peft -o ./adapters/mix      # eta baked in: PEFT, vLLM
    pv-merge export recipe.yml --to gguf -o ./adapters/gguf     # eta is llama.cpp's scale
    pv-merge export recipe.yml --to gguf-model -o ./gguf --quantize Q4_K_M    # Ollama, LM Studio
    """
    from pv_merge.cli.findings import print_findings
    from pv_merge.cli.progress import bar
    from pv_merge.integrations.export import TARGETS, export

    with bar("export") as advance:
        manifest = export(recipe, output, target, **said, found=print_findings, advance=advance)
    for line in TARGETS.get(target).usage(manifest, output):
        click.echo(line)

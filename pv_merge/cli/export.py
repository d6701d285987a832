"""``pv-merge export``."""

from __future__ import annotations

import click


@click.command("export")
@click.argument("recipe", type=click.Path())
@click.option(
    "--to",
    "target",
    type=click.Choice(["peft", "gguf"]),
    required=True,
    help="peft: one adapter that is the whole mix; gguf: one for each vector, for llama.cpp.",
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
    from pv_merge.integrations.export import ExportOptions, export_peft
    from pv_merge.integrations.llama_cpp import export_gguf, llama_commands
    from pv_merge.integrations.vllm.ranks import vllm_rank

    options = ExportOptions(rank, max_rank, dtype)
    with bar("export") as advance:
        export = export_peft if target == "peft" else export_gguf
        manifest = export(recipe, output, options, found=print_findings, advance=advance)
    if target == "gguf":
        for name, said in manifest["preferences"].items():
            click.echo(f"{name}: {output}/{said['file']}, {_rank(said)}")
        for line in llama_commands(manifest, output):
            click.echo(f"  {line}")
        return
    click.echo(f"one adapter in {output}, {_rank(manifest)}")
    limit = vllm_rank(manifest["rank"])
    if limit is not None:
        base = manifest["base"]["path"]
        click.echo(
            f"  vllm serve {base} --enable-lora --max-lora-rank {limit} --lora-modules mix={output}"
        )


def _rank(said: dict[str, object]) -> str:
    text = f"rank {said['rank']}"
    if said["relative_error"]:
        text += f", truncated with relative error {said['relative_error']:.2e}"
    left = said.get("left_out")
    if isinstance(left, list):
        text += f" ({left[0]} and the like left out, {len(left)} in all)"
    return text

"""``pv-merge dequantize``."""

from __future__ import annotations

import click


@click.command("dequantize")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="New folder for it.")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="Dtype of the weights.",
)
def command(model: str, output: str, dtype: str) -> None:
    """Write the weights of a quantized MODEL in full: fp8 blocks, compressed-tensors, GPTQ, AWQ.

    pv-merge run does the same by itself for a recipe's base, into the cache.
    """
    from pv_merge.artifacts.checkpoint import Checkpoint
    from pv_merge.artifacts.quantized.dequantize import dequantize
    from pv_merge.cli.progress import bar

    with bar("dequantize") as advance:
        dequantize(model, output, dtype, advance)
    click.echo(f"{output}: {Checkpoint(output).parameters / 1e6:.1f} M parameters in {dtype}")

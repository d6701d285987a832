"""``pv-merge extract``."""

from __future__ import annotations

import click


@click.command("extract")
@click.argument("positive", type=click.Path())
@click.argument("negative", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder for the vector.")
@click.option(
    "--base",
    type=click.Path(),
    help="The base's folder, where neither manifest nor adapter names it.",
)
@click.option(
    "--name",
    help="The preference's name. [default: as the manifests have it, else the output's folder]",
)
@click.option(
    "--form",
    type=click.Choice(["dense", "low-rank"]),
    default="dense",
    show_default=True,
    help="dense: a tensor for each weight, as mergekit reads it; low-rank: one adapter, for PEFT and vLLM.",
)
@click.option(
    "--rank", type=click.IntRange(min=1), help="Low-rank from checkpoints: the rank to keep."
)
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    help="Low-rank from checkpoints: the share of each squared norm to keep.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Dtype of the deltas.",
)
@click.option(
    "--allow-different-bases",
    is_flag=True,
    help="Subtract policies that were trained from two bases.",
)
def command(
    positive: str,
    negative: str,
    output: str,
    base: str | None,
    name: str | None,
    form: str,
    rank: int | None,
    energy: float | None,
    dtype: str,
    allow_different_bases: bool,
) -> None:
    """Make the preference vector POSITIVE - NEGATIVE of two policies (adapters or checkpoints)."""
    from pv_merge.arithmetic.rounding_noise import noise_warning
    from pv_merge.cli.progress import bar
    from pv_merge.merging.extract import ExtractOptions, extract
    from pv_merge.merging.halves import what_follows

    options = ExtractOptions(
        base, name, form == "low-rank", rank, energy, dtype, allow_different_bases
    )
    with bar("extract") as advance:
        manifest = extract(positive, negative, output, options, advance)
    measures = manifest["measures"]
    click.echo(
        f"{manifest['preference']}: {manifest['form']} vector in {output}, ‖φ‖ {measures['norm']:.4g}, "
        f"cos(+,−) {measures['cosine_positive_negative']:+.3f}, {measures['tensors_moved']} weights move"
    )
    click.echo(what_follows(measures["cosine_positive_negative"]))
    share = measures.get("rounding_noise", 0.0)
    if (line := noise_warning(share, manifest["preference"])) is not None:
        click.echo(f"warning: {line}", err=True)
    if "relative_error" in manifest:
        click.echo(f"rank {manifest['rank']}, relative error {manifest['relative_error']:.2e}")

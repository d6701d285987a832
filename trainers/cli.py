"""``pv-train``: the command. Each subcommand converts, reports, and leaves the thinking to others."""

from __future__ import annotations

import os

import click

from pv_merge import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pv-train")
def main() -> None:
    """Train the policies that preference vectors are made of."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Huge pages for torch's large blocks: a third less system time in a CPU training step.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@main.command()
@click.argument("config", type=click.Path(dir_okay=False))
@click.option(
    "--polarity",
    type=click.Choice(["positive", "negative", "both"]),
    default="both",
    show_default=True,
    help="Which policy to train; the negative one reads the same pairs with their labels swapped.",
)
@click.option("-o", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, such as dpo.learning_rate=5e-7.")
@click.option("--resume", is_flag=True, help="Finish a run that was interrupted; finished policies stay.")
def dpo(config: str, polarity: str, overrides: tuple[str, ...], resume: bool) -> None:
    """Train a preference's policies by DPO, as the YAML file CONFIG says."""
    from trainers.settings import POLARITIES, read_settings

    settings = read_settings(config, overrides)
    from trainers.dpo import train
    from trainers.report import print_outcomes

    chosen = [name for name in POLARITIES if polarity in (name, "both")]
    print_outcomes(settings, train(settings, chosen, resume))

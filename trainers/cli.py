"""``pv-train``: the command. Each subcommand converts, reports, and leaves the thinking to others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from pv_merge.artifacts.interrupts import Program
from pv_merge.errors import PvMergeError
from pv_merge.version import __version__
from trainers.traits.cli import pairs, trait


class _OneVoice(Program):
    """Of several processes, only the first says what went wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PvMergeError:
            if os.environ.get("RANK", "0") != "0":
                sys.exit(1)
            raise


@click.group(cls=_OneVoice, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pv-train")
def main() -> None:
    """Train the policies that preference vectors are made of."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Huge pages for torch's large blocks: a third less system time in a CPU training step.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _config(command: Callable[..., None]) -> Callable[..., None]:
    override = click.option(
        "-o",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a setting, such as dpo.learning_rate=5e-7.",
    )
    return click.argument("config", type=click.Path(dir_okay=False))(override(command))


_resume = click.option(
    "--resume", is_flag=True, help="Finish a run that was interrupted; what is finished stays."
)
_push = click.option(
    "--push-to-hub", "repository", metavar="REPO", help="Push the result there, by pv-merge push."
)


@main.command()
@_config
@click.option(
    "--polarity",
    type=click.Choice(["positive", "negative", "both"]),
    default="both",
    show_default=True,
    help="Which policy to train; the negative one reads the same pairs with their labels swapped.",
)
@_resume
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what it would cost (parameters, memory, steps, hours), from two real steps.",
)
@_push
def dpo(
    config: str,
    polarity: str,
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    repository: str | None,
) -> None:
    """Train a preference's policies by DPO, as the YAML file CONFIG says."""
    from trainers.config_file import read_settings
    from trainers.publish import check_publishing, publish
    from trainers.report import print_outcomes
    from trainers.settings import POLARITIES

    settings = read_settings(config, overrides)
    if repository:
        check_publishing(repository)
    if dry_run:
        from trainers.dry_run import estimate, print_estimate

        print_estimate(settings, estimate(settings))
        return
    from trainers.dpo import train

    chosen = [name for name in POLARITIES if polarity in (name, "both")]
    outcomes = train(settings, chosen, resume)
    print_outcomes(f"{settings.preference}: policies in {settings.output_dir}", outcomes)
    if repository:
        publish([outcome.folder for outcome in outcomes], repository)


@main.command()
@_config
@_resume
@_push
def sft(config: str, overrides: tuple[str, ...], resume: bool, repository: str | None) -> None:
    """Train a base by supervised fine-tuning, as the YAML file CONFIG says."""
    from trainers.config_file import read_sft_settings
    from trainers.publish import check_publishing, publish
    from trainers.report import print_outcomes

    settings = read_sft_settings(config, overrides)
    if repository:
        check_publishing(repository)
    from trainers.sft import train_base

    outcome = train_base(settings, resume)
    print_outcomes(f"base in {settings.output_dir}", [outcome])
    if repository:
        publish([outcome.folder], repository)


@main.command()
@_config
@_resume
def reward(config: str, overrides: tuple[str, ...], resume: bool) -> None:
    """Train a reward model on a preference's pairs, as the YAML file CONFIG says."""
    from trainers.config_file import read_reward_settings
    from trainers.report import print_outcomes

    settings = read_reward_settings(config, overrides)
    from trainers.reward import train_reward

    outcome = train_reward(settings, resume)
    print_outcomes(f"reward model in {settings.output_dir}", [outcome])


@main.command()
@_config
def preview(config: str, overrides: tuple[str, ...]) -> None:
    """Show rows of both polarities as CONFIG would train on them; train nothing."""
    from trainers.config_file import read_settings
    from trainers.preview import preview as look
    from trainers.preview import print_preview

    settings = read_settings(config, overrides)
    print_preview(settings, look(settings))


main.add_command(pairs)
main.add_command(trait)

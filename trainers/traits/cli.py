"""``pv-train pairs`` and ``pv-train trait``."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)
_prompts_from = click.option(
    "--prompts-from",
    metavar="FILE|DATA:FORMAT|written",
    help="Prompts from elsewhere than the trait file says: a csv, jsonl or txt file, or a data set "
    "of any format, such as data.jsonl:hh-rlhf.",
)


@click.command()
@click.argument("trait_file", metavar="TRAIT.yml", type=_PATH)
@click.option("-o", "--output", required=True, type=_PATH, help="File for the pairs (.jsonl).")
@_prompts_from
@click.option("--base", metavar="MODEL", help="What `model: base` means: the model to be trained.")
@click.option(
    "--dry-run", is_flag=True, help="Show the messages and the estimated cost; ask nothing."
)
def pairs(
    trait_file: Path, output: Path, prompts_from: str | None, base: str | None, dry_run: bool
) -> None:
    """Write preference pairs from the description of a trait, as TRAIT.yml says.

    Every reply is cached: after a kill, the same command goes on where it was.

    \b
    pv-train pairs recipes/traits/patient.yml -o ./runs/patient/pairs.jsonl
    """
    from rich.console import Console

    from trainers.traits.forecast import forecast
    from trainers.traits.models import with_base
    from trainers.traits.run import write_pairs
    from trainers.traits.table import print_forecast, print_pairs, watched
    from trainers.traits.trait_file import read_trait

    trait = read_trait(trait_file, prompts_from)
    if dry_run:
        print_forecast(forecast(trait), messages=True, console=Console())
        return
    with watched() as watch:
        found = write_pairs(with_base(trait, base), output, watch)
    print_pairs(found)


@click.command()
@click.argument("trait_file", metavar="TRAIT.yml", type=_PATH)
@click.option(
    "--base", required=True, metavar="DIR", help="The model to be trained: folder or Hub name."
)
@click.option("-o", "--output", required=True, type=_PATH, help="Folder for everything.")
@_prompts_from
@click.option(
    "--until",
    type=click.Choice(["pairs", "train", "extract", "sweep"]),
    default="sweep",
    help="Stop after this stage.",
)
@click.option(
    "--skip",
    multiple=True,
    type=click.Choice(["pairs", "train", "extract", "sweep"]),
    help="Leave this stage out and take what is there.",
)
@click.option("--dry-run", is_flag=True, help="Print the commands of the stages; run none.")
def trait(
    trait_file: Path,
    base: str,
    output: Path,
    prompts_from: str | None,
    until: str,
    skip: tuple[str, ...],
    dry_run: bool,
) -> None:
    """From a trait to its vector: pairs, both policies, extraction, and a control curve.

    Each stage is a command of its own, printed as you would type it. What is finished is skipped,
    so after a kill the same command goes on; an edited DIR/train.yml or recipe.yml is taken as it is.

    \b
    pv-train trait recipes/traits/patient.yml --base ./models/base -o ./runs/patient
    """
    from trainers.traits.stages import closing_lines, make_stages, run_stages

    stages = make_stages(trait_file, base, output, prompts_from)
    run_stages(stages, until, skip, dry_run, click.echo)
    if until == "sweep" and not dry_run:
        for line in closing_lines(output):
            click.echo(line)

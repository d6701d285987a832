"""``pv-merge push``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("push")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("repo", metavar="NAMESPACE/NAME")
@click.option("--public", is_flag=True, help="Create it public; it is private otherwise.")
@click.option(
    "--dry-run", is_flag=True, help="Print the card and the files with their sizes; send nothing."
)
@click.option("--revision", metavar="BRANCH", help="Branch to write to, made where there is none.")
@click.option("--commit-message", metavar="TEXT", help="Message of the one commit.")
@click.option("--exist-ok", is_flag=True, help="Write to a repository that exists.")
@click.option("--notes", type=_FILE, help="Your own text for the card, in Markdown.")
@click.option(
    "--evaluation",
    "evaluations",
    type=_FILE,
    multiple=True,
    help="Results of pv-merge evaluate or sweep; those in DIR are found.",
)
@click.option("--base-model", metavar="NAMESPACE/NAME", help="The base's name on the Hub.")
@click.option("--license", metavar="ID", help="The licence, such as apache-2.0.")
@click.option(
    "--include", multiple=True, metavar="FILE", help="Publish this file although it is refused."
)
@click.option(
    "--allow-protected-negative",
    is_flag=True,
    help="Publish a model that was moved against a protected preference.",
)
@click.option(
    "--collection", is_flag=True, help="Publish each subfolder NAME=ETA of DIR as a revision."
)
def command(folder: Path, repo: str, dry_run: bool, collection: bool, **options: Any) -> None:
    """Publish a merge, a vector or a policy in DIR on the Hub, in one commit, with a card.

    The token is that of `hf auth login`, or HF_TOKEN.
    """
    from pv_merge.hub.collection import push_collection
    from pv_merge.hub.push import push
    from pv_merge.hub.push_plan import PushOptions

    settings = PushOptions(
        **{
            **options,
            "evaluations": tuple(options["evaluations"]),
            "include": tuple(options["include"]),
        }
    )

    def told(line: str) -> None:
        click.echo(line, err=True)

    if dry_run:
        _dry_run(folder, repo, settings, collection)
        return
    send = push_collection if collection else push
    click.echo(send(folder, repo, settings, told))


def _dry_run(folder: Path, repo: str, settings: Any, collection: bool) -> None:
    from pv_merge.hub.card.markdown import plain
    from pv_merge.hub.collection import collect
    from pv_merge.hub.push import size
    from pv_merge.hub.push_plan import CARD, make_plan

    if collection:
        found = collect(folder, repo, settings)
        plans, warnings = found.plans, found.warnings
        cards = [(repo, found.main_card(plans[0].notes))]
    else:
        plans = [make_plan(folder, repo, settings)]
        warnings = plans[0].warnings
        cards = [(repo, plans[0].card())]
    for _, card in cards:
        click.echo(card)
    for plan in plans:
        revision = f"@{plan.options.revision}" if plan.options.revision else ""
        click.echo(f"{repo}{revision}: {len(plan.files) + 1} files, {size(plan.total)}")
        for name, count in {CARD: len(plan.card().encode()), **plan.files}.items():
            click.echo(f"  {size(count):>10}  {plain(name)}")
        for name in plan.left_out:
            click.echo(f"  {'left out':>10}  {plain(name)}")
    for line in warnings:
        click.echo(f"{click.style('warning', fg='yellow')}: {line}", err=True)
    visible = "public" if settings.public else "private"
    click.echo(
        f"Nothing was sent. The repository would be {visible}; notes in a card that is there already "
        "would be kept."
    )

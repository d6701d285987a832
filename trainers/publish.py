"""What was trained, on the Hub: left to ``pv-merge push``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from pv_merge.errors import PvMergeError
from trainers import ranks


def check_publishing(repository: str) -> None:
    """Raise ``PvMergeError``, before any training, if ``repository`` cannot be pushed to."""
    if find_spec("pv_merge.hub.push") is None:
        raise PvMergeError(
            "--push-to-hub needs pv_merge.hub.push, which this version does not have; train without it "
            "and upload the folder with `hf upload`"
        )
    from pv_merge.hub.push_names import checked_name

    checked_name(repository)


def publish(folders: Sequence[Path], repository: str) -> None:
    """Push each folder to ``repository``, or to ``repository-NAME`` if there are several."""
    if ranks.rank() != 0:
        return
    from pv_merge.hub.push import push

    for folder in folders:
        name = repository if len(folders) == 1 else f"{repository}-{folder.name}"
        click.echo(push(folder, name, told=lambda line: click.echo(line, err=True)))

"""A command that has the options of every known measure."""

from __future__ import annotations

import click


class MeasuringCommand(click.Command):
    """Takes its own parameters and, after them, those of the measures that are registered."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all parameters; the measures are asked when the command is run, not imported."""
        own = super().get_params(ctx)
        taken = {parameter.name for parameter in own}
        measures = [option for option in _options() if option.name not in taken]
        return [*own[:-1], *measures, own[-1]]  # --help is the last


def _options() -> list[click.Option]:
    from pv_merge.evaluation.measures import registry

    return [
        click.Option(
            [option.flag],
            multiple=repeated,
            default=None if repeated else option.default,
            type=option.kind if option.minimum is None else click.IntRange(option.minimum),
            metavar=option.metavar,
            show_default=option.default is not None,
            help=option.help,
        )
        for option, repeated in registry.measure_options()
    ]

"""``pv-merge``: one file for each subcommand, loaded when it is called."""

from __future__ import annotations

import importlib
import os

import click

from pv_merge.artifacts.interrupts import interrupt_on_signals
from pv_merge.version import __version__

COMMANDS = {
    "calibrate": "Suggest eta from few measurements, under constraints.",
    "check": "Report every problem of a recipe before anything is read in full.",
    "dequantize": "Write the weights of a quantized model in full.",
    "drift": "Show how far a fine-tune has moved along vectors, and the eta that undoes it.",
    "evaluate": "Measure a model or a recipe: pairs, refusal, reward models, capability.",
    "chat": "Talk to the base and the mix side by side, and change eta meanwhile.",
    "env": "Show versions, devices and plugins, for a report of a fault.",
    "export": "Write adapters for PEFT, vLLM and llama.cpp.",
    "extract": "Make a preference vector of a positive and a negative policy.",
    "fetch": "Write a small real base model, with no account and no hub.",
    "init": "Write the files of a new preference: config, recipe, pairs.",
    "inspect": "Show norms, cosines and interference of vectors.",
    "pull": "Fetch a model, vector or policy from the Hub.",
    "push": "Publish a model, vector or policy on the Hub, with a card.",
    "quickstart": "Fetch a small model, extract, merge and measure, in a folder of its own.",
    "report": "Say how much of each vector reached a merged model's dtype.",
    "run": "Merge, the fast way.",
    "serve-config": "Print the command line that serves any mix of vectors with vLLM.",
    "sweep": "Measure a grid of eta, merged in memory.",
    "ui": "A page in the browser, with a slider for each preference.",
}
"""Each command with its one-line help, so that ``--help`` imports none of them."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import ``pv_merge.cli.NAME`` (with ``_`` for ``-``) and return its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"pv_merge.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from ``COMMANDS``."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pv-merge")
@click.pass_context
def main(context: click.Context) -> None:
    """Extract preference vectors, and add any number of them to a base model."""
    context.call_on_close(interrupt_on_signals())
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Huge pages for torch's large blocks: a third less system time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

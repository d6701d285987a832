"""What one sees of written pairs: progress, what was kept, three rows, what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainers.progress import progress_bar
from trainers.traits.forecast import Forecast, Share, forecast
from trainers.traits.run import Pairs
from trainers.traits.writing import Candidate, Writing

ROWS = 3
CUE = 0.75
"""Share of pairs in which the same side is longer, from which length may be a cue."""
LONGER = 1.15
"""Ratio of the mean lengths from which that cue is one."""

FEW = 0.2
"""Share kept below which the writer is said to be too weak."""


@contextmanager
def watched() -> Iterator[Callable[[Writing], Callable[[], None]]]:
    """Show a bar of the pairs kept; yield what ``write_pairs`` takes as ``watch``."""
    with progress_bar() as bar:

        def watch(writing: Writing) -> Callable[[], None]:
            trait, cost = writing.trait, writing.writer.cost
            print_forecast(forecast(trait), messages=False, console=bar.console)
            task = bar.add_task(trait.preference, total=trait.pairs, note="")

            def advance() -> None:
                harvest = writing.harvest
                done = [c for c in harvest.kept if c.verdict is not None]
                note = f"{len(harvest.candidates)} written, {cost.requests} replies"
                note += f" ({cost.cached} cached), {cost.tokens_out} tokens"
                bar.update(task, completed=len(done), note=note)

            return advance

        yield watch


def print_forecast(found: Forecast, messages: bool, console: Console) -> None:
    """Print the estimate, and with ``messages`` one of each kind."""
    if messages:
        for kind, parts in found.messages.items():
            console.rule(kind, align="left")
            for role, text in parts:
                console.print(f"[bold]{role}[/] {escape(text)}", highlight=False)
        console.rule()
    shares = [("writer", found.writer), *([("judge", found.judge)] if found.judge else [])]
    for role, share in shares:
        console.print(f"{role}: {_expected(share)}", highlight=False)
    console.print("estimated; twice that if every second pair is kept", style="dim")


def print_pairs(found: Pairs) -> None:
    """Print the table of what was kept and why the rest was not, three rows, and the costs."""
    console, manifest = Console(), found.manifest
    already = " (already there)" if found.skipped else ""
    table = Table(title=f"{manifest['preference']}: pairs{already}", title_justify="left")
    table.add_column("")
    table.add_column("pairs", justify="right")
    table.add_column("share", justify="right")
    for name, count in ({"kept": manifest["kept"]} | manifest["reasons"]).items():
        table.add_row(name, str(count), f"{count / manifest['written']:.0%}")
    table.add_row("written", str(manifest["written"]), "", style="dim")
    console.print(table)
    for candidate in found.kept[:ROWS]:
        _print_row(console, candidate)
    for line in _lines(found):
        console.print(line, highlight=False)


def _lines(found: Pairs) -> Iterator[str]:
    manifest, synthetic = found.manifest, found.manifest["synthetic"]
    words = manifest["words"]
    yield (
        f"words: {words['chosen']:g} chosen, {words['rejected']:g} rejected; the chosen one is the "
        f"longer in {words['chosen_longer']:.0%}"
    )
    means = sorted((words["chosen"], words["rejected"]))
    if abs(words["chosen_longer"] - 0.5) > CUE - 0.5 and means[1] > LONGER * means[0]:
        yield "[yellow]one side is nearly always the longer, so length is a cue; lower length_band[/]"
    yield escape(f"written by {synthetic['writer']}; judged by {synthetic['judge']}")
    if manifest["judge_note"]:
        yield f"[yellow]{escape(manifest['judge_note'])}[/]"
    for role, cost in manifest["cost"].items():
        yield _spent(role, cost, manifest["kept"])
    if manifest["kept"] < FEW * manifest["written"]:
        yield "[yellow]few were kept: the writer hardly shows the trait; take a larger one, and a model as judge[/]"
    lacking = manifest["identity"]["pairs"] - manifest["kept"]
    if lacking > 0:
        yield f"[yellow]{lacking} fewer than asked for: the prompts ended, or too many failed[/]"
    files = found.files
    out = f", {files.held_out} ({manifest['held_out_prompts']} prompts held out)"
    yield escape(f"{files.pairs}{out if manifest['held_out_sha256'] else ''}, {files.candidates}")


def _spent(role: str, cost: dict[str, Any], kept: int) -> str:
    about = "about " if cost["tokens_estimated"] else ""
    tokens = cost["tokens_in"] + cost["tokens_out"]
    failed = f", {cost['failed']} failed" if cost["failed"] else ""
    return (
        f"{role}: {cost['requests']} requests ({cost['cached']} from the cache{failed}), "
        f"{about}{cost['tokens_in']} tokens in and {cost['tokens_out']} out ({tokens / kept:.0f} a kept "
        f"pair), {cost['seconds']:.0f} s ({cost['seconds'] / kept:.1f} s a kept pair)"
    )


def _expected(share: Share) -> str:
    return f"{share.requests} requests, {share.tokens_in} tokens in, at most {share.tokens_out} out"


def _print_row(console: Console, candidate: Candidate) -> None:
    verdict = candidate.verdict
    console.print(f"[dim]prompt[/]   {escape(candidate.prompt[-1][1])}", highlight=False)
    for label, color, text, side in (
        ("chosen  ", "green", candidate.positive, "positive"),
        ("rejected", "red", candidate.negative, "negative"),
    ):
        grade = getattr(verdict, side) if verdict else None
        points = "" if grade is None or grade.trait is None else f" [dim]({grade.trait:.0f})[/]"
        console.print(f"[{color}]{label}[/] {escape(text)}{points}", highlight=False)

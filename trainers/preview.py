"""What a config would train on: rows as the model sees them, with their tokens counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pv_merge.data.pairs import load_pairs
from trainers.arguments import dpo_arguments
from trainers.model import load_tokenizer
from trainers.progress import quiet_libraries
from trainers.settings import DPOSettings
from trainers.tokens import tokenize


@dataclass(frozen=True)
class Rendered:
    """One row of one polarity, with the chat template applied."""

    prompt: str
    chosen: str
    rejected: str
    tokens: tuple[int, int, int]
    """Tokens of prompt, chosen and rejected."""
    cut: bool
    """Whether an answer is cut at ``max_length``."""


@dataclass(frozen=True)
class Preview:
    """Rows of both polarities, and counts over the whole data set."""

    rows: dict[str, list[Rendered]]
    kept: int
    dropped: dict[str, int]
    truncated: int
    max_length: int | None
    template: bool
    mean_tokens: float
    """Mean length of a row's longer side, in tokens."""


def preview(settings: DPOSettings, count: int = 3) -> Preview:
    """Return the first ``count`` rows of each polarity, and what length does to the rest."""
    quiet_libraries()
    arguments = dpo_arguments(settings, Path(settings.output_dir))
    tokenizer = load_tokenizer(settings.base_model)
    data = load_pairs(settings.dataset)
    tokens = tokenize(data.pairs, tokenizer, arguments, settings.dataset.path)
    limit = arguments.max_length
    rows: dict[str, list[Rendered]] = {}
    for polarity, table in (("positive", tokens.rows), ("negative", tokens.swapped())):
        rows[polarity] = []
        for row in table.select(range(min(count, len(table)))):
            ids = [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]]
            prompt, chosen, rejected = (tokenizer.decode(part) for part in ids)
            sizes = (len(ids[0]), len(ids[1]), len(ids[2]))
            cut = limit is not None and sizes[0] + max(sizes[1:]) > limit
            rows[polarity].append(Rendered(prompt, chosen, rejected, sizes, cut))
    return Preview(
        rows=rows,
        kept=len(tokens.rows),
        dropped={
            **{why.replace("_", " "): count for why, count in data.dropped().items()},
            "prompt fills max_length": tokens.filled,
        },
        truncated=tokens.truncated,
        max_length=limit,
        template=tokenizer.chat_template is not None,
        mean_tokens=sum(tokens.rows["length"]) / len(tokens.rows),
    )


def print_preview(settings: DPOSettings, found: Preview) -> None:
    """Print a preview."""
    console = Console()
    for polarity, rows in found.rows.items():
        console.rule(f"{settings.preference} {polarity}")
        for number, row in enumerate(rows, start=1):
            prompt, chosen, rejected = row.tokens
            note = f", cut at {found.max_length}" if row.cut else ""
            console.print(
                f"[bold]row {number}[/] ({prompt} + {chosen} chosen / {rejected} rejected tokens{note})"
            )
            console.print(f"[dim]prompt[/]   {escape(repr(row.prompt))}", highlight=False)
            console.print(f"[green]chosen[/]   {escape(repr(row.chosen))}", highlight=False)
            console.print(f"[red]rejected[/] {escape(repr(row.rejected))}", highlight=False)
    console.rule()
    if not found.template:
        console.print("the tokenizer has no chat template: rows are plain text")
    left_out = ", ".join(f"{n} {why}" for why, n in found.dropped.items() if n)
    console.print(
        f"{found.kept} pairs, {found.mean_tokens:.0f} tokens a side on average; left out: "
        f"{left_out or 'none'}; {found.truncated / found.kept:.1%} cut at max_length "
        f"{found.max_length}"
    )

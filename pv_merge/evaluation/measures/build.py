"""The measures that ``sweep``, ``evaluate`` and ``calibrate`` share, as command-line options."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import Measure

Command = Callable[..., Any]

OPTIONS = (
    click.option(
        "--pairs",
        multiple=True,
        metavar="NAME=FILE[:FORMAT]",
        help="Held-out pairs: log-prob margin, accuracies, implicit DPO reward margin.",
    ),
    click.option(
        "--beta", default=0.1, show_default=True, help="DPO temperature of the reward margin."
    ),
    click.option(
        "--refusal",
        multiple=True,
        metavar="[NAME=]FILE[:safe|:unsafe]",
        help="Prompts to be answered or refused (csv, jsonl, txt; XSTest, TruthfulQA).",
    ),
    click.option(
        "--judge-url",
        metavar="URL",
        help="Classify refusals by this OpenAI-compatible endpoint, not by phrases.",
    ),
    click.option(
        "--judge-model", default="gpt-4o", show_default=True, help="The endpoint's model."
    ),
    click.option(
        "--reward-model",
        multiple=True,
        metavar="[NAME=]MODEL",
        help="Mean score of answers to --reward-prompts.",
    ),
    click.option("--cost-model", multiple=True, metavar="[NAME=]MODEL", help="The same of −cost."),
    click.option(
        "--reward-prompts",
        metavar="FILE",
        help="Prompts for reward and cost models (csv, jsonl, txt).",
    ),
    click.option(
        "--known-prompts",
        default=0,
        type=click.IntRange(0),
        help="How many of --reward-prompts a reward model may have been trained on.",
    ),
    click.option(
        "--capability",
        multiple=True,
        metavar="[NAME=]FILE|TASK",
        help="Perplexity of a .txt; CommonsenseQA from a .jsonl; or a task of lm-evaluation-harness.",
    ),
    click.option(
        "--max-new-tokens", default=64, show_default=True, help="Length of generated answers."
    ),
    click.option(
        "--limit",
        type=click.IntRange(1),
        help="The first so many items of each file (of each label).",
    ),
)


def measure_options(command: Command) -> Command:
    """Add the options of every measure to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def build_measures(
    pairs: Sequence[str] = (),
    beta: float = 0.1,
    refusal: Sequence[str] = (),
    judge_url: str | None = None,
    judge_model: str = "gpt-4o",
    reward_model: Sequence[str] = (),
    cost_model: Sequence[str] = (),
    reward_prompts: str | None = None,
    known_prompts: int = 0,
    capability: Sequence[str] = (),
    max_new_tokens: int = 64,
    limit: int | None = None,
) -> list[Measure]:
    """Return the measures that the options ask for."""
    from pv_merge.evaluation.measures.pairs import read_pairs

    measures: list[Measure] = [read_pairs(text, beta, limit) for text in pairs]
    judge = None
    if judge_url is not None:
        from pv_merge.evaluation.measures.judge import Judge

        if not refusal:
            raise PvMergeError("--judge-url judges refusals; give --refusal FILE too")
        judge = Judge(judge_url, judge_model)
    for text in refusal:
        from pv_merge.evaluation.measures.refusal import RefusalMeasure

        name, place = _named(text, "refusal")
        prompts, data = _prompts(place, limit)
        measures.append(RefusalMeasure(name, prompts, data, max_new_tokens, judge))
    for option, models in (("reward", reward_model), ("cost", cost_model)):
        for text in models:
            from pv_merge.evaluation.measures.reward import RewardMeasure

            if reward_prompts is None:
                raise PvMergeError(
                    f"--{option}-model {text}: give --reward-prompts FILE, whose answers it is to score"
                )
            name, model = _named(text, "reward" if option == "reward" else "harmlessness")
            prompts, data = _prompts(reward_prompts, limit)
            cost = option == "cost"
            measures.append(
                RewardMeasure(name, model, prompts, data, max_new_tokens, cost, known_prompts)
            )
    measures += [_capability(text, limit) for text in capability]
    return measures


def _capability(text: str, limit: int | None) -> Measure:
    from pv_merge.evaluation.measures.choices import ChoicesMeasure
    from pv_merge.evaluation.measures.harness import HarnessMeasure
    from pv_merge.evaluation.measures.perplexity import PerplexityMeasure

    name, place = _named(text, "")
    path = Path(place)
    kind = path.suffix.lower()
    if kind in (".txt", ".jsonl", ".md") and not path.is_file():
        raise PvMergeError(f"--capability {text}: {place}: no such file")
    if kind == ".jsonl":
        return ChoicesMeasure(name or "commonsenseqa", path, limit)
    if path.is_file():
        if kind not in (".txt", ".md"):
            raise PvMergeError(
                f"--capability {text}: expected a .txt (perplexity) or a .jsonl (CommonsenseQA)"
            )
        return PerplexityMeasure(name or "perplexity", path, limit)
    return HarnessMeasure(name or place, place, limit)


def _named(text: str, default: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if equals and re.fullmatch(r"[A-Za-z_][\w-]*", name):
        return name, place
    return default, text


def _prompts(place: str, limit: int | None) -> tuple[Any, str]:
    from pv_merge.data.prompts import read_prompts
    from pv_merge.evaluation.journal import digest

    prompts = read_prompts(place, limit)
    return prompts, digest([[prompt.text, prompt.answerable] for prompt in prompts])

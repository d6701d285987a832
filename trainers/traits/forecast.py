"""What the pairs will cost, in requests and tokens, and the messages that will be sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pv_merge.asking.grades import GRADE_TOKENS, grade_messages
from pv_merge.asking.messages import estimated_tokens
from trainers.traits.messages import (
    FORMS,
    TOPICS,
    WORDINGS,
    Messages,
    answer_messages,
    manners,
    prompt_messages,
    question_of,
)
from trainers.traits.prompts import TOKENS_EACH, dataset_prompts
from trainers.traits.trait import TraitSettings
from trainers.traits.writing import answer_tokens

INVENTED = "(a prompt that the writer invents)"
ANSWER = "(the answer that the writer gives)"
SAMPLE = 50
"""Prompts by which the lengths are estimated."""


@dataclass(frozen=True)
class Share:
    """What goes to one model if every pair is kept; twice that if every second one is."""

    requests: int
    tokens_in: int
    tokens_out: int
    """At most."""


@dataclass(frozen=True)
class Forecast:
    """Estimated costs, and one example of each kind of message."""

    writer: Share
    judge: Share | None
    """None where no model judges."""
    messages: dict[str, Messages]


def forecast(trait: TraitSettings) -> Forecast:
    """Return what is to be expected; asks nothing of any model, and loads none."""
    prompts = _sample(trait)
    pairs, words = trait.pairs, answer_tokens(trait)
    sides = [answer_messages(trait, prompts[0], index) for index in range(len(WORDINGS))]
    template = sum(estimated_tokens(side[:1]) for pair in sides for side in pair) / (2 * len(sides))
    prompt = sum(estimated_tokens(p) for p in prompts) / len(prompts)
    requests, tokens_in, out = 2 * pairs, 2 * pairs * (template + prompt), 2 * pairs * words
    positive, negative = sides[0]
    messages = {"writer, positive": positive, "writer, negative": negative}
    written = trait.prompts.written
    if written is not None:
        ask = prompt_messages(
            (written.topics or TOPICS)[0], (written.forms or FORMS)[0], written.at_once
        )
        rounds = math.ceil(pairs / trait.per_prompt / written.at_once)
        requests, tokens_in = requests + rounds, tokens_in + rounds * estimated_tokens(ask)
        out += rounds * written.at_once * TOKENS_EACH
        messages = {"writer, new prompts": ask} | messages
    judge = None
    if trait.judge.model is not None if trait.judge else trait.writer.url is not None:
        asked = grade_messages(manners(trait), question_of(prompts[0]), ANSWER)
        messages["judge"] = asked
        each = estimated_tokens(asked) + prompt + words * 0.75
        judge = Share(2 * pairs, round(2 * pairs * each), 2 * pairs * GRADE_TOKENS)
    return Forecast(Share(requests, round(tokens_in), out), judge, messages)


def _sample(trait: TraitSettings) -> list[Messages]:
    if trait.prompts.dataset is not None:
        few = trait.prompts.dataset.model_copy(update={"max_rows": SAMPLE})
        return dataset_prompts(few)
    if trait.prompts.file is not None:
        from pv_merge.data.prompts import read_prompts

        return [(("user", prompt.text),) for prompt in read_prompts(trait.prompts.file)[:SAMPLE]]
    return [(("user", INVENTED),)]

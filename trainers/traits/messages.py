"""What the models are told: opposed instructions in several wordings, and those that ask for prompts."""

from __future__ import annotations

from pv_merge.asking.grades import opposed
from pv_merge.asking.messages import Messages
from trainers.traits.trait import TraitSettings

WORDINGS = (
    "You reply to the user's message. The manner of every reply of yours: {manner}. Use at most "
    "{words} words. Never speak about this manner or about these instructions.",
    "Answer the message below as somebody of whom it is rightly said: {manner}. Stay under {words} "
    "words, give the reply alone, and do not mention what you were told.",
    "You are playing a part, and never step out of it. Your part: {manner}. Reply to the user in at "
    "most {words} words without naming the part.",
    "House style, to be shown and never to be quoted: {manner}. Reply to what the user says, directly, "
    "in no more than {words} words.",
    "Whatever the user writes, let this be plain from how you answer, not from what you say about "
    "yourself: {manner}. At most {words} words.",
)
"""Instructions, drawn in turn; both answers of a pair are written under the same one."""

PROMPTS = """\
Write {count} different messages that a user could send to an assistant. Topic: {topic}. Each is {form}. \
They should be such that an assistant can answer them in very different manners. Do not answer them. \
One message a line, without numbers, headings or quotation marks."""

TOPICS = (
    "cooking", "a broken bicycle", "school homework", "saving money", "moving to another town",
    "a computer that will not start", "gardening", "a quarrel with a friend", "learning a language",
    "a job interview", "house plants", "travelling by train", "sleep", "a birthday party",
    "keeping a dog", "writing an e-mail", "how the weather works", "history", "mathematics",
    "running and exercise", "a late parcel", "choosing a book", "music lessons", "the night sky",
    "cleaning the house", "a noisy neighbour", "basic programming", "healthy food", "photography",
    "renting a flat",
)  # fmt: skip
FORMS = (
    "a short question", "a request for an explanation", "a request for advice",
    "a statement of a problem without a question", "a request for step-by-step help",
    "a question of somebody who is confused", "a request for an opinion", "a complaint",
)  # fmt: skip


def manners(trait: TraitSettings) -> tuple[str, str]:
    """Return the trait and its opposite as they stand in the instructions."""
    return opposed(trait.description, trait.opposite)


def answer_messages(
    trait: TraitSettings, prompt: Messages, wording: int
) -> tuple[Messages, Messages]:
    """Return the messages under which the positive and the negative answer are written."""
    template = WORDINGS[wording % len(WORDINGS)]
    positive, negative = (
        template.format(manner=manner, words=trait.max_words) for manner in manners(trait)
    )
    return (("system", positive), *prompt), (("system", negative), *prompt)


def prompt_messages(topic: str, form: str, count: int) -> Messages:
    """Return the message that asks for new prompts."""
    return (("user", PROMPTS.format(count=count, topic=topic, form=form)),)


def question_of(prompt: Messages) -> str:
    """Return the user's last message."""
    return prompt[-1][1]

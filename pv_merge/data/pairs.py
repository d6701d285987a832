"""Preference pairs: formats, checks, and the swap of labels that makes the negative policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pv_merge.data.rows import Row, RowError, instruction_prompt, messages, read_rows, text, value
from pv_merge.data.settings import DatasetSettings
from pv_merge.errors import PvMergeError, did_you_mean


@dataclass(frozen=True)
class Pair:
    """One comparison: a prompt as messages, and two answers of the assistant."""

    prompt: tuple[tuple[str, str], ...]
    """(role, text), the last one the user's."""
    chosen: str
    rejected: str

    def swapped(self) -> Pair:
        """Return the pair with its labels swapped, on which the negative policy is trained."""
        return Pair(self.prompt, self.rejected, self.chosen)


@dataclass(frozen=True)
class Pairs:
    """The usable pairs of a data set, and what was left out."""

    pairs: tuple[Pair, ...]
    equal: int
    """Rows dropped because chosen equals rejected."""
    undecided: int
    """Rows dropped because the label does not pick one answer."""
    long: int
    """Rows dropped because they exceed ``max_chars``."""
    empty: int = 0
    """Rows dropped because an answer is empty."""
    seen: int = 0
    """Rows dropped because their prompt is in the pairs that ``without`` names."""

    def dropped(self) -> dict[str, int]:
        """Return the rows dropped for each reason, as a manifest says it."""
        return {
            "chosen_equals_rejected": self.equal,
            "empty_answer": self.empty,
            "no_clear_label": self.undecided,
            "over_max_chars": self.long,
            "prompt_in_without": self.seen,
        }

    def fingerprint(self) -> str:
        """Return the SHA-256 of the pairs, in order."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(json.dumps([pair.prompt, pair.chosen, pair.rejected]).encode())
            digest.update(b"\n")
        return digest.hexdigest()


def pairs(row: Row, label: str | None) -> Pair | None:
    """prompt, chosen, rejected: plain text, or lists of messages."""
    return Pair(_prompt(row), _answer(row, "chosen"), _answer(row, "rejected"))


def instruction(row: Row, label: str | None) -> Pair | None:
    """instruction, input (may be absent or empty), chosen, rejected, as in the Alpaca form."""
    prompt = (("user", instruction_prompt(row)),)
    return Pair(prompt, _answer(row, "chosen"), _answer(row, "rejected"))


def hh_rlhf(row: Row, label: str | None) -> Pair | None:
    """chosen, rejected: whole dialogues in one string each, as Anthropic published them."""
    prompt, chosen = _dialogue(text(row, "chosen"), "chosen")
    other, rejected = _dialogue(text(row, "rejected"), "rejected")
    if prompt != other:
        # A few rows of the published file part before their last turn.
        return None
    return Pair(prompt, chosen, rejected)


def pku_saferlhf(row: Row, label: str | None) -> Pair | None:
    """prompt, response_0, response_1, and the label column that ``label:`` names."""
    known = ("better_response_id", "safer_response_id")
    if label not in known:
        hint = did_you_mean(label, known) if label else ""
        raise PvMergeError(
            "dataset: pku-saferlhf needs label: better_response_id (helpful) or "
            f"safer_response_id (harmless), got {label!r}{hint}"
        )
    return _response_pair(row, _index(row, label))


def safe_first(row: Row, label: str | None) -> Pair | None:
    """The columns of PKU-SafeRLHF, labelled as the paper's DPO-safe-first baseline labels them:
    the more helpful answer where both are safe, else the safer one."""
    safe = [bool(value(row, f"is_response_{i}_safe")) for i in (0, 1)]
    label = "better_response_id" if all(safe) else "safer_response_id"
    return _response_pair(row, _index(row, label))


def ultrafeedback(row: Row, label: str | None) -> Pair | None:
    """chosen, rejected: lists of messages that share all but the last, as in UltraFeedback."""
    chosen, rejected = messages(row, "chosen"), messages(row, "rejected")
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise RowError("chosen and rejected must share every message but the last")
    return Pair(chosen[:-1], chosen[-1][1], rejected[-1][1])


FORMATS: dict[str, Callable[[Row, str | None], Pair | None]] = {
    "pairs": pairs,
    "instruction": instruction,
    "hh-rlhf": hh_rlhf,
    "pku-saferlhf": pku_saferlhf,
    "safe-first": safe_first,
    "ultrafeedback": ultrafeedback,
}


def load_pairs(settings: DatasetSettings) -> Pairs:
    """Return the pairs of a data set.

    Raises ``PvMergeError`` if the file or format is unknown, if a row does not have the columns
    of its format, or if no usable row is left.
    """
    return convert(read_rows(settings), settings)


def convert(rows: Iterable[Row], settings: DatasetSettings) -> Pairs:
    """Return ``rows`` as pairs, by the format that ``settings`` names."""
    if settings.format not in FORMATS:
        hint = did_you_mean(settings.format, FORMATS)
        raise PvMergeError(f"{settings.path}: unknown format {settings.format!r}{hint}")
    to_pair = FORMATS[settings.format]
    kept: list[Pair] = []
    without = getattr(settings, "without", None)
    known = {pair.prompt for pair in load_pairs(without).pairs} if without else frozenset()
    equal = undecided = long = empty = seen = count = 0
    for count, row in enumerate(rows, start=1):
        try:
            pair = to_pair(row, settings.label)
        except RowError as error:
            columns = ", ".join(sorted(str(key) for key in row))
            raise PvMergeError(
                f"{settings.path}: row {count} is not of the format {settings.format}: {error} "
                f"(its columns: {columns}; formats: {', '.join(FORMATS)})"
            ) from None
        if pair is None:
            undecided += 1
        elif pair.chosen == pair.rejected:
            equal += 1
        elif not pair.chosen.strip() or not pair.rejected.strip():
            empty += 1
        elif pair.prompt in known:
            seen += 1
        elif settings.max_chars is not None and _characters(pair) > settings.max_chars:
            long += 1
        else:
            kept.append(pair)
            if settings.max_rows is not None and len(kept) >= settings.max_rows:
                break
    if count == 0:
        raise PvMergeError(f"{settings.path}: the data set is empty (split {settings.split})")
    if not kept:
        raise PvMergeError(
            f"{settings.path}: no usable row of {count}: in {equal} chosen equals rejected, "
            f"{empty} have an empty answer, {undecided} have no clear label, {long} are over "
            f"max_chars, the prompts of {seen} are in without; are the columns right?"
        )
    return Pairs(tuple(kept), equal, undecided, long, empty, seen)


def _characters(pair: Pair) -> int:
    prompt = sum(len(text) for _, text in pair.prompt)
    return prompt + max(len(pair.chosen), len(pair.rejected))


def _prompt(row: Row) -> tuple[tuple[str, str], ...]:
    if isinstance(row.get("prompt"), list):
        return messages(row, "prompt")
    return (("user", text(row, "prompt")),)


def _answer(row: Row, key: str) -> str:
    if isinstance(row.get(key), list):
        found = messages(row, key)
        if len(found) != 1:
            raise RowError(
                f"{key} must be one message, the answer; for whole dialogues use ultrafeedback"
            )
        return found[0][1]
    return text(row, key)


def _index(row: Row, key: str) -> int | None:
    found = value(row, key)
    return int(found) if isinstance(found, int | float) and found in (0, 1) else None


def _response_pair(row: Row, better: int | None) -> Pair | None:
    prompt, answers = text(row, "prompt"), (text(row, "response_0"), text(row, "response_1"))
    if better is None:
        return None
    return Pair((("user", prompt),), answers[better], answers[1 - better])


def _dialogue(whole: str, key: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Split ``\\n\\nHuman: … \\n\\nAssistant: …`` into the prompt's messages and the last answer."""
    marks = (("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant"))
    turns: list[tuple[str, str]] = []
    position = 0
    while position < len(whole):
        found = [(whole.find(mark, position), mark, role) for mark, role in marks]
        found = sorted(item for item in found if item[0] >= 0)
        if not found or (not turns and found[0][0] != 0):
            break
        start, mark, role = found[0]
        ends = [whole.find(other, start + len(mark)) for other, _ in marks]
        end = min((value for value in ends if value >= 0), default=len(whole))
        turns.append((role, whole[start + len(mark) : end].strip()))
        position = end
    if len(turns) < 2 or turns[0][0] != "user" or turns[-1][0] != "assistant":
        raise RowError(f'{key} must be a dialogue from "\\n\\nHuman:" to a last "\\n\\nAssistant:"')
    return tuple(turns[:-1]), turns[-1][1]

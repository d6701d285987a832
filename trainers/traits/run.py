"""``pv-train pairs`` as a function: a trait becomes files of pairs, or one line says why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from pv_merge.artifacts.provenance import file_hash
from pv_merge.asking.asker import Asker
from pv_merge.asking.replies import ReplyCache
from pv_merge.data.wording import word_count
from pv_merge.errors import PvMergeError
from trainers.manifest import versions
from trainers.traits.judges import Judge
from trainers.traits.models import make_backend, make_judge
from trainers.traits.pairs_files import PairsFiles, pair_rows
from trainers.traits.protected import opposed
from trainers.traits.trait import TraitSettings
from trainers.traits.trait_file import dump_trait
from trainers.traits.writing import Candidate, Writing, held_out

HOW = {"concurrency", "timeout", "retries", "key_env", "license"}
"""Settings of a model on which the pairs do not depend."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one trait."""

    manifest: dict[str, Any]
    files: PairsFiles
    kept: list[Candidate]
    """Empty where the pairs were there already."""
    skipped: bool = False


def write_pairs(
    trait: TraitSettings,
    output: str | Path,
    watch: Callable[[Writing], Callable[[], None]] = lambda writing: lambda: None,
) -> Pairs:
    """Write the pairs of ``trait`` (``with_base`` applied) to ``output`` and what stands beside it.

    Every reply is cached, so a run that was killed goes on where it was; what is there already is
    returned. ``watch`` gets the work before it starts, and returns what is called at every reply.
    Raises ``PvMergeError`` where no pair can be written or kept; the candidates are kept in a file.
    """
    files = PairsFiles(Path(output))
    identity = _identity(trait)
    with files.locked():
        known = files.finished(identity)
        if known is not None:
            return Pairs(known, files, [], skipped=True)
        cache = ReplyCache()
        try:
            writer = Asker(make_backend(trait.writer, "writer"), cache)
            writing = Writing(trait, writer, make_judge(trait, writer, cache))
            _run(writing, files, watch)
        finally:
            cache.close()
        kept = writing.harvest.kept
        out = held_out(trait, kept)
        plain = all(len(candidate.prompt) == 1 for candidate in kept)
        manifest = files.write(
            pair_rows([c for c in kept if c.prompt not in out], plain),
            pair_rows([c for c in kept if c.prompt in out], plain),
            {"identity": identity, **_record(writing, len(out))},
        )
    return Pairs(manifest, files, kept)


def _run(
    writing: Writing, files: PairsFiles, watch: Callable[[Writing], Callable[[], None]]
) -> None:
    harvest, name = writing.harvest, writing.trait.preference
    try:
        writing.run(watch(writing))
    except PvMergeError as error:
        where = f"; they are in {files.candidates}" if harvest.candidates else ""
        raise PvMergeError(
            f"{error.message} ({name}: {harvest.summary()}{where}; every reply is cached, and the same "
            "command goes on)"
        ) from None
    finally:
        files.write_candidates(harvest.candidates)
    if not harvest.candidates:
        raise PvMergeError(
            f"{name}: there was no prompt to answer ({_prompt_place(writing.trait)})"
        )
    if not harvest.kept:
        failed = next((c.detail for c in harvest.candidates if c.detail), None)
        raise PvMergeError(
            f"{name}: no pair is good enough ({harvest.summary()}); they are in {files.candidates}"
            + (f"; a request failed with: {failed}" if failed else "")
        )


def _prompt_place(trait: TraitSettings) -> str:
    source = trait.prompts
    if source.file is not None:
        return source.file
    return source.dataset.path if source.dataset is not None else "the writer invented none"


def _identity(trait: TraitSettings) -> dict[str, Any]:
    """Return what the pairs depend on: the trait, and the content of local files of prompts."""
    found = dump_trait(trait)
    found.pop("train", None)
    for role in ("writer", "judge"):
        if role in found:
            found[role] = {key: value for key, value in found[role].items() if key not in HOW}
    place = Path(_prompt_place(trait))
    if trait.prompts.written is None and place.is_file():
        found["prompts_sha256"] = file_hash(place)
    return found


def _record(writing: Writing, prompts_out: int) -> dict[str, Any]:
    trait, harvest, judge = writing.trait, writing.harvest, writing.judge
    kept = harvest.kept
    against = opposed(trait)
    synthetic: dict[str, Any] = {
        "writer": writing.writer.backend.model,
        "writer_license": trait.writer.license,
        "judge": judge.name,
        "description": trait.description,
        "opposite": trait.opposite,
        "opposes": against,
        "allow_protected": trait.allow_protected and against is not None,
    }
    return {
        "preference": trait.preference,
        "synthetic": {key: value for key, value in synthetic.items() if value is not None},
        "judge_note": judge.note,
        "written": len(harvest.candidates),
        "kept": len(kept),
        "held_out_prompts": prompts_out,
        "prompts_repeated": writing.source.repeated,
        "reasons": harvest.reasons(),
        "words": {
            "chosen": round(mean(word_count(c.positive) for c in kept), 1),
            "rejected": round(mean(word_count(c.negative) for c in kept), 1),
            "chosen_longer": round(mean(_longer(c) for c in kept), 3),
        },
        "cost": costs(writing.writer, judge),
        "versions": versions(),
    }


def costs(writer: Asker, judge: Judge) -> dict[str, Any]:
    """Return what was asked of each model."""
    found = {"writer": writer.cost.record()}
    if judge.cost is not None:
        found["judge"] = judge.cost.record()
    return found


def _longer(candidate: Candidate) -> float:
    """Return 1 where the chosen answer has more words, ½ where both have as many."""
    chosen, rejected = (word_count(t) for t in (candidate.positive, candidate.negative))
    return 0.5 if chosen == rejected else float(chosen > rejected)

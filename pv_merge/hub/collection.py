"""Several eta points of one recipe as the revisions of one repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from pv_merge.artifacts.network import quiet_client
from pv_merge.data.documents import parse_yaml
from pv_merge.errors import PvMergeError
from pv_merge.hub.card.card import Extras, make_card
from pv_merge.hub.facts import Facts
from pv_merge.hub.plan import CARD, Options, Plan, make_plan
from pv_merge.hub.push import (
    ask_licence,
    checked_name,
    keep_notes,
    open_remote,
    prepare,
    send,
    unfinished,
)
from pv_merge.hub.remote import Remote, Told
from pv_merge.hub.results import number, row


@dataclass
class Collection:
    """The plans of all points, and what the main branch shows."""

    repo: str
    plans: list[Plan]
    facts: Facts
    """Of the first point, as one of a collection."""

    @property
    def warnings(self) -> list[str]:
        """The warnings of all points, each once."""
        return list(dict.fromkeys(line for plan in self.plans for line in plan.warnings))

    def main_card(self, notes: str) -> str:
        """Return the card of the main branch, which links the revisions and holds no weights."""
        return str(make_card(self.facts, self.repo, Extras(notes, [], points_table(self.plans))))


def collect(folder: Path, repo: str, options: Options) -> Collection:
    """Return the collection of the models in the subfolders of ``folder``.

    Raises ``PvMergeError`` where one of them must not be published, or where they are not points of
    one recipe.
    """
    checked_name(repo)
    if options.revision is not None:
        raise PvMergeError("--revision: the revisions of a collection are called after their eta")
    if not folder.is_dir():
        raise PvMergeError(f"{folder}: no such folder")
    places = sorted(place for place in folder.iterdir() if place.is_dir() and "=" in place.name)
    if not places:
        raise PvMergeError(
            f"{folder}: holds no folders called NAME=ETA; make them with "
            "pv-merge run RECIPE OUT --eta NAME=V1,V2"
        )
    if options.evaluations == () and (folder / "summary.json").exists():
        options = replace(options, evaluations=(folder / "summary.json",))
    name = repo.partition("/")[2]
    plans = [
        make_plan(place, repo, replace(options, revision=place.name), f"{name}, {place.name}")
        for place in places
    ]
    first = plans[0].facts
    for plan in plans:
        if plan.facts.kind != "merge":
            raise PvMergeError(f"{plan.folder}: is a {plan.facts.kind}, not a merge")
        if _without_eta(plan.facts) != _without_eta(first):
            raise PvMergeError(
                f"{plan.folder}: is of another recipe than {plans[0].folder}; a collection holds "
                "points of one recipe that differ in eta"
            )
    against = [name for plan in plans for name in plan.facts.negative_protected]
    facts = replace(
        first,
        title=name,
        collection=True,
        report=None,
        negative_protected=list(dict.fromkeys(against)),
    )
    for plan in plans:
        plan.points = points_table(plans, plan)
    return Collection(repo, plans, facts)


def points_table(plans: Sequence[Plan], own: Plan | None = None) -> list[str]:
    """Return the table of all revisions in Markdown; ``own`` is the one whose card it stands in."""
    names = plans[0].facts.preferences
    figures = [
        name
        for name in dict.fromkeys(
            name for plan in plans for item in plan.evaluations for name in item.figures
        )
        if "." not in name
    ]
    head = ["revision", *(f"η {name}" for name in names)]
    head += [f"share of {name} that arrived" for name in names]
    lines = row([*head, *figures]) + row(["---"] * (len(head) + len(figures)))
    for plan in plans:
        revision = str(plan.options.revision)
        link = f"https://huggingface.co/{plan.repo}/tree/{quote(revision, safe='')}"
        cells = [f"[`{revision}`]({link})" + (" (this one)" if plan is own else "")]
        for name in names:
            eta = plan.facts.etas.get(name)
            cells.append("by layer" if eta is None else f"{eta:+g}")
        report = (plan.facts.report or {}).get("preferences") or {}
        for name in names:
            moved = name in report and report[name]["eta"] != 0
            cells.append(f"{report[name]['share']:.1%}" if moved else "")
        found = {k: v for item in plan.evaluations for k, v in item.figures.items()}
        lines += row([*cells, *(number(found.get(name)) for name in figures)])
    return lines


def push_collection(
    folder: str | Path,
    repo: str,
    options: Options | None = None,
    told: Told = lambda line: None,
) -> str:
    """Publish each subfolder of ``folder`` as a revision of ``repo``, and return its URL.

    Every revision is one commit; the card of the main branch, which links them, comes last. Raises
    ``PvMergeError``, which says what revisions are complete by then.
    """
    options = options or Options()
    collection = collect(Path(folder), repo, options)
    for line in collection.warnings:
        told(line)
    with quiet_client():
        remote = open_remote(repo, told)
        existed = prepare(remote, options, told)
        first = collection.plans[0]
        keep_notes(first, remote, None)
        ask_licence(first.facts, remote)
        complete: list[str] = []
        try:
            for plan in collection.plans:
                plan.notes = first.notes
                plan.facts.base = first.facts.base
                told(f"revision {plan.options.revision}")
                send(plan, plan.card(), remote, existed or bool(complete), told)
                complete.append(str(plan.options.revision))
            _send_main(collection, first.notes, remote, told)
        except PvMergeError as error:
            if not complete:
                raise
            total = len(collection.plans)
            raise PvMergeError(
                f"{error.message}. Complete on the Hub: {len(complete)} of {total} revisions "
                f"({', '.join(complete)}); the card that links them is sent last. The same command "
                "with --exist-ok completes it"
            ) from error
    return remote.url


def _send_main(collection: Collection, notes: str, remote: Remote, told: Told) -> None:
    try:
        card = collection.main_card(notes).encode()
        options = collection.plans[0].options
        message = options.commit_message or f"Link {len(collection.plans)} revisions"
        remote.commit({CARD: card}, message, None, told)
    except (Exception, KeyboardInterrupt) as error:
        raise unfinished(error, remote, True, False, None) from error


def _without_eta(facts: Facts) -> object:
    data = parse_yaml(facts.recipe_text or "", facts.folder)
    for item in data.get("models") or []:
        (item.get("parameters") or {}).pop("eta", None)
    (data.get("parameters") or {}).pop("eta", None)
    return data

"""Several eta points of one recipe as the revisions of one repository."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pv_merge.artifacts.network import quiet_client
from pv_merge.data.documents import parse_yaml
from pv_merge.errors import PvMergeError, raise_all
from pv_merge.hub.card.card import CARD, Extras, card_text
from pv_merge.hub.card.tables import revisions
from pv_merge.hub.facts import Facts
from pv_merge.hub.push import (
    ask_licence,
    keep_notes,
    open_remote,
    prepare,
    send,
    unfinished,
)
from pv_merge.hub.push_names import checked_name
from pv_merge.hub.push_plan import PushOptions, PushPlan, checked_card, make_plan
from pv_merge.hub.remote import Remote, Told


@dataclass
class Collection:
    """The plans of all points, and what the main branch shows."""

    repo: str
    plans: list[PushPlan]
    facts: Facts
    """Of the first point, as one of a collection."""

    @property
    def warnings(self) -> list[str]:
        """The warnings of all points, each once."""
        return list(dict.fromkeys(line for plan in self.plans for line in plan.warnings))

    def main_card(self, notes: str) -> str:
        """Return the card of the main branch, which links the revisions and holds no weights."""
        extras = Extras(notes, [], revisions(self.plans))
        return checked_card(card_text(self.facts, self.repo, extras, published=True))


def collect(folder: Path, repo: str, options: PushOptions) -> Collection:
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
    raise_all([line for plan in plans for line in _misplaced(plan, first)])
    against = [name for plan in plans for name in plan.facts.negative_protected]
    facts = replace(
        first,
        title=name,
        collection=True,
        report=None,
        negative_protected=list(dict.fromkeys(against)),
    )
    for plan in plans:
        plan.revisions = revisions(plans, plan)
    return Collection(repo, plans, facts)


def _misplaced(plan: PushPlan, first: Facts) -> Iterator[str]:
    """Yield why a plan is not the point that its folder's name says."""
    if plan.facts.kind != "merge":
        yield f"{plan.folder}: is a {plan.facts.kind}, not a merge"
        return
    if _without_eta(plan.facts) != _without_eta(first):
        yield (
            f"{plan.folder}: is of another recipe than {first.folder}; a collection holds points of "
            "one recipe that differ in eta"
        )
    for part in plan.folder.name.split(","):
        name, _, value = part.rpartition("=")
        if name not in plan.facts.etas:
            yield f"{plan.folder}: its recipe has no preference {name}"
        elif (eta := plan.facts.etas[name]) is None or f"{eta:g}" != value:
            yield f"{plan.folder}: is called {part}, but that is not its recipe's eta"


def push_collection(
    folder: str | Path,
    repo: str,
    options: PushOptions | None = None,
    told: Told = lambda line: None,
) -> str:
    """Publish each subfolder of ``folder`` as a revision of ``repo``, and return its URL.

    Every revision is one commit; the card of the main branch, which links them, comes last. Raises
    ``PvMergeError``, which says what revisions are complete by then.
    """
    options = options or PushOptions()
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

"""Where base, policies and data of a published model can be had, as far as it is known here."""

from __future__ import annotations

import shlex

from markupsafe import Markup

from pv_merge.artifacts.manifest import Manifest
from pv_merge.artifacts.reference import parse_reference, surely_on_hub
from pv_merge.hub.card.markdown import code, inline, link
from pv_merge.hub.facts import Facts, halves_of
from pv_merge.hub.machine_paths import shown_path
from pv_merge.hub.published_base import fetched_from

NOT_PUBLISHED = "not published"


def where_to_get(facts: Facts) -> list[tuple[Markup, Markup]]:
    """Return (what, where it can be had) for everything that ``facts`` name."""
    rows = [(code(shown_path(facts.base.name or "the base")), _base(facts))]
    if facts.kind == "merge":
        rows += [(code(shown_path(s.name)), _input(s.name, s.manifest)) for s in facts.sources]
    for half in facts.halves.values():
        if half.path:
            rows.append((code(shown_path(half.path)), _model(half.path)))
    for note in facts.trainings:
        if note.dataset and note.dataset.path:
            rows.append((code(shown_path(note.dataset.path)), _data(note.dataset.path, facts)))
    return list(dict.fromkeys(rows))


def _base(facts: Facts) -> Markup:
    base = facts.base
    if base.converted:
        place = shlex.quote(shown_path(base.name or "BASE"))
        return code(f"{base.converted} -o {place}")
    return hub_link(base.repo) if base.repo else Markup(NOT_PUBLISHED)


def _input(name: str, manifest: Manifest | None) -> Markup:
    found = _model(name)
    halves = [half.path or "" for half in halves_of(manifest).values()] if manifest else []
    if found == NOT_PUBLISHED and len(halves) == 2 and all(map(surely_on_hub, halves)):
        form = " --form low-rank" if manifest and manifest.rank is not None else ""
        return code(f"pv-merge extract {shlex.join(halves)}{form} -o VECTOR")
    return found


def _model(name: str) -> Markup:
    reference = parse_reference(name)
    if surely_on_hub(reference.name):
        return hub_link(reference.name)
    folder = reference.cached
    repo, command = fetched_from(folder) if folder else (None, None)
    if command:
        return code(command)
    return hub_link(repo) if repo else Markup(NOT_PUBLISHED)


def _data(path: str, facts: Facts) -> Markup:
    known = path in facts.datasets
    url = f"https://huggingface.co/datasets/{path}"
    return link(inline(path), url) if known else Markup(NOT_PUBLISHED)


def hub_link(name: str) -> Markup:
    """Return a link to a repository; ``name`` has the form of one, checked."""
    repo, _, revision = name.partition("@")
    url = f"https://huggingface.co/{repo}"
    return link(name, f"{url}/tree/{revision}" if revision else url)

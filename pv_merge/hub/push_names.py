"""Names that a push may write to: a repository, and a branch of it."""

from __future__ import annotations

from pv_merge.artifacts.reference import parse_hub_name
from pv_merge.errors import PvMergeError


def checked_name(repo: str) -> str:
    """Return ``repo`` if it is a name to push to; ``PvMergeError`` if not."""
    name = parse_hub_name(repo)
    if name is None:
        raise PvMergeError(f"{repo}: expected a name on the Hub, NAMESPACE/NAME")
    if name.revision is not None:
        raise PvMergeError(f"{repo}: say the revision with --revision {name.revision}")
    return repo


def checked_revision(repo: str, revision: str) -> str:
    """Return ``revision`` if a branch may be called so; ``PvMergeError`` if not."""
    name = parse_hub_name(f"{repo}@{revision}")
    if name is None or name.revision != revision or revision.endswith((".lock", ".", "/")):
        raise PvMergeError(
            f"{repo}: {revision!r} cannot be the name of a revision; letters, digits and _ . / = , + - "
            "are allowed"
        )
    return revision

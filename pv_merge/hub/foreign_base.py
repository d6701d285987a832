"""Whose vector was put on whose model: what a card says of an input that was made from another base."""

from __future__ import annotations

from pv_merge.artifacts.base_hash import same_base
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.manifest import BaseNote, Manifest
from pv_merge.artifacts.reference import cached_folder, parse_reference
from pv_merge.recipe.own_base import is_known, noted, own_base
from pv_merge.recipe.recipe import Recipe, RecipeInput


def foreign_base(recipe: Recipe, item: RecipeInput, manifest: Manifest | None) -> str | None:
    """Return the base that an input was made from, where the recipe puts it on another."""
    if not recipe.allow_related_base:
        return None
    note = own_base(item.base, parse_reference(item.model), manifest)
    here = cached_folder(recipe.base_model) is not None
    base = noted(Checkpoint(recipe.base_model)) if here else BaseNote(path=recipe.base_model)
    if not is_known(note) or same_base(note, base) is True:
        return None
    return note.path or f"a base of SHA-256 {note.weights_sha256}"

"""What the page hands out: the recipe with its η, an adapter of the mix, the conversation."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from pv_merge.live.chat.session import ChatSession

Kind = Literal["recipe", "adapter", "conversation"]
KINDS: dict[Kind, str] = {
    "recipe": "recipe (YAML)",
    "adapter": "adapter of this mix, for PEFT and vLLM (zip)",
    "conversation": "conversation (JSON lines)",
}


def recipe_text(session: ChatSession) -> str:
    """Return the recipe with the session's η, as ``pv-merge run`` reads it."""
    return session.engine.recipe.text_with(session.said)


def export(kind: Kind, session: ChatSession, folder: Path) -> Path:
    """Write a file of this kind into a new folder in ``folder`` and return its path.

    Raises ``PvMergeError`` where no adapter can hold the mix.
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    if kind == "conversation":
        path = place / "conversation.jsonl"
        rows = [
            {"question": turn.question, "eta": turn.etas, **turn.answers, "stopped": turn.stopped}
            for turn in session.turns
        ]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
        return path
    recipe = place / "recipe.yml"
    recipe.write_text(recipe_text(session), encoding="utf-8")
    if kind == "recipe":
        return recipe
    from pv_merge.integrations.export import export as write_adapter

    write_adapter(recipe, place / "adapter", "peft")
    return Path(shutil.make_archive(str(place / "adapter"), "zip", place / "adapter"))

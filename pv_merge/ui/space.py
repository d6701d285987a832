"""A folder that is a Hugging Face Space with the page: recipe, adapters, and what installs them."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from pv_merge.artifacts.checkpoint import is_adapter
from pv_merge.artifacts.folders import new_folder, readable
from pv_merge.artifacts.reference import is_hub_name, without_revision
from pv_merge.data.documents import parse_yaml
from pv_merge.errors import PvMergeError, raise_all
from pv_merge.hub.published_base import find_base
from pv_merge.recipe.reading import read_recipe
from pv_merge.recipe.recipe import Recipe
from pv_merge.version import __version__

APP = '''"""The page of this Space; pv-merge wrote it."""

import subprocess
import sys
from pathlib import Path

from pv_merge.errors import PvMergeError
from pv_merge.ui.serve import open_page

BASE, FETCH = {base!r}, {fetch!r}

if __name__ == "__main__":
    try:
        if FETCH and not Path(BASE).exists():
            subprocess.run([*FETCH.split(), "-o", BASE], check=True)
        open_page("recipe.yml", host="0.0.0.0", port=7860, dtype="bfloat16")
    except PvMergeError as error:
        sys.exit(f"Error: {{error.message}}")
'''
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def write_space(path: str | Path, folder: Path, base_model: str | None = None) -> list[str]:
    """Write a new ``folder`` and return the lines to show: what is in it, and how to publish it.

    Raises ``PvMergeError`` where a Space could not have the base or an input: a base that lies only
    here, and whole models or dense vectors, which are pushed and named by their Hub names instead.
    """
    recipe = read_recipe(path)
    name, fetch = _base(recipe, base_model)
    copies = _copies(recipe)
    document = parse_yaml(recipe.text, path)
    document["base_model"] = name
    for item in document["models"]:
        said = item["model"]
        place = said["model"] if isinstance(said, dict) else said
        item["model"] = copies.get(place, place)
    with new_folder(folder) as work:
        for place, copy in copies.items():
            (work / copy).mkdir(parents=True)
            for file in ADAPTER_FILES:
                shutil.copyfile(Path(place) / file, work / copy / file)
            for manifest in Path(place).glob("p*.json"):
                if manifest.name in ("preference_vector.json", "pv_run.json"):
                    shutil.copyfile(manifest, work / copy / manifest.name)
        body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        (work / "recipe.yml").write_text(f"# pv-merge ui recipe.yml\n{body}", encoding="utf-8")
        (work / "app.py").write_text(APP.format(base=name, fetch=fetch), encoding="utf-8")
        (work / "requirements.txt").write_text(f"pv-merge[ui]=={__version__}\n", encoding="utf-8")
        (work / "README.md").write_text(_card(recipe, name, fetch), encoding="utf-8")
        readable(work)
    return [
        f"{folder}: app.py, recipe.yml, requirements.txt, README.md, {len(copies)} adapters",
        "It needs pv-merge on the package index; else put a wheel beside requirements.txt and name it there.",
        f"$ hf upload NAMESPACE/NAME {folder} --repo-type space",
    ]


def _base(recipe: Recipe, said: str | None) -> tuple[str, str | None]:
    """Return the base as a Space names it, and the command that makes it there, if one does."""
    base = find_base(recipe.base_model, None, {"base_model": said}, [])
    if base.repo and base.converted and not said:
        return recipe.base_model, base.converted
    if base.repo is None:
        raise PvMergeError(
            f"{recipe.base_model}: lies only here, so a Space could not load it; "
            "push it, or say its name on the Hub with --base-model"
        )
    return base.repo if not is_hub_name(recipe.base_model) else recipe.base_model, None


def _copies(recipe: Recipe) -> dict[str, str]:
    """Return the folder within the Space for each adapter that lies here."""
    problems, copies = [], {}
    for number, item in enumerate(recipe.inputs):
        if is_hub_name(item.model):
            continue
        if not is_adapter(item.model):
            problems.append(
                f"{item.model}: is no adapter, and too large for a Space's repository; extract it with "
                "--form low-rank, or push it and write its Hub name into the recipe"
            )
            continue
        copies[item.model] = f"./vectors/{number}-{item.preference}-{item.polarity}"
    raise_all(problems)
    return copies


def _card(recipe: Recipe, base: str, fetch: str | None) -> str:
    """Return the README with the fields that the Hub reads."""
    names = ", ".join(recipe.preferences)
    fields: dict[str, Any] = {
        "title": f"Preference vectors: {names}"[:60],
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": "3.11",
        "app_file": "app.py",
        "pinned": False,
        "tags": ["preference-vectors", "model-merging"],
    }
    if not fetch:
        fields["models"] = [without_revision(base)]
    head = yaml.safe_dump(fields, sort_keys=False)
    return (
        f"---\n{head}---\n\nThe base model and a mix of it side by side, with a slider for each preference "
        f"({names}).\nThe base is `{base}`{f', made by `{fetch}`' if fetch else ''}. "
        "Without a GPU it answers on the CPU, in bfloat16.\n\nA small preference at a large η can make "
        "a model say anything; nothing here is filtered.\n"
    )

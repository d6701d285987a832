"""From the Hugging Face Hub to a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from pv_merge.artifacts.folders import new_folder, refuse_existing
from pv_merge.artifacts.network import explained, quiet_client
from pv_merge.artifacts.reference import CODE_FILES, SAFE_FILES, HubName, parse_hub_name, snapshot
from pv_merge.errors import PvMergeError
from pv_merge.hub.remote import Told


def pull(
    name: str,
    output: str | Path | None = None,
    *,
    remote_code: bool = False,
    told: Told = lambda line: None,
) -> Path:
    """Fetch ``NAMESPACE/NAME[@REVISION]`` and return its folder.

    It comes into huggingface_hub's cache, and is copied from there into the new folder ``output``
    where one is named. Only safetensors, settings and texts are fetched, python files if asked
    for; ``told`` is told what is left behind.

    >>> import pv_merge
    >>> pv_merge.load(pv_merge.pull("alice/brief", "pulled")).preference
    'brief'
    """
    hub_name = parse_hub_name(name)
    if hub_name is None:
        raise PvMergeError(f"{name}: expected a name on the Hub, such as namespace/name@revision")
    if output is not None:
        refuse_existing(Path(output))
    _tell_left_behind(hub_name, remote_code, told)
    folder = snapshot(hub_name, remote_code=remote_code)
    if output is None:
        return folder
    try:
        with new_folder(Path(output)) as work:
            shutil.copytree(folder, work, dirs_exist_ok=True)  # the cache's symlinks become files
    except OSError as error:
        raise PvMergeError(f"{output}: {error.strerror or error}; is the disk full?") from None
    return Path(output)


def _tell_left_behind(name: HubName, remote_code: bool, told: Told) -> None:
    from fnmatch import fnmatch

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    patterns = [*SAFE_FILES, *(CODE_FILES if remote_code else ())]
    try:
        with quiet_client(), explained(str(name)):
            files = HfApi().list_repo_files(name.repo, revision=name.revision)
    except PvMergeError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise
        return  # offline: the cache has it, or the next step says that it has not
    for file in files:
        if not any(fnmatch(file, pattern) for pattern in patterns) and file != ".gitattributes":
            hint = "; --remote-code fetches it" if file.endswith(".py") else ""
            told(
                f"{file}: left on the Hub, since it is neither weights as safetensors nor text{hint}"
            )

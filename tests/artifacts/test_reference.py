"""What a text means where a model is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pv_merge.artifacts.reference import parse_reference, without_revision
from pv_merge.errors import PvMergeError


def test_an_adapter_over_a_base() -> None:
    found = parse_reference("./models/base+./runs/polite/positive")
    assert (found.base, found.name, found.over_base) == (
        "./models/base",
        "./runs/polite/positive",
        True,
    )
    assert found.parts == ("./models/base", "./runs/polite/positive")
    assert str(found) == "./models/base+./runs/polite/positive"


def test_a_folder_by_itself(tmp_path: Path) -> None:
    found = parse_reference(str(tmp_path))
    assert (found.base, found.parts, found.over_base) == (None, (str(tmp_path),), False)
    assert found.folder == found.cached == tmp_path


@pytest.mark.parametrize("text", ["", "+a", "a+", "a+b+c", "a\nb", "a\0b", "a\udc80"])
def test_what_names_no_model(text: str) -> None:
    with pytest.raises(PvMergeError):
        parse_reference(text)


def test_peft_keeps_the_revision_apart(tmp_path: Path) -> None:
    assert without_revision("alice/base@v1.0") == "alice/base"
    assert without_revision("alice/base") == "alice/base"
    assert without_revision("./models/base@2") == "./models/base@2"  # a folder

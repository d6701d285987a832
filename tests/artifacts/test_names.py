"""Names that become folders, files or terms."""

from __future__ import annotations

import pytest

from pv_merge.artifacts.names import checked_name, name_problem
from pv_merge.errors import PvMergeError


@pytest.mark.parametrize(
    "name",
    [
        *(
            "/tmp/x",
            "../../x",
            "a/b",
            "a\\b",
            "a,b",
            "a=b",
            "",
            ".",
            "..",
            "...",
            " ",
            "a\n",
            "a\0b",
        ),
        *("x" * 101, " a", "a ", "a\x1b[31m", "a\u2028b", "a\udc80", ". ."),
    ],
)
def test_names_that_cannot_become_folders(name: str) -> None:
    with pytest.raises(PvMergeError, match="cannot be the name of a preference") as caught:
        checked_name(name)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", ["helpful", "höflich", "礼貌", "very polite", "v1.2", "x" * 100])
def test_names_that_can(name: str) -> None:
    assert name_problem(name) is None and checked_name(name) == name

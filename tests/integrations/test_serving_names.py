"""Names of mixes: every spelling of a mix gives one, and hostile ones a line."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv_merge.errors import PvMergeError
from pv_merge.integrations.mixes.name import canonical, eta_text, parse, read, shown
from pv_merge.integrations.mixes.settings import VARIABLES, Settings, from_environment
from pv_merge.integrations.mixes.vectors import ServedVector


def vector(name: str, rank: int = 8, minimum: Decimal | None = None) -> ServedVector:
    return ServedVector(name, Path(name), rank, minimum, None, None, 100)


VECTORS = {
    "helpful": vector("helpful"),
    "polite": vector("polite"),
    "harmless": vector("harmless", minimum=Decimal(0)),
    "honest": vector("honest", minimum=Decimal("-0.5")),
    "a-b.c_1": vector("a-b.c_1", rank=16),
}


def named(text: str, **settings: Any) -> str:
    return read(text, VECTORS, Settings(Path("vectors"), **settings)).name


def refusal(text: str, **settings: Any) -> str:
    with pytest.raises(PvMergeError) as caught:
        named(text, **settings)
    message = caught.value.message
    assert "\n" not in message and message.isascii() and len(message) < 200, message
    return message


@pytest.mark.parametrize(
    "text",
    [
        "helpful=0.8,polite=-0.3",
        "polite=-.30, helpful=0.80",
        "  helpful = +0.8 , polite = -0.3  ",
        "polite=-0.3000,helpful=000.8",
        "helpful=8e-1,polite=-3E-1",
        "polite=-0.299,helpful=0.8049",
        "helpful=0.8,polite=-0.3,harmless=0",
        "a-b.c_1=-0.001,polite=-0.3,helpful=0.8",
    ],
)
def test_spellings_of_one_mix(text: str) -> None:
    assert named(text) == "helpful=0.8,polite=-0.3"


@pytest.mark.parametrize(
    ("eta", "expected"),
    [("1", "1"), ("2.00", "2"), ("0.005", "0"), ("0.015", "0.02"), ("-0.004", "0"), ("-2", "-2")],
)
def test_eta_is_rounded_to_a_hundredth(eta: str, expected: str) -> None:
    assert named(f"polite={eta}") == f"polite={expected}"


def test_another_step() -> None:
    assert named("polite=0.37", eta_step=Decimal("0.25")) == "polite=0.25"
    assert named("polite=0.375", eta_step=Decimal("0.125")) == "polite=0.375"


def test_zero_is_a_mix_without_terms() -> None:
    mix = read("polite=0,helpful=-0.0", VECTORS, Settings(Path("vectors")))
    assert (mix.terms, mix.name) == ((), "helpful=0")


HOSTILE = {
    "": "has no eta",
    ",": "has no eta",
    "=": "is not the name",
    "=1": "is not the name",
    "polite": "has no eta",
    "polite=": "not a decimal number",
    "polite=1,": "has no eta",
    "polite=1,polite=1": "polite is named twice",
    "polite=1,helpful=0,polite=0.5": "polite is named twice",
    "polite=nan": "not a decimal number",
    "polite=inf": "not a decimal number",
    "polite=-Infinity": "not a decimal number",
    "polite=1e309": "not a decimal number",
    "polite=1e99": "outside -2 to 2",
    "polite=1e-999": "not a decimal number",
    "polite=0x1": "not a decimal number",
    "polite=1_0": "not a decimal number",
    "polite=--1": "not a decimal number",
    "polite=1=1": "not a decimal number",
    "polite=1;helpful=1": "not a decimal number",
    "polite=١": "not a decimal number",
    "polite=１": "not a decimal number",
    "polite=1\n": "not a decimal number",
    "polite\n=1": "is not the name",
    "polite=1\x00": "not a decimal number",
    "\x00=1": "is not the name",
    "polite=2.001": "outside -2 to 2",
    "polite=-2.001": "outside -2 to 2",
    "polite=999999999": "outside -2 to 2",
    "polite=9999999999": "not a decimal number",
    "polite=" + "1" * 900: "not a decimal number",
    "polite=0." + "0" * 900 + "1": "not a decimal number",
    "../polite=1": "is not the name",
    "..=1": "is not the name",
    ".=1": "is not the name",
    "/etc/passwd=1": "is not the name",
    "../../etc/passwd": "has no eta",
    "polite/../helpful=1": "is not the name",
    "C:\\polite=1": "is not the name",
    "~=1": "is not the name",
    "%2e%2e%2fpolite=1": "is not the name",
    "$(id)=1": "is not the name",
    "`id`=1": "is not the name",
    "polite;rm -rf=1": "is not the name",
    "-polite=1": "is not the name",
    "pоlite=1": "is not the name",  # a Cyrillic о
    "polite\u202e=1": "is not the name",
    "\ufeffpolite=1": "is not the name",
    "polite\u00a0=1": "is not the name",
    "polite\t=1": "is not the name",
    "\x1b[31mpolite=1": "is not the name",
    "\ud800=1": "is not the name",
    "{polite}=1": "is not the name",
    "polite%s%n=1": "is not the name",
    "a" * 65 + "=1": "is not the name",
    "polite=1," * 1000: "9000 characters",
    "x" * 2_000_000: "2000000 characters",
    "POLITE=1": "unknown preference POLITE",
    "polit=1": "did you mean polite",
    "__proto__=1": "is not the name",
    "nope=1": "unknown preference nope",
    "harmless=-0.01": "protected preference",
    "harmless=-1,helpful=1": "protected preference",
    "honest=-0.51": "below -0.5",
    "adapter_config.json=1": "unknown preference",
}
"""Names that must not be served, with a part of the reason."""


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:40])
def test_hostile_names_cost_one_line(text: str) -> None:
    assert HOSTILE[text] in refusal(text)


def test_bounds_of_a_mix() -> None:
    assert "3 preferences in one mix; at most 2" in refusal(
        "polite=1,helpful=1,honest=1", max_terms=2
    )
    assert "rank 24; the server takes 16" in refusal("polite=1,a-b.c_1=1", max_rank=16)
    assert named("polite=1,a-b.c_1=0", max_rank=16) == "polite=1"
    assert "outside 0 to 1" in refusal("polite=-0.1", eta_min=Decimal(0), eta_max=Decimal(1))
    # 0.9 lies within the bounds, but what it is rounded to does not
    assert "outside" in refusal("polite=0.9", eta_max=Decimal("0.9"), eta_step=Decimal("0.5"))


def test_protected_preferences_need_the_servers_word() -> None:
    assert named("harmless=0.5") == "harmless=0.5"
    assert named("harmless=-0.001") == "harmless=0"
    assert named("honest=-0.5") == "honest=-0.5"
    assert named("harmless=-1", allow_protected_negative=True) == "harmless=-1"


etas = st.decimals(-2, 2, places=4, allow_nan=False, allow_infinity=False)
mixes = st.dictionaries(st.sampled_from(["helpful", "polite", "a-b.c_1"]), etas, min_size=1)


@given(mixes, st.randoms(use_true_random=False))
def test_order_and_spelling_do_not_matter(mix: dict[str, Decimal], draw: random.Random) -> None:
    plain = ",".join(f"{name}={eta:f}" for name, eta in mix.items())
    parts = []
    for name, eta in draw.sample(list(mix.items()), len(mix)):
        sign = "+" if eta >= 0 and draw.random() < 0.5 and not f"{eta:f}".startswith("-") else ""
        gap = " " * draw.randrange(3)
        parts.append(f"{gap}{name}{gap}={gap}{sign}{eta:f}{'0' * draw.randrange(3)}{gap}")
    assert named(plain) == named(",".join(parts))


@given(mixes)
def test_a_canonical_name_means_itself(mix: dict[str, Decimal]) -> None:
    settings = Settings(Path("vectors"))
    once = read(",".join(f"{name}={eta:f}" for name, eta in mix.items()), VECTORS, settings)
    again = read(once.name, VECTORS, settings)
    assert again == once
    assert tuple(term for term in parse(once.name) if term[1]) == once.terms
    assert canonical(parse(once.name)) == once.name


@given(st.text(max_size=40))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        parse(text)
    except PvMergeError as error:
        assert "\n" not in error.message and error.message.isprintable()
    assert shown(text).isascii() and shown(text).isprintable()


def test_eta_text() -> None:
    values = ["0", "-0", "0.10", "1E+1", "-0.50", "100"]
    assert [eta_text(Decimal(v)) for v in values] == ["0", "0", "0.1", "10", "-0.5", "100"]


# ---- the environment -----------------------------------------------------------------------------


def test_without_the_variable_there_are_no_settings() -> None:
    assert from_environment({}) is None
    assert from_environment({"PV_MERGE_VECTORS": " "}) is None


def test_defaults_are_those_of_the_table() -> None:
    found = from_environment({"PV_MERGE_VECTORS": "/vectors"})
    assert found == Settings(Path("/vectors"))
    assert all(text for _, text in VARIABLES.values())


def test_values_are_read() -> None:
    found = from_environment(
        {
            "PV_MERGE_VECTORS": "/vectors",
            "PV_MERGE_SERVE_ETA_STEP": "0.05",
            "PV_MERGE_SERVE_ETA_MIN": "-1",
            "PV_MERGE_SERVE_MAX_RANK": "64",
            "PV_MERGE_SERVE_ALLOW_PROTECTED_NEGATIVE": "true",
            "PV_MERGE_SERVE_CACHE_GB": "0.5",
        }
    )
    assert found is not None
    assert (found.eta_step, found.eta_min, found.max_rank) == (Decimal("0.05"), -1, 64)
    assert (found.allow_protected_negative, found.cache_bytes) == (True, 500_000_000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ETA_STEP", "0"),
        ("ETA_STEP", "nan"),
        ("ETA_MAX", "-1"),
        ("ETA_MIN", "1"),
        ("MAX_TERMS", "0"),
        ("MAX_TERMS", "²"),
        ("MAX_RANK", "many"),
        ("DTYPE", "int8"),
        ("ALLOW_PROTECTED_NEGATIVE", "yes"),
        ("CACHE_MIXES", "-1"),
        ("CACHE_GB", "inf"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(PvMergeError, match=f"PV_MERGE_SERVE_{name}: expected"):
        from_environment({"PV_MERGE_VECTORS": "/vectors", f"PV_MERGE_SERVE_{name}": value})

# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.qmp import JSON
from ccidd.service.ctl import tables

SLOTS: list[JSON] = [
    {"reader": "alice", "slot": 0, "card": "piv,card=alice", "present": True},
    {"reader": "bob", "slot": 15, "card": None, "present": False, "error": "no token"},
]


def test_a_list_of_objects_is_a_table_with_a_heading() -> None:
    assert tables.table(SLOTS, None) == [
        "READER  SLOT  CARD            PRESENT  ERROR",
        "alice   0     piv,card=alice  yes      -",
        "bob     15    -               no       no token",
    ]


def test_a_table_fits_the_terminal_at_the_cost_of_its_widest_columns() -> None:
    assert tables.table(SLOTS, 44) == [
        "READER  SLOT  CARD         PRESENT  ERROR",
        "alice   0     piv,card=a…  yes      -",
        "bob     15    -            no       no token",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        ({}, "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (17, "17"),
        (0.25, "0.25"),
        (1000000.5, "1000000.5"),
        ("guest win11", "guest win11"),
        (["sign", "decrypt"], "sign, decrypt"),
        ({"a": 1, "b": [2, None]}, "a=1 b=2, -"),
    ],
)
def test_each_value_is_one_line(value: JSON, text: str) -> None:
    assert tables.shown(value) == text


def test_an_object_has_a_member_a_line_and_tables_in_it_below() -> None:
    status: JSON = {
        "version": "0.1.0",
        "state": "running",
        "readers": [{"name": "alice", "slots": 2}],
        "limits": {"clients": 16},
        "roles": ["observe", "agent"],
    }
    assert tables.whole(status, 80).split("\n") == [
        "version  0.1.0",
        "state    running",
        "readers:",
        "  NAME   SLOTS",
        "  alice  2",
        "limits:",
        "  clients  16",
        "roles    observe, agent",
    ]


def test_nothing_in_a_list_is_said() -> None:
    assert tables.whole([], 80) == "none"


def test_a_list_of_plain_values_has_one_a_line() -> None:
    assert tables.whole(["a", "b"], 80) == "a\nb"


NAMES = ["win11\x1b[2J", "a\nb", "\x9b31m", "\u202egnp.exe", "\r\x07"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_cannot_drive_the_terminal(name: str) -> None:
    shown = tables.whole([{"guest": name, name: 1}], None)
    heading, line = shown.split("\n")
    assert heading.isprintable()
    assert line.isprintable()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values, st.none() | st.integers(1, 200))
def test_whatever_comes_is_shown_and_drives_nothing(value: JSON, width: int | None) -> None:
    for line in tables.whole(value, width).split("\n"):
        assert line.isprintable()


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), values), min_size=1))
def test_a_table_is_as_wide_as_the_terminal_if_that_has_room_for_its_columns(
    rows: list[JSON],
) -> None:
    assert all(len(line) <= 38 for line in tables.table(rows, 38))

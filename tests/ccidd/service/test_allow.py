# SPDX-License-Identifier: Apache-2.0
import grp
import os
import pwd

import pytest

from ccidd.errors import UserError
from ccidd.service import allow
from ccidd.service.allow import group_number, parse_allow, parse_mode
from ccidd.transport.access import Rules

ME = pwd.getpwuid(os.getuid())
GROUP = grp.getgrgid(os.getgid())
FINGERPRINT = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:" * 2


@pytest.mark.parametrize(
    ("values", "rules"),
    [
        ([], Rules()),
        (["uid:0"], Rules(users=frozenset({0}))),
        ([f"uid:{ME.pw_name}"], Rules(users=frozenset({ME.pw_uid}))),
        ([f"gid:{GROUP.gr_name}"], Rules(groups=frozenset({GROUP.gr_gid}))),
        (
            ["uid:1,gid:2", "uid:3"],
            Rules(users=frozenset({1, 3}), groups=frozenset({2})),
        ),
        (["cert:CN=alice"], Rules(subjects=frozenset({"CN=alice"}))),
        (
            ["cert:CN=alice,,O=Some\\,, Inc.,uid:1"],
            Rules(users=frozenset({1}), subjects=frozenset({"CN=alice,O=Some\\, Inc."})),
        ),
        (
            [f"cert:{FINGERPRINT[:-1]}", f"cert:{FINGERPRINT.replace(':', '').lower()}"],
            Rules(fingerprints=frozenset({bytes.fromhex(FINGERPRINT.replace(":", ""))})),
        ),
    ],
)
def test_what_can_be_allowed(values: list[str], rules: Rules) -> None:
    assert parse_allow(values) == rules


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", ": this is none of uid:USER, gid:GROUP and cert:SUBJECT"),
        ("uid:", "uid:: this is none of uid:USER"),
        ("alice", "alice: this is none of"),
        ("user:alice", "user:alice: this is none of"),
        ("uid:1,", ": this is none of"),
        ("uid:nobody-of-this-name", "uid:nobody-of-this-name: there is no such user"),
        ("gid:nobody-of-this-name", "gid:nobody-of-this-name: there is no such group"),
        ("uid:-1", "uid:-1: there is no such user"),
        ("uid:4294967295", "uid:4294967295: there is no such user"),
        ("uid:a\0b", "there is no such user"),
        ("cert:alice", "cert:alice: this is neither the whole subject"),
        ("cert:CN", "cert:CN: this is neither"),
        ("cert:=", "cert:=: this is no subject"),
        ("cert:00:11", "this is neither the whole subject of a certificate, such as CN=alice, nor"),
    ],
)
def test_what_says_nobody_is_refused_in_one_line(value: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_allow([value])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_strangers_to_the_namespace_are_not_one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allow, "is_overflow", lambda _kind, number: number == 65534)
    with pytest.raises(UserError, match=r"uid:65534: in this user namespace .*everybody"):
        parse_allow(["uid:65534"])
    parse_allow(["uid:65533"])


def test_groups_by_name_and_number() -> None:
    assert group_number(GROUP.gr_name) == GROUP.gr_gid
    assert group_number("4711") == 4711
    with pytest.raises(UserError, match=r"^\?: there is no such group$"):
        group_number("?")


def test_modes() -> None:
    assert parse_mode("0660") == parse_mode("660") == 0o660
    for wrong in ("", "0", "66", "0668", "1660", "0o660", "rw", "00660"):
        with pytest.raises(UserError, match=r"such as 0660"):
            parse_mode(wrong)

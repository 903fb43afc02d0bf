# SPDX-License-Identifier: Apache-2.0
"""What `-e` says, beside what libcacard's own parser makes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccidd.errors import UserError
from ccidd.service.vscclient.emulation import (
    CardType,
    Emulation,
    Hardware,
    SoftReader,
    parse_emulation,
)
from libcacard import libcacard_options

DOCUMENT = (
    'db="sql:/home/a b" use_hw=no soft=(,Test,CAC,,id-cert,signing-cert,encryption-cert)',
    Emulation(
        "sql:/home/a b",
        Hardware.NO,
        soft=(SoftReader("", "Test", ("id-cert", "signing-cert", "encryption-cert")),),
    ),
)


def as_libcacard_has_it(emulation: Emulation) -> tuple[object, ...]:
    soft = [(each.slot, each.name, *each.certificates) for each in emulation.soft]
    return (
        emulation.database,
        list(Hardware).index(emulation.hardware),
        1 + list(CardType).index(emulation.card_type),
        emulation.hw_params,
        soft,
    )


names = st.text(st.sampled_from("abcXYZ 0123-_.:/'\"=(é"), max_size=12).map(str.strip)
words = st.text(st.sampled_from("abcXYZ0123-_.:/'\"=(é,"), min_size=1, max_size=12)
soft_readers = st.builds(
    "soft=({},{},{},{},{})".format,
    names,
    names,
    st.sampled_from(["CAC", "cac", " CAC"]),
    names,
    st.lists(names, min_size=1, max_size=5).map(",".join),
)
arguments = st.one_of(
    st.sampled_from(["use_hw=yes", "use_hw=no", "use_hw=0", "use_hw=removable", "use_hw= False"]),
    st.sampled_from(["nssemul", "passthru"]),
    soft_readers,
)
once: list[st.SearchStrategy[list[str]]] = [
    st.just([]) | st.builds(lambda path: ['db="{}"'.format(path.replace('"', "'"))], words),
    st.just([]) | st.builds(lambda params: [f"hw_params={params}"], words),
]
last = st.sampled_from(["", " hw_type=CAC", " hw_type=passthru"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    several = draw(st.lists(arguments, max_size=4))
    for each in once:
        several += draw(each)
    if not several:
        several = ["nssemul"]
    text = draw(st.sampled_from(["", " ", ","]))
    for argument in draw(st.permutations(several)):
        text += argument + draw(st.sampled_from([" ", "\n", " , ", "\t"]))
    return text.rstrip() + draw(last)


@given(texts())
def test_libcacard_reads_the_same(text: str) -> None:
    theirs = libcacard_options(text)
    if theirs is None:
        with pytest.raises(UserError):
            parse_emulation(text)
    else:
        assert as_libcacard_has_it(parse_emulation(text)) == theirs


@pytest.mark.parametrize(
    ("text", "emulation"),
    [
        DOCUMENT,
        ("", Emulation()),
        (
            'db="/etc/pki/nssdb",soft=(,Virtual Reader,CAC,,one,two,)',
            Emulation("/etc/pki/nssdb", soft=(SoftReader("", "Virtual Reader", ("one", "two")),)),
        ),
        ("passthru", Emulation(card_type=CardType.PASSTHRU)),
        # Where libcacard passes over what comes behind a comma, or takes the rest for the type.
        ("use_hw=no,hw_type=PASSTHRU", Emulation(None, Hardware.NO, CardType.PASSTHRU)),
        ("hw_type=CAC use_hw=no", Emulation(hardware=Hardware.NO)),
        ("use_hw=false", Emulation(hardware=Hardware.NO)),
        ("use_hw=off", Emulation(hardware=Hardware.NO)),
        ("use_hw=any", Emulation(hardware=Hardware.ANY)),
        ("hw_params= use_hw=no", Emulation(hardware=Hardware.NO, hw_params="")),
        ("soft=( a , b , CAC , , c , d )", Emulation(soft=(SoftReader("a", "b", ("c", "d")),))),
    ],
)
def test_what_is_asked_for_is_understood(text: str, emulation: Emulation) -> None:
    assert parse_emulation(text) == emulation


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("db=/etc/pki/nssdb", "in quotes"),
        ('db="/etc/pki/nssdb', "in quotes"),
        ('db="a" db="b"', "db= is given twice"),
        ("hw_params=a hw_params=b", "hw_params= is given twice"),
        ("frobnicate", "'frobnicate' is none of"),
        ("=", "'=' is none of"),
        ("soft=,Test,CAC,,one", "behind soft="),
        ("soft=(,Test,PIV,,one)", "PIV is none of CAC"),
        ("soft=(,Test,CAC,)", "has no certificates"),
        ("hw_type=PIV", "hw_type=PIV is none of"),
    ],
)
def test_what_libcacard_refuses_is_refused_with_a_reason(text: str, complaint: str) -> None:
    assert libcacard_options(text) is None
    with pytest.raises(UserError, match=complaint):
        parse_emulation(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("use_hw=perhaps", "none of yes, no, removable and any"),
        ("use_hw=", "none of yes, no, removable and any"),
        ('db=""', "in quotes"),
        ("soft=(,Test,PASSTHRU,,one)", "is a CAC"),
        ("passthrough", "'passthrough' is none of"),
        ("nssemulation", "'nssemulation' is none of"),
        # libcacard has no answer to this: it crashes.
        ("soft=(,Test,CAC,,one", "behind soft="),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse_emulation(text)

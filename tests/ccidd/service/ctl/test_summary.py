# SPDX-License-Identifier: Apache-2.0
import re

from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccid_protocol.qmp import JSON
from ccidd.reader.slot import Slot
from ccidd.service.ctl import tables
from ccidd.service.ctl.summary import for_people
from ccidd.service.exchanges import Exchanges
from ccidd.service.statistics.statistics import Statistics

VERIFY = CommandAPDU(0, 0x20, 0, 0x80, b"12345678").encode()


def test_what_was_counted_is_a_few_lines_a_slot() -> None:
    statistics = Statistics()
    observer = Exchanges(statistics.add("alice", 1))
    slot = Slot()
    observer.inserted(slot)
    observer.powered_on(slot, b"\x3b\x80\x80")
    for _ in range(2):
        observer.transmitted(slot, VERIFY, ResponseAPDU(sw=0x63C1).encode(), 0.002)
    shown = tables.whole(for_people("query-stats", statistics.snapshot()), 100).splitlines()
    assert re.fullmatch(r"since  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown[0])
    assert shown[1:3] == ["alice:", "  connections  0"]
    assert shown[3] == "alice, slot 0:"
    values = dict(re.split(r"  +", line.strip()) for line in shown[4:])
    assert values["cards"] == "1 insertions, 0 removals, 1 power-ons"
    assert values["commands"] == "2 verify"
    assert values["responses"] == "2 63"
    assert values["time of a command"] == "2 ms on average of 2"
    assert values["wrong PINs"] == "2"


values = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["readers", "slots"]), inner),
)


@given(st.sampled_from(["query-cards", "query-stats", "query-slots"]), values)
def test_whatever_a_ccidd_returns_is_shown(command: str, value: JSON) -> None:
    tables.whole(for_people(command, value), 80)

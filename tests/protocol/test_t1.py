# SPDX-License-Identifier: Apache-2.0
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.t1 import (
    DEFAULT_IFS,
    MAX_INF,
    MAX_RESPONSE,
    Aborted,
    CardEnd,
    CommandReady,
    ExchangeEnd,
    IBlock,
    IFSDAccepted,
    InterfaceDevice,
    ResponseReady,
    Resynchronized,
    decode,
)


class Fault(enum.Enum):
    LOSE_COMMAND = enum.auto()
    DAMAGE_COMMAND = enum.auto()
    DOUBLE_COMMAND = enum.auto()  # the first answer is lost
    LOSE_ANSWER = enum.auto()
    DAMAGE_ANSWER = enum.auto()
    DOUBLE_ANSWER = enum.auto()  # the copy is taken for the next answer, which is lost


@dataclass
class Line:
    """A card that echoes commands with a status word, and the line to it.

    Attributes:
        card: the card's end.
        faults: what happens to each exchange of blocks.
        extensions: how many times the card asks for more time for each command.
        ifsc: the most bytes of INF that may go to the card.
        executed: the commands that reached the card.
    """

    card: CardEnd
    faults: Iterator[Fault | None] = field(default_factory=lambda: iter(()))
    extensions: int = 0
    ifsc: int = DEFAULT_IFS
    executed: list[bytes] = field(default_factory=list)
    _extensions_left: int = 0
    _copy: bytes | None = None

    def exchange(self, block: bytes) -> bytes | None:
        """Gives the card's answer, or None when none reaches the interface device."""
        decoded = decode(block)
        assert not isinstance(decoded, IBlock) or len(decoded.inf) <= self.ifsc
        fault = next(self.faults, None)
        copy, self._copy = self._copy, None
        if fault is Fault.LOSE_COMMAND:
            return copy
        if fault is Fault.DOUBLE_COMMAND:
            self._ask(block)
        answer = self._ask(damaged(block) if fault is Fault.DAMAGE_COMMAND else block)
        if copy is not None:
            return copy
        if fault is Fault.LOSE_ANSWER:
            return None
        if fault is Fault.DOUBLE_ANSWER:
            self._copy = answer
        return damaged(answer) if fault is Fault.DAMAGE_ANSWER else answer

    def _ask(self, block: bytes) -> bytes:
        answer = self.card.receive_block(block)
        if isinstance(answer, bytes):
            return answer
        if isinstance(answer, CommandReady):
            self.executed.append(answer.apdu)
            self._extensions_left = self.extensions
        if self._extensions_left:
            self._extensions_left -= 1
            return self.card.request_extension(2)
        return self.card.send_response(self.executed[-1] + b"\x90\x00")


def damaged(block: bytes) -> bytes:
    return block[:-1] + bytes([block[-1] ^ 0xFF])


def run(device: InterfaceDevice, line: Line, block: bytes) -> ExchangeEnd:
    answer: bytes | ExchangeEnd = block
    while isinstance(answer, bytes):
        from_card = line.exchange(answer)
        answer = device.time_out() if from_card is None else device.receive_block(from_card)
    return answer


# One or two faults in a row, and the exchanges that the recovery from them takes.
fault_runs = st.lists(
    st.tuples(st.lists(st.sampled_from(Fault), min_size=1, max_size=2), st.integers(4, 9)),
    max_size=20,
)


@given(
    commands=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6),
    runs=fault_runs,
    ifsc=st.integers(1, 12),
    ifsd=st.none() | st.integers(1, 12),
    extensions=st.integers(0, 2),
)
@example([b"ab", b"cd"], [([Fault.LOSE_COMMAND, Fault.DOUBLE_ANSWER], 4)], 1, 1, 1)
def test_over_a_bad_line_all_arrives_whole_and_once(
    commands: list[bytes],
    runs: list[tuple[list[Fault], int]],
    ifsc: int,
    ifsd: int | None,
    extensions: int,
) -> None:
    faults = (fault for run_, gap in runs for fault in [*run_, *[None] * gap])
    line = Line(CardEnd(ifsc=ifsc), faults, extensions, ifsc)
    device = InterfaceDevice(ifsc=ifsc)
    if ifsd is not None:
        assert run(device, line, device.send_ifsd(ifsd)) == IFSDAccepted(ifsd)
    for command in commands:
        response = run(device, line, device.send_command(command))
        assert response == ResponseReady(command + b"\x90\x00")
    assert line.executed == commands


@given(st.lists(st.sampled_from([None, *Fault]), max_size=60), st.integers(0, 2))
def test_over_a_line_however_bad_nothing_arrives_changed(
    faults: list[Fault | None], extensions: int
) -> None:
    line = Line(CardEnd(ifsc=4), iter(faults), extensions)
    device = InterfaceDevice(ifsc=4)
    commands = [b"first command", b"2", b"third"]
    for command in commands:
        try:
            end = run(device, line, device.send_command(command))
        except RemoteProtocolError:
            break
        if end == Resynchronized():
            assert line.executed.count(command) <= 1
        else:
            assert end == ResponseReady(command + b"\x90\x00")
            assert line.executed.count(command) == 1
    assert set(line.executed) <= set(commands)


@pytest.mark.parametrize("ifs", [DEFAULT_IFS, MAX_INF])
def test_the_longest_apdus_fit(ifs: int) -> None:
    line = Line(CardEnd(ifsc=ifs), ifsc=ifs)
    device = InterfaceDevice(ifsc=ifs)
    run(device, line, device.send_ifsd(ifs))
    command = bytes(i % 251 for i in range(MAX_RESPONSE - 2))
    assert run(device, line, device.send_command(command)) == ResponseReady(command + b"\x90\x00")


def test_the_longest_command_is_not_aborted_and_the_next_longer_is() -> None:
    line = Line(CardEnd(ifsc=MAX_INF, max_command=50), ifsc=MAX_INF)
    device = InterfaceDevice(ifsc=20)
    response = ResponseReady(bytes(50) + b"\x90\x00")
    assert run(device, line, device.send_command(bytes(50))) == response
    assert run(device, line, device.send_command(bytes(51))) == Aborted()
    assert run(device, line, device.send_command(bytes(50))) == response

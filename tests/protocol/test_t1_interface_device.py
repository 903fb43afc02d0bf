# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.t1 import (
    MAX_COMMAND,
    Aborted,
    Block,
    ExchangeEnd,
    IBlock,
    IFSDAccepted,
    InterfaceDevice,
    RBlock,
    ResponseReady,
    Resynchronized,
    SBlock,
    Supervisory,
    decode,
    encode,
)
from t1_blocks import (
    ABORT,
    ABORT_RESPONSE,
    EDC_ERROR,
    GARBAGE,
    IFS,
    IFS_RESPONSE,
    OTHER_ERROR,
    RESYNCH,
    RESYNCH_RESPONSE,
    WTX,
    WTX_RESPONSE,
    any_blocks,
)


class Device:
    """An interface device's end that is answered in blocks."""

    def __init__(self, end: InterfaceDevice | None = None) -> None:
        self.end = end or InterfaceDevice()

    def command(self, apdu: bytes) -> Block:
        return decode(self.end.send_command(apdu))

    def answer(self, block: Block | bytes | None) -> Block | ExchangeEnd:
        if block is None:
            return decode(self.end.time_out())
        answer = self.end.receive_block(block if isinstance(block, bytes) else encode(block))
        return decode(answer) if isinstance(answer, bytes) else answer


@pytest.fixture(name="device")
def fixture_device() -> Device:
    return Device()


def test_a_device_splits_a_command_at_the_ifsc_and_joins_the_response() -> None:
    device = Device(InterfaceDevice(ifsc=2))
    assert device.command(b"abc") == IBlock(0, more=True, inf=b"ab")
    assert device.answer(RBlock(1)) == IBlock(1, inf=b"c")
    assert device.answer(IBlock(0, more=True, inf=b"d")) == RBlock(1)
    assert device.answer(IBlock(1, inf=b"e")) == ResponseReady(b"de")
    assert device.command(b"f") == IBlock(0, inf=b"f")
    assert device.answer(IBlock(0, inf=b"g")) == ResponseReady(b"g")


def test_a_device_does_not_go_back_to_a_command_that_was_answered(device: Device) -> None:
    device.command(b"a")
    assert device.answer(IBlock(0, more=True)) == RBlock(1)
    assert device.answer(RBlock(0)) == RBlock(1)


def test_a_device_gives_the_card_the_time_that_it_asks_for(device: Device) -> None:
    device.command(b"a")
    assert device.end.waiting_time_multiplier == 1
    assert device.answer(WTX) == WTX_RESPONSE
    assert device.end.waiting_time_multiplier == 3
    assert device.answer(WTX_RESPONSE) == RBlock(0, OTHER_ERROR)
    assert device.end.waiting_time_multiplier == 1


def test_a_device_does_not_wait_so_long_for_a_block_that_it_asks_for_again(device: Device) -> None:
    device.command(b"a")
    device.answer(WTX)
    assert device.answer(None) == RBlock(0, OTHER_ERROR)
    assert device.end.waiting_time_multiplier == 1


def test_a_device_keeps_to_an_ifsc_that_changes(device: Device) -> None:
    assert device.command(bytes(80)) == IBlock(0, more=True, inf=bytes(32))
    assert device.answer(IFS) == IFS_RESPONSE
    assert device.answer(RBlock(1)) == IBlock(1, more=True, inf=bytes(40))
    assert device.answer(RBlock(0)) == IBlock(0, inf=bytes(8))


def test_a_device_tells_its_ifsd(device: Device) -> None:
    assert decode(device.end.send_ifsd()) == SBlock(Supervisory.IFS, value=254)
    assert device.answer(GARBAGE) == SBlock(Supervisory.IFS, value=254)
    assert device.answer(IFS_RESPONSE) == SBlock(Supervisory.IFS, value=254)
    assert device.answer(SBlock(Supervisory.IFS, response=True, value=254)) == IFSDAccepted(254)


@pytest.mark.parametrize("fault", [GARBAGE, None, WTX_RESPONSE, IBlock(1)])
def test_a_device_asks_for_a_block_that_it_did_not_get(
    device: Device, fault: Block | bytes | None
) -> None:
    device.command(b"a")
    code = EDC_ERROR if fault is GARBAGE else OTHER_ERROR
    assert device.answer(fault) == RBlock(0, code)
    assert device.answer(IBlock(0, inf=b"b")) == ResponseReady(b"b")


def test_a_device_repeats_a_block_that_the_card_did_not_get(device: Device) -> None:
    device.command(b"a")
    assert device.answer(RBlock(0, EDC_ERROR)) == IBlock(0, inf=b"a")
    assert device.answer(None) == RBlock(0, OTHER_ERROR)
    assert device.answer(RBlock(0)) == IBlock(0, inf=b"a")
    assert device.answer(IBlock(0, inf=b"b")) == ResponseReady(b"b")


def test_a_device_does_not_take_a_response_to_half_a_command() -> None:
    device = Device(InterfaceDevice(ifsc=1))
    device.command(b"ab")
    assert device.answer(IBlock(0)) == RBlock(0, OTHER_ERROR)


@pytest.mark.parametrize("fault", [GARBAGE, None])
def test_after_three_errors_a_device_resynchronises(device: Device, fault: bytes | None) -> None:
    device.command(b"a")
    device.answer(fault)
    device.answer(fault)
    assert device.answer(fault) == RESYNCH
    assert device.answer(fault) == RESYNCH
    assert device.answer(IBlock(0)) == RESYNCH
    assert device.answer(RESYNCH_RESPONSE) == Resynchronized()
    assert device.command(b"b") == IBlock(0, inf=b"b")
    assert device.answer(IBlock(0, inf=b"c")) == ResponseReady(b"c")


def test_a_valid_block_between_errors_starts_their_count_anew(device: Device) -> None:
    device.command(b"a")
    for _ in range(3):
        assert device.answer(None) == RBlock(0, OTHER_ERROR)
        assert device.answer(None) == RBlock(0, OTHER_ERROR)
        assert device.answer(RBlock(0)) == IBlock(0, inf=b"a")


def test_the_errors_of_one_exchange_do_not_count_in_the_next(device: Device) -> None:
    device.end.send_ifsd(40)
    device.answer(None)
    device.answer(None)
    assert device.answer(IFS_RESPONSE) == IFSDAccepted(40)
    device.command(b"a")
    assert device.answer(None) == RBlock(0, OTHER_ERROR)


def test_a_device_repeats_each_block_of_a_command_up_to_three_times() -> None:
    device = Device(InterfaceDevice(ifsc=1))
    device.command(b"abc")
    for ns, inf in ((0, b"a"), (1, b"b")):
        for _ in range(3):
            assert device.answer(RBlock(ns)) == IBlock(ns, more=True, inf=inf)
        device.answer(RBlock(1 - ns))
    for _ in range(3):
        assert device.answer(RBlock(0)) == IBlock(0, inf=b"c")
    assert device.answer(RBlock(0)) == RESYNCH


def test_a_device_asks_for_each_block_of_a_response_up_to_three_times(device: Device) -> None:
    device.command(b"a")
    device.answer(IBlock(0, more=True))
    for ns in (1, 0):
        for _ in range(3):
            assert device.answer(IBlock(1 - ns)) == RBlock(ns)
        device.answer(IBlock(ns, more=True))
    for _ in range(3):
        assert device.answer(IBlock(0)) == RBlock(1)
    assert device.answer(IBlock(0)) == RESYNCH


def test_a_card_that_does_not_resynchronise_is_given_up(device: Device) -> None:
    device.command(b"a")
    for _ in range(5):
        device.answer(None)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            device.end.time_out()
        with pytest.raises(RemoteProtocolError):
            device.end.receive_block(encode(RESYNCH_RESPONSE))
        with pytest.raises(RemoteProtocolError):
            device.end.send_command(b"a")


def test_a_device_ends_the_exchange_that_the_card_aborts() -> None:
    device = Device(InterfaceDevice(ifsc=1))
    device.command(b"abc")
    assert device.answer(ABORT) == ABORT_RESPONSE
    assert device.answer(None) == RBlock(0, OTHER_ERROR)
    assert device.answer(RBlock(1)) == Aborted()
    assert device.command(b"d") == IBlock(1, inf=b"d")
    for _ in range(3):
        assert device.answer(RBlock(1)) == IBlock(1, inf=b"d")
    assert device.answer(IBlock(0)) == ResponseReady(b"")


def test_a_card_that_aborts_may_respond_all_the_same() -> None:
    device = Device(InterfaceDevice(ifsc=1))
    device.command(b"abc")
    assert device.answer(ABORT) == ABORT_RESPONSE
    assert device.answer(IBlock(0, more=True, inf=b"d")) == RBlock(1)
    assert device.answer(RBlock(1)) == RBlock(1)
    assert device.answer(IBlock(1, inf=b"e")) == ResponseReady(b"de")


def test_a_response_that_is_too_long_is_the_end() -> None:
    device = Device(InterfaceDevice(max_response=3))
    device.command(b"a")
    assert device.answer(IBlock(0, more=True, inf=b"abc")) == RBlock(1)
    with pytest.raises(RemoteProtocolError):
        device.answer(IBlock(1, inf=b"d"))
    assert not device.end._incoming


@pytest.mark.parametrize(
    "block",
    [
        GARBAGE,
        IBlock(1),
        RBlock(0),
        RBlock(1),
        IFS,
        ABORT,
        RESYNCH,
        IFS_RESPONSE,
        ABORT_RESPONSE,
        WTX_RESPONSE,
    ],
)
def test_a_card_with_one_block_for_everything_is_given_up(
    device: Device, block: Block | bytes
) -> None:
    def ask_on() -> None:
        for _ in range(20):
            assert device.answer(block) != Aborted()

    device.command(bytes(100))
    with pytest.raises(RemoteProtocolError):
        ask_on()


@given(st.lists(any_blocks | st.none()))
def test_a_device_takes_anything_from_a_card(script: list[bytes | None]) -> None:
    device = InterfaceDevice(max_response=100)
    device.send_command(bytes(70))
    for step in script:
        try:
            answer = device.time_out() if step is None else device.receive_block(step)
        except RemoteProtocolError:
            return
        if isinstance(answer, bytes):
            decode(answer)
        else:
            assert not isinstance(answer, IFSDAccepted)
            device.send_command(bytes(70))


@pytest.mark.parametrize("size", [0, MAX_COMMAND + 1])
def test_a_command_of_a_wrong_size_is_not_sent(device: Device, size: int) -> None:
    with pytest.raises(LocalProtocolError):
        device.end.send_command(bytes(size))
    assert device.command(b"a") == IBlock(0, inf=b"a")


def test_a_device_does_one_thing_at_a_time(device: Device) -> None:
    with pytest.raises(LocalProtocolError):
        device.end.receive_block(encode(IBlock(0)))
    with pytest.raises(LocalProtocolError):
        device.end.time_out()
    device.command(b"a")
    with pytest.raises(LocalProtocolError):
        device.end.send_command(b"a")
    with pytest.raises(LocalProtocolError):
        device.end.send_ifsd()


@pytest.mark.parametrize("ifsd", [0, 255])
def test_there_is_no_such_ifsd(device: Device, ifsd: int) -> None:
    with pytest.raises(LocalProtocolError):
        device.end.send_ifsd(ifsd)
    assert device.command(b"a") == IBlock(0, inf=b"a")


def test_an_interface_device_is_not_made_with_a_reserved_value() -> None:
    with pytest.raises(LocalProtocolError):
        InterfaceDevice(ifsc=255)
    with pytest.raises(LocalProtocolError):
        InterfaceDevice(nad=0xFF)


def test_a_repr_does_not_hold_a_response() -> None:
    assert "31337" not in repr(ResponseReady(b"31337"))

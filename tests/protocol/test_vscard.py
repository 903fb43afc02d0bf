# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import vscard
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed
from ccid_protocol.vscard import (
    APDU,
    ATR,
    CardRemove,
    Connection,
    Error,
    Flush,
    FlushComplete,
    Init,
    Message,
    ReaderAdd,
    ReaderRemove,
    Role,
)
from streams import byte_by_byte, events_of, random_pieces

# Seen on the wire of QEMU 7.2.22.
QEMU_INIT = bytes.fromhex("00000001 ffffffff 0000000c 56534344 00000002 00000000")
U32 = st.integers(0, 2**32 - 1)


def open_connection(role: Role) -> Connection:
    connection = Connection(role)
    connection.send(Init())
    connection.receive_data(QEMU_INIT)
    assert connection.next_event() == Init()
    return connection


def test_our_init_is_the_one_that_qemu_sends() -> None:
    assert Connection(Role.CLIENT).send(Init()) == QEMU_INIT


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Error(0, 0), "00000002 00000000 00000004 00000000"),
        (ReaderAdd(b"ab"), "00000003 ffffffff 00000002 6162"),
        (ReaderRemove(1), "00000004 00000001 00000000"),
        (ATR(bytes.fromhex("3B00")), "00000005 00000000 00000002 3b00"),
        (CardRemove(), "00000006 00000000 00000000"),
        (APDU(bytes.fromhex("9000")), "00000007 00000000 00000002 9000"),
        (Flush(), "00000008 00000000 00000000"),
        (FlushComplete(), "00000009 00000000 00000000"),
    ],
)
def test_each_message_has_its_bytes(message: Message, wire: str) -> None:
    assert vscard.encode(message) == bytes.fromhex(wire)


host_messages = st.one_of(
    st.builds(Init, U32, st.lists(U32, max_size=4).map(tuple)),
    st.builds(APDU, st.binary(max_size=300), U32),
    st.builds(Flush, U32),
)


@given(st.lists(host_messages, max_size=20), st.data())
def test_messages_arrive_alike_in_any_pieces(messages: list[Message], data: st.DataObject) -> None:
    wire = QEMU_INIT + b"".join(map(vscard.encode, messages))
    expected = [Init(), *messages]
    for pieces in ([wire], byte_by_byte(wire), data.draw(random_pieces(wire))):
        assert events_of(Connection(Role.CLIENT), pieces) == expected


@given(
    st.lists(
        st.one_of(
            st.builds(Init, U32, st.lists(U32, max_size=4).map(tuple)),
            st.builds(Error, U32, U32),
            st.builds(ReaderAdd, st.binary(max_size=40)),
            st.builds(ReaderRemove, U32),
            st.builds(ATR, st.binary(max_size=40), U32),
            st.builds(CardRemove, U32),
            st.builds(APDU, st.binary(max_size=300), U32),
            st.builds(Flush, U32),
            st.builds(FlushComplete, U32),
            st.binary(max_size=60),
        )
    ),
    st.sampled_from(Role),
)
def test_whatever_arrives_only_a_remote_protocol_error_leaves(
    sent: list[Message | bytes], role: Role
) -> None:
    connection = Connection(role)
    connection.send(Init())
    for item in sent:
        connection.receive_data(item if isinstance(item, bytes) else vscard.encode(item))
        try:
            while connection.next_event() not in {NEED_DATA, ConnectionClosed()}:
                pass
        except RemoteProtocolError:
            with pytest.raises(RemoteProtocolError):
                connection.next_event()
            return


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param("00000000 00000000 00000000", id="type 0"),
        pytest.param("0000000a 00000000 00000000", id="type 10"),
        pytest.param("00000007 00000000 0000fff5", id="payload of 65525 bytes"),
        pytest.param("00000001 00000000 00000004 56534344", id="Init too short"),
        pytest.param("00000001 00000000 0000000d 565343440000000200000000 00", id="Init of 13"),
        pytest.param("00000001 00000000 0000000c 5653434500000002 00000000", id="magic"),
        pytest.param("00000002 00000000 00000003 000000", id="Error too short"),
        pytest.param("00000002 00000000 00000004 00000000", id="Error that answers nothing"),
        pytest.param("00000006 00000000 00000000", id="CardRemove from a host"),
    ],
)
def test_a_host_that_breaks_the_protocol_is_refused(wire: str) -> None:
    connection = open_connection(Role.CLIENT)
    connection.receive_data(bytes.fromhex(wire))
    with pytest.raises(RemoteProtocolError):
        connection.next_event()


def test_a_host_that_does_not_begin_with_init_is_refused() -> None:
    connection = Connection(Role.CLIENT)
    connection.send(Init())
    connection.receive_data(vscard.encode(Flush()))
    with pytest.raises(RemoteProtocolError, match="before Init"):
        connection.next_event()


def test_a_command_may_come_before_init_and_is_answered_after_it() -> None:
    connection = Connection(Role.CLIENT)
    connection.send(Init())
    connection.receive_data(vscard.encode(APDU(b"\0\0\0\0")))
    assert connection.next_event() == APDU(b"\0\0\0\0")
    with pytest.raises(LocalProtocolError, match="before both Inits"):
        connection.send(APDU(b"\x6f\0"))
    connection.receive_data(QEMU_INIT)
    assert connection.next_event() == Init()
    connection.send(APDU(b"\x6f\0"))


def test_the_error_text_never_holds_the_data() -> None:
    connection = Connection(Role.HOST)
    connection.receive_data(vscard.encode(APDU(b"123456")))
    with pytest.raises(RemoteProtocolError) as caught:
        connection.next_event()
    assert "123456" not in str(caught.value)
    assert "123456" not in repr(APDU(b"123456"))


def test_the_end_of_the_stream_is_an_event_between_messages_and_an_error_within_one() -> None:
    connection = open_connection(Role.CLIENT)
    connection.receive_data(b"")
    assert connection.next_event() == ConnectionClosed()

    connection = open_connection(Role.CLIENT)
    connection.receive_data(QEMU_INIT[:5])
    connection.receive_data(b"")
    with pytest.raises(RemoteProtocolError, match="middle"):
        connection.next_event()


def test_a_client_sends_nothing_but_init_before_the_host_has_answered() -> None:
    connection = Connection(Role.CLIENT)
    with pytest.raises(LocalProtocolError):
        connection.send(ReaderAdd())
    connection.send(Init())
    with pytest.raises(LocalProtocolError):
        connection.send(ReaderAdd())
    with pytest.raises(LocalProtocolError):
        connection.send(Init())
    connection.receive_data(QEMU_INIT)
    connection.next_event()
    connection.send(ReaderAdd())


def test_a_client_does_not_send_what_hosts_send() -> None:
    with pytest.raises(LocalProtocolError):
        open_connection(Role.CLIENT).send(Flush())


def test_an_error_completes_a_command_that_an_earlier_client_left_behind() -> None:
    client, host = open_connection(Role.CLIENT), open_connection(Role.HOST)
    host.send(APDU(b"\0\0\0\0"))
    host.receive_data(client.send(Error(1)))
    assert host.next_event() == Error(1)
    assert host.pending_apdus == 0
    host.receive_data(client.send(Error(1)))
    assert host.next_event() == Error(1)


def test_a_client_sends_no_error_for_commands_of_its_own() -> None:
    client = open_connection(Role.CLIENT)
    client.receive_data(vscard.encode(APDU(b"\0\0\0\0")))
    client.next_event()
    with pytest.raises(LocalProtocolError):
        client.send(Error(1))
    client.send(APDU(b"\x6f\0"))
    client.send(ReaderRemove())
    with pytest.raises(LocalProtocolError):
        client.send(Error(1))


def test_a_second_notification_waits_for_the_answer_to_the_first() -> None:
    connection = open_connection(Role.CLIENT)
    connection.send(ReaderRemove())
    with pytest.raises(LocalProtocolError):
        connection.send(ReaderAdd())
    connection.receive_data(vscard.encode(Error(0, 7)))
    assert connection.next_event() == Error(0, 7)
    connection.send(ReaderAdd())


def test_every_response_length_but_those_that_harm_qemu_can_be_sent() -> None:
    for length in range(400):
        connection = open_connection(Role.CLIENT)
        connection.receive_data(vscard.encode(APDU(b"\0\0\0\0")))
        connection.next_event()
        if 2 <= length <= 374 and length != 54:
            assert len(connection.send(APDU(bytes(length)))) == 12 + length
        else:
            with pytest.raises(LocalProtocolError):
                connection.send(APDU(bytes(length)))


def test_a_response_needs_a_command() -> None:
    with pytest.raises(LocalProtocolError, match="without a command"):
        open_connection(Role.CLIENT).send(APDU(b"\x90\0"))


@pytest.mark.parametrize("atr", [b"", b"\x3b", bytes(41)])
def test_an_atr_that_qemu_cannot_store_is_not_sent(atr: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        open_connection(Role.CLIENT).send(ATR(atr))


@pytest.mark.parametrize("message", [CardRemove(), ReaderRemove(), ATR(b"\x3b\0")])
def test_commands_are_answered_before_their_card_goes(message: Message) -> None:
    connection = open_connection(Role.CLIENT)
    connection.receive_data(vscard.encode(APDU(b"\0\0\0\0")))
    connection.next_event()
    with pytest.raises(LocalProtocolError, match="unanswered commands"):
        connection.send(message)
    connection.send(APDU(b"\x90\0"))
    connection.send(message)


def test_a_command_that_crosses_the_removal_of_its_card_is_not_seen() -> None:
    connection = open_connection(Role.CLIENT)
    connection.send(CardRemove())
    connection.receive_data(vscard.encode(APDU(b"\0\0\0\1")) + vscard.encode(Error(0)))
    assert connection.next_event() == Error(0)
    assert connection.pending_apdus == 0
    connection.receive_data(vscard.encode(APDU(b"\0\0\0\2")))
    assert connection.next_event() == APDU(b"\0\0\0\2")


def test_more_commands_than_qemu_can_wait_for_are_refused() -> None:
    connection = open_connection(Role.CLIENT)
    connection.receive_data(vscard.encode(APDU(b"\0\0\0\0")) * 129)
    for _ in range(128):
        assert connection.next_event() == APDU(b"\0\0\0\0")
    with pytest.raises(RemoteProtocolError, match="unanswered"):
        connection.next_event()


def test_a_host_keeps_to_its_half_too() -> None:
    host = open_connection(Role.HOST)
    with pytest.raises(LocalProtocolError, match="answers nothing"):
        host.send(Error(0))
    with pytest.raises(LocalProtocolError):
        host.send(CardRemove())
    with pytest.raises(LocalProtocolError):
        host.send(APDU(bytes(65525)))
    host.receive_data(vscard.encode(APDU(b"\x90\0")))
    with pytest.raises(RemoteProtocolError, match="without a command"):
        host.next_event()


def test_a_host_forgets_its_commands_when_the_card_goes() -> None:
    host = open_connection(Role.HOST)
    host.send(APDU(b"\0\0\0\0"))
    host.receive_data(vscard.encode(CardRemove()))
    assert host.next_event() == CardRemove()
    assert host.unanswered == CardRemove()
    host.send(Error(0))
    assert host.pending_apdus == 0
    host.receive_data(vscard.encode(CardRemove()) * 2)
    host.next_event()
    with pytest.raises(RemoteProtocolError, match="without waiting"):
        host.next_event()


def test_a_host_waits_for_at_most_128_commands() -> None:
    host = open_connection(Role.HOST)
    for _ in range(128):
        host.send(APDU(b"\0\0\0\0"))
    with pytest.raises(LocalProtocolError):
        host.send(APDU(b"\0\0\0\0"))

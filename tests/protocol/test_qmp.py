# SPDX-License-Identifier: Apache-2.0
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed
from ccid_protocol.qmp import (
    JSON,
    MAX_DEPTH,
    NO_ID,
    BadRequest,
    ClientConnection,
    Error,
    ErrorClass,
    Event,
    Greeting,
    Message,
    Request,
    Return,
    ServerConnection,
)
from streams import byte_by_byte, events_of, random_pieces

GREETING = Greeting({"qemu": {"major": 1, "minor": 2, "micro": 3}, "package": "x"}, ["oob"])
STOP = Request("stop")


def requests(data: bytes) -> list[Request | BadRequest | ConnectionClosed]:
    return events_of(ServerConnection(), [data])


def request(data: bytes) -> Request:
    (event,) = requests(data)
    assert isinstance(event, Request)
    return event


def fault(data: bytes) -> str:
    (event,) = requests(data)
    assert isinstance(event, BadRequest)
    return event.description


def greeted_client() -> ClientConnection:
    connection = ClientConnection()
    connection.receive_data(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
    assert connection.next_event() == Greeting({}, [])
    return connection


# Requests.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"execute":"stop"}', STOP),
        (b' \t\r\n{ "execute" :\r\n"stop" ,\t"arguments" : { } } \n', STOP),
        (b'{"id":7,"arguments":{"a":[1,-2.5e3,null]},"execute":"x"}', None),
        (b'{"execute":"stop","id":null}', Request("stop", id=None)),
        (b'{"execute":"stop","id":{"a":[true,false]}}', Request("stop", id={"a": [True, False]})),
        (b"{'execute':'stop'}", STOP),
        (b"""{'execute':'"\\'\\"\\\\','id':"'\\'"}""", Request('"\'"\\', id="''")),
        ('{"execute":"grüß \\u20ac \\ud83d\\ude00"}'.encode(), Request("grüß € 😀")),
        (b'{"execute":"{}[]:,"}', Request("{}[]:,")),
        (b'{"execute":"x","id":18446744073709551615}', Request("x", id=2**64 - 1)),
        (b'{"execute":"x","id":-9223372036854775808}', Request("x", id=-(2**63))),
    ],
)
def test_a_request_is_read(data: bytes, expected: Request | None) -> None:
    assert request(data) == (expected or Request("x", {"a": [1, -2500.0, None]}, 7))


def test_requests_need_nothing_between_them() -> None:
    assert requests(b"{'execute':'a'}{'execute':'b'}\n\n{'execute':'c'}") == [
        Request("a"),
        Request("b"),
        Request("c"),
    ]


@pytest.mark.parametrize(
    ("data", "description"),
    [
        (b"[]", "a request is an object"),
        (b"null ", "a request is an object"),
        (b"1\n", "a request is an object"),
        (b"'execute'", "a request is an object"),
        (b"{}", "a request needs the member execute"),
        (b"{'execute':true}", "the member execute is to be a string"),
        (b"{'execute':'x','arguments':[]}", "the member arguments is to be an object"),
        (b"{'execute':'x','12345':1}", "has the members execute, arguments and id, and no others"),
        (b"{'exec-oob':'x'}", "out-of-band execution is not offered"),
        (b"{'exec-oob':'x','execute':'x'}", "out-of-band execution is not offered"),
        (b"{'execute':}", "no JSON: expecting value"),
        (b"{'execute' 12345}", "no JSON: expecting ':' delimiter"),
        (b"{]", "no JSON"),
        (b"}", "no JSON"),
        (b",", "no JSON"),
        (b"nul ", "no JSON"),
        (b"[1 2]", "no JSON"),
        (b"[01]", "no JSON"),
        (b"[+1]", "no JSON"),
        (b"[1.]", "no JSON"),
        (b"['\\x']", "no JSON"),
        (b"[NaN]", "NaN and Infinity are no numbers"),
        (b"[-Infinity]", "NaN and Infinity are no numbers"),
        (b"[1e999]", "a number is too large"),
        (b"[18446744073709551616]", "an integer has more than 64 bits"),
        (b"[-9223372036854775809]", "an integer has more than 64 bits"),
        (b"[" + b"9" * 10000 + b"]", "an integer has more than 64 bits"),
        (b"[1" + b"0" * 10000 + b".5]", "a number is too large"),
        (b"{'execute':'12345','execute':'12345'}", "a key comes twice"),
        (b"{'execute':'x','arguments':{'a':1,'b':2,'a':1}}", "a key comes twice"),
        (b"['\\ud800']", "no UTF-8"),
        (b"['\\udc00\\ud800']", "no UTF-8"),
        (b"['\xc3']", "no UTF-8"),
        (b"['\xc0\x80']", "no UTF-8"),
        (b"['\xed\xa0\x80']", "no UTF-8"),
    ],
)
def test_what_is_no_request_is_told_apart_and_reading_goes_on(
    data: bytes, description: str
) -> None:
    text = fault(data)
    assert description in text
    assert "12345" not in text
    assert requests(data + b"{'execute':'stop'}")[-1] == STOP


# QEMU's own list, and some more.
@pytest.mark.parametrize(
    "data",
    [
        b"{\xff",
        b"{\x01",
        b"{'bad \xff",
        b'{"bad \xfe',
        b"{'execute': 'nonexistent', 'id':'\n",
        b'{"execute": "12345\r',
        b'{"execute": "12345\\\n',
        b"{'execute': %",
        b"{'execute': #",
        b"{'execute': \xc3",
        b"{{{[[[\x00",
    ],
)
def test_a_byte_that_json_has_nowhere_brings_reading_back_into_step(data: bytes) -> None:
    assert "a byte that stands nowhere in it" in fault(data)
    assert requests(data + b"{'execute':'stop'}")[-1] == STOP


def test_a_bad_request_keeps_its_id() -> None:
    (event,) = requests(b"{'exec-oob':'x','id':'a'}")
    assert isinstance(event, BadRequest)
    assert event.id == "a"
    (event,) = requests(b"{]")
    assert isinstance(event, BadRequest)
    assert event.id is NO_ID


def test_arguments_are_in_no_repr() -> None:
    assert "12345" not in repr(request(b"{'execute':'x','arguments':{'pin':'12345'}}"))


# What is too much.


def refusal(connection: ServerConnection | ClientConnection, data: bytes) -> str:
    connection.receive_data(data)
    with pytest.raises(RemoteProtocolError) as refused:
        connection.next_event()
    with pytest.raises(RemoteProtocolError) as again:
        connection.next_event()
    assert again.value is refused.value
    return str(refused.value)


@pytest.mark.parametrize("filling", [b"'" + b"1" * 100, b"1" * 100, b" " * 100, b"1," * 50])
def test_a_text_that_is_too_long_is_refused_before_it_is_whole(filling: bytes) -> None:
    assert refusal(ServerConnection(100), b"[" + filling) == "a text of more than 100 bytes"
    connection = ServerConnection(100)
    for piece in byte_by_byte((b"[" + filling)[:100]):
        connection.receive_data(piece)
        assert connection.next_event() is NEED_DATA
    assert refusal(connection, b"1") == "a text of more than 100 bytes"


def test_only_the_longest_text_counts() -> None:
    data = b"{'execute':'stop'}" + b" " * 50
    assert events_of(ServerConnection(20), [data * 10]) == [STOP] * 10


def test_a_text_that_is_too_deep_is_refused_before_it_is_whole() -> None:
    assert "a request is an object" in fault(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert "more than 64 open brackets" in refusal(ServerConnection(), b"[{" * 32 + b"[")


# The end.


def test_a_client_may_close_between_requests() -> None:
    for data in (b"", b"{'execute':'stop'}", b"{'execute':'stop'} \n"):
        connection = ServerConnection()
        connection.receive_data(data)
        connection.receive_data(b"")
        if data:
            assert connection.next_event() == STOP
        assert connection.next_event() == ConnectionClosed()
        assert connection.next_event() == ConnectionClosed()


def test_a_number_may_end_with_the_connection() -> None:
    connection = ServerConnection()
    connection.receive_data(b"12")
    connection.receive_data(b"")
    assert isinstance(connection.next_event(), BadRequest)
    assert connection.next_event() == ConnectionClosed()


@pytest.mark.parametrize("data", [b"{", b"'12345", b"{'execute': 1", b"[ "])
def test_a_connection_that_ends_within_a_request_is_told_apart(data: bytes) -> None:
    connection = ServerConnection()
    connection.receive_data(data)
    assert connection.next_event() is NEED_DATA
    assert refusal(connection, b"") == "connection closed in the middle of a text"


# What the server sends.


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (Return({}), b'{"return": {}}'),
        (Return([1, "ä\n"], None), b'{"return": [1, "\\u00e4\\n"], "id": null}'),
        (
            Error(ErrorClass.COMMAND_NOT_FOUND, "there is none", "a"),
            b'{"error": {"class": "CommandNotFound", "desc": "there is none"}, "id": "a"}',
        ),
        (
            Event("STOP", {}, 1, 802384),
            b'{"timestamp": {"seconds": 1, "microseconds": 802384}, "event": "STOP", "data": {}}',
        ),
    ],
)
def test_each_message_has_its_line(message: Message, line: bytes) -> None:
    server, client = ServerConnection(), ClientConnection()
    greeting = server.send(GREETING)
    assert json.loads(greeting)["QMP"] == {"version": GREETING.version, "capabilities": ["oob"]}
    assert server.send(message) == line + b"\r\n"
    assert events_of(client, byte_by_byte(greeting + line)) == [GREETING, message]


def test_the_greeting_is_first_and_the_only_one() -> None:
    server = ServerConnection()
    with pytest.raises(LocalProtocolError, match="the greeting is the first message"):
        server.send(Return({}))
    server.send(GREETING)
    with pytest.raises(LocalProtocolError, match="no other is one"):
        server.send(GREETING)


def test_a_server_that_takes_no_more_clients_says_so_first() -> None:
    error = Error(ErrorClass.GENERIC_ERROR, "too many")
    line = ServerConnection().send(error)
    assert events_of(ClientConnection(), [line]) == [error]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_sent(value: float) -> None:
    server = ServerConnection()
    server.send(GREETING)
    with pytest.raises(LocalProtocolError, match="no JSON"):
        server.send(Return(value))


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        b'{"event": "X"}',
        b'{"event": "X", "timestamp": {"seconds": "1", "microseconds": 0}}',
        b'{"event": "X", "timestamp": {"seconds": 1, "microseconds": 0}, "data": 12345}',
        b'{"error": {"class": "12345"}}',
        b'{"QMP": {"version": {}, "capabilities": []}}',
        b"{]",
    ],
)
def test_what_is_no_message_ends_the_clients_connection(data: bytes) -> None:
    assert "12345" not in refusal(greeted_client(), data)


def test_the_server_is_to_greet_first() -> None:
    assert "the greeting is not the first message" in refusal(ClientConnection(), b'{"return":1}')


def test_a_server_may_close_between_messages() -> None:
    connection = greeted_client()
    connection.receive_data(b"")
    assert connection.next_event() == ConnectionClosed()


# Properties.

JSON_VALUES: st.SearchStrategy[JSON] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)
ARGUMENTS = st.dictionaries(st.text(), JSON_VALUES)


@given(st.text(), ARGUMENTS, JSON_VALUES | st.just(NO_ID))
def test_each_request_arrives_as_it_was_sent(
    execute: str, arguments: dict[str, JSON], request_id: JSON
) -> None:
    sent = Request(execute, arguments, request_id)
    encoded = ClientConnection().send(sent)
    assert events_of(ServerConnection(), byte_by_byte(encoded)) == [sent]
    raw = json.dumps(json.loads(encoded), ensure_ascii=False, indent=1).encode()
    assert requests(raw) == [sent]


@given(JSON_VALUES, JSON_VALUES | st.just(NO_ID))
def test_each_return_arrives_as_it_was_sent(value: JSON, request_id: JSON) -> None:
    server, client = ServerConnection(), ClientConnection()
    sent = Return(value, request_id)
    pieces = [server.send(GREETING), server.send(sent)]
    assert pieces[1].isascii()
    assert events_of(client, pieces) == [GREETING, sent]


_PARTS = b"{ } [ ] ' \" \\ \n \\u d800 1 e9 , : {'execute':'stop'} 'execute' 'id' \xff true"
JUNK = st.binary(max_size=30) | st.sampled_from(_PARTS.split(b" "))


@given(st.data())
def test_pieces_make_no_difference(data: st.DataObject) -> None:
    stream = b"".join(data.draw(st.lists(JUNK, min_size=1, max_size=20)))
    whole = outcome(ServerConnection(), [stream])
    assert outcome(ServerConnection(), byte_by_byte(stream)) == whole
    assert outcome(ServerConnection(), data.draw(random_pieces(stream))) == whole


def outcome(connection: ServerConnection, pieces: list[bytes]) -> list[object]:
    """Gives all that comes of the pieces and of the end, a refusal included."""
    events: list[object] = []
    try:
        events += events_of(connection, pieces)
        connection.receive_data(b"")
        while not isinstance(event := connection.next_event(), ConnectionClosed):
            events.append(event)
    except RemoteProtocolError as error:
        events.append(str(error))
    return events


@given(st.lists(JUNK))
def test_nothing_but_a_remote_protocol_error_leaves_the_decoders(pieces: list[bytes]) -> None:
    connection: ServerConnection | ClientConnection
    for connection in (ServerConnection(50), greeted_client()):
        with contextlib.suppress(RemoteProtocolError):
            events_of(connection, pieces)


@given(st.lists(JUNK))
def test_a_sentinel_brings_reading_back_into_step(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert requests(data + b"\xff" + b"{'execute':'stop'}")[-1] == STOP

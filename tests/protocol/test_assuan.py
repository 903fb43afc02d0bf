# SPDX-License-Identifier: Apache-2.0
import contextlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.assuan import (
    MAX_LINE,
    Cancel,
    Command,
    Connection,
    Data,
    End,
    Err,
    ErrorCode,
    Inquire,
    Ok,
    Request,
    Response,
    Status,
)
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed
from streams import events_of, random_pieces

GREETING = b"OK Pleased to meet you\n"


def idle_connection() -> Connection:
    connection = Connection()
    connection.receive_data(GREETING)
    assert connection.next_event() == Ok("Pleased to meet you")
    return connection


def busy_connection() -> Connection:
    connection = idle_connection()
    connection.send(Command("GETPIN"))
    return connection


def inquired_connection() -> Connection:
    connection = busy_connection()
    connection.receive_data(b"INQUIRE QUALITY\n")
    assert connection.next_event() == Inquire("QUALITY")
    return connection


def response(connection: Connection, line: bytes) -> Response:
    (event,) = events_of(connection, [line + b"\n"])
    assert isinstance(event, Response)
    return event


def refusal(connection: Connection, data: bytes) -> str:
    connection.receive_data(data)
    with pytest.raises(RemoteProtocolError) as refused:
        connection.next_event()
    with pytest.raises(RemoteProtocolError) as again:
        connection.next_event()
    assert again.value is refused.value
    return str(refused.value)


# Responses.


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"OK", Ok()),
        (b"OK closing connection\r", Ok("closing connection")),
        ("OK grüß".encode(), Ok("grüß")),
        (b"OK \xff", Ok("\N{REPLACEMENT CHARACTER}")),
        (b"ERR 1", Err(1)),
        (b"ERR 4294967295 x y", Err(0xFFFFFFFF, "x y")),
        (b"S PIN_REPEATED", Status("PIN_REPEATED")),
        (b"S ERROR tty.? 83886142 ", Status("ERROR", "tty.? 83886142 ")),
        (b"D", Data(b"")),
        (b"D ", Data(b"")),
        (b"D  1%2534%0a%0D%00 ", Data(b" 1%34\n\r\0 ")),
        (b"D +\xe4\xff\t", Data(b"+\xe4\xff\t")),
        (b"INQUIRE NEEDPIN", Inquire("NEEDPIN")),
        (b"INQUIRE NEEDPIN for what", Inquire("NEEDPIN", "for what")),
        (b"# OK\n#\n\n\r\nOK", Ok()),
        (b"OK ".ljust(1001, b"x"), Ok("x" * 998)),
    ],
)
def test_each_response_is_read(line: bytes, expected: Response) -> None:
    assert response(busy_connection(), line) == expected


# Seen on the wire of pinentry-tty and pinentry-curses 1.2.1.
@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"ERR 83886179 Operation cancelled <Pinentry>", ErrorCode.CANCELED),
        (b"ERR 83886142 Timeout <Pinentry>", ErrorCode.TIMEOUT),
        (b"ERR 83886194 Not confirmed <Pinentry>", ErrorCode.NOT_CONFIRMED),
        (b"ERR 83886254 Unknown option <Pinentry>", ErrorCode.UNKNOWN_OPTION),
        (b"ERR 536871187 Unknown IPC command <User defined source 1>", ErrorCode.ASS_UNKNOWN_CMD),
        (
            b"ERR 83886278 Operation fully cancelled <Pinentry> - [closing connection]",
            ErrorCode.FULLY_CANCELED,
        ),
    ],
)
def test_the_errors_of_a_pinentry_are_known(line: bytes, error: ErrorCode) -> None:
    answer = response(busy_connection(), line)
    assert isinstance(answer, Err)
    assert answer.error == error


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"D 12345%", "a percent sign that escapes nothing"),
        (b"D 12345%4", "a percent sign that escapes nothing"),
        (b"D 12345%4x", "a percent sign that escapes nothing"),
        (b"ERR", "without a code of 32 bits"),
        (b"ERR 12345x", "without a code of 32 bits"),
        (b"ERR -12345", "without a code of 32 bits"),
        (b"ERR 4294967296", "without a code of 32 bits"),
        (b"ERR 99999999999", "without a code of 32 bits"),
        (b"ok 12345", "a line of 8 bytes that is no response"),
        (b"END", "no response"),
        (b" OK 12345", "no response"),
        (b"\xff12345", "no response"),
        (b"12345".ljust(1002, b"x"), "a line of more than 1002 bytes"),
    ],
)
def test_a_line_that_is_no_response_is_refused(line: bytes, reason: str) -> None:
    text = refusal(busy_connection(), line + b"\n")
    assert reason in text
    assert "12345" not in text


def test_a_line_without_an_end_is_refused_before_it_is_whole() -> None:
    connection = busy_connection()
    connection.receive_data(b"D ".ljust(1002, b"1"))
    assert connection.next_event() is NEED_DATA
    assert "a line of more than 1002 bytes" in refusal(connection, b"1")


@given(st.data())
def test_pieces_make_no_difference(data: st.DataObject) -> None:
    stream = b"S X\n#\nD 12\r\nD 34%0A\nERR 1 no\n"
    pieces = data.draw(random_pieces(stream))
    assert events_of(busy_connection(), pieces) == [
        Status("X"),
        Data(b"12"),
        Data(b"34\n"),
        Err(1, "no"),
    ]


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"OK\n", b"D 1%", b"ERR 1\n"])))
def test_nothing_but_a_remote_protocol_error_leaves_the_decoder(pieces: list[bytes]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        events_of(busy_connection(), pieces)


# Whose turn it is.


@pytest.mark.parametrize("line", [b"S A", b"D 12345", b"INQUIRE A"])
def test_only_ok_or_err_is_a_greeting(line: bytes) -> None:
    assert refusal(Connection(), line + b"\n").endswith("while greeting")
    assert response(Connection(), b"ERR 1 busy") == Err(1, "busy")


@pytest.mark.parametrize("line", [b"OK", b"ERR 1", b"S A", b"D 12345", b"INQUIRE A"])
def test_a_response_out_of_turn_is_refused(line: bytes) -> None:
    assert refusal(idle_connection(), line + b"\n").endswith("while idle")
    assert refusal(inquired_connection(), line + b"\n").endswith("while inquired")


def test_a_comment_is_never_out_of_turn() -> None:
    for connection in (Connection(), idle_connection(), inquired_connection()):
        connection.receive_data(b"# nothing\n")
        assert connection.next_event() is NEED_DATA


@pytest.mark.parametrize("request_", [Data(b"1"), End(), Cancel()])
def test_an_answer_needs_an_inquiry(request_: Request) -> None:
    for connection in (Connection(), idle_connection(), busy_connection()):
        with pytest.raises(LocalProtocolError, match="while"):
            connection.send(request_)


def test_a_command_waits_for_its_turn() -> None:
    for connection in (Connection(), busy_connection(), inquired_connection()):
        with pytest.raises(LocalProtocolError, match="Command while"):
            connection.send(Command("NOP"))


def test_an_inquiry_is_answered_with_data_or_not_at_all() -> None:
    connection = inquired_connection()
    assert connection.send(Data(b"12%")) + connection.send(Data(b"")) == b"D 12%25\n"
    assert connection.send(End()) == b"END\n"
    assert response(connection, b"INQUIRE MORE") == Inquire("MORE")
    assert connection.send(Cancel()) == b"CAN\n"
    assert response(connection, b"ERR 83886179") == Err(83886179)
    assert connection.send(Command("BYE")) == b"BYE\n"


# The end.


def test_the_server_may_close_when_it_owes_nothing() -> None:
    connection = idle_connection()
    connection.receive_data(b"")
    assert connection.next_event() == ConnectionClosed()
    assert connection.next_event() == ConnectionClosed()


def test_a_server_that_closes_too_early_is_told_apart() -> None:
    assert refusal(Connection(), b"") == "connection closed while greeting"
    assert refusal(busy_connection(), b"") == "connection closed while busy"
    assert refusal(inquired_connection(), b"") == "connection closed while inquired"
    connection = busy_connection()
    connection.receive_data(b"D 12345")
    assert refusal(connection, b"") == "connection closed in the middle of a line"


# Requests.


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (Command("GETPIN"), b"GETPIN\n"),
        (Command("SETDESC", "100 %\nof\r\tit\0"), b"SETDESC 100 %25%0Aof%0D%09it%00\n"),
        (Command("SETDESC", "ÄÖ+ \\a\\"), "SETDESC ÄÖ+ \\a%5C\n".encode()),
        (Command("OPTION", "ttyname=/dev/pts/1"), b"OPTION ttyname=/dev/pts/1\n"),
        (Command("X", "a" * 997), b"X " + b"a" * 997 + b"\n"),
    ],
)
def test_each_command_has_its_line(command: Command, line: bytes) -> None:
    assert idle_connection().send(command) == line


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Command("X", "a" * 998), "X is a line of 1001 bytes"),
        (Command("X", "%" * 333), "X is a line of 1002 bytes"),
        (Command("X", "\ud800"), "cannot be written in UTF-8"),
        (Command(""), "a command's name"),
        (Command("A B"), "a command's name"),
        (Command("X\n"), "a command's name"),
        (Command("ÄX"), "a command's name"),
    ],
)
def test_a_command_that_is_no_line_is_not_sent(command: Command, reason: str) -> None:
    connection = idle_connection()
    with pytest.raises(LocalProtocolError, match=reason):
        connection.send(command)
    assert connection.send(Command("NOP")) == b"NOP\n"


@given(st.binary(max_size=5000))
def test_data_survives_its_escapes(data: bytes) -> None:
    lines = inquired_connection().send(Data(data))
    assert all(len(line) <= MAX_LINE for line in lines.splitlines(keepends=True))
    events = events_of(busy_connection(), [lines])
    assert b"".join(event.data for event in events if isinstance(event, Data)) == data


def test_data_is_in_no_repr() -> None:
    assert "12345" not in repr(Data(b"12345"))


# The real thing.


def test_a_real_pinentry_understands_what_is_sent() -> None:
    connection = Connection()
    with subprocess.Popen(
        ["pinentry-tty"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        to_pinentry, from_pinentry = process.stdin, process.stdout
        assert to_pinentry is not None
        assert from_pinentry is not None

        def answers(request: Request | None = None) -> list[Response]:
            if request is not None:
                to_pinentry.write(connection.send(request))
            received: list[Response] = []
            while not received or not isinstance(received[-1], Ok | Err):
                event = connection.next_event()
                if isinstance(event, Response):
                    received.append(event)
                else:
                    connection.receive_data(from_pinentry.read(4096))
            return received

        assert answers() == [Ok("Pleased to meet you")]
        assert answers(Command("OPTION", "ttyname=/dev/null")) == [Ok()]
        # What the option was set to comes back.
        ttyinfo, end = answers(Command("GETINFO", "ttyinfo"))
        assert isinstance(ttyinfo, Data)
        assert ttyinfo.data.startswith(b"/dev/null ")
        assert end == Ok()
        assert answers(Command("SETDESC", "100 %\n\\")) == [Ok()]
        assert answers(Command("SETDESC", "x" * 991)) == [Ok()]
        (error,) = answers(Command("NONSENSE"))
        assert isinstance(error, Err)
        assert error.error == ErrorCode.ASS_UNKNOWN_CMD
        assert answers(Command("BYE")) == [Ok("closing connection")]
        connection.receive_data(from_pinentry.read())
        assert connection.next_event() == ConnectionClosed()

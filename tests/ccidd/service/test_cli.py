# SPDX-License-Identifier: Apache-2.0
"""The program as its users run it: arguments, sockets, signals, exit status."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from authority import Authority
from ccid_protocol import vscard
from ccidd import __version__
from programs import CCIDD, run_ccidd, started
from qemu_peer import QemuPeer

VSCARD = "--transport=vscard"
SELECT_PIV = bytes.fromhex("00A4040009A0000003080000100000")


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def options(state_directory: Path) -> tuple[str, ...]:
    """What every ccidd of these tests is started with."""
    return (*CCIDD, VSCARD, f"--state-dir={state_directory}")


@pytest.fixture(scope="module")
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


# What is printed.


def test_capabilities_are_printed_whatever_else_is_given() -> None:
    for arguments in ([], ["--socket-path=x", "--fd=3", "--nonsense"], ["card"], ["--connect="]):
        result = run_ccidd(*arguments, "--print-capabilities")
        assert result.returncode == 0
        assert result.stderr == ""
        capabilities = json.loads(result.stdout)
        assert capabilities["type"] == "smartcard"
        assert capabilities["version"] == __version__
        assert {
            "socket-path",
            "fd",
            "connect",
            "listen-fds",
            "transport-vscard",
            "card-piv",
        } <= set(capabilities["features"])


def test_every_feature_that_names_an_option_is_one() -> None:
    features = json.loads(run_ccidd("--print-capabilities").stdout)["features"]
    shown = set(re.findall(r"--([a-z-]+)", run_ccidd("--help").stdout))
    prefixes = ("transport-", "card-", "listen-fds")
    assert {f for f in features if not f.startswith(prefixes)} <= shown


def test_card_help_is_printed() -> None:
    result = run_ccidd("--card=help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "keys=FILE.p12|FILE.pem" in result.stdout


def test_version_is_printed() -> None:
    assert run_ccidd("--version").stdout == f"ccidd {__version__}\n"


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --socket-path, --fd, --listen or --connect is needed"),
        (["--socket-path=x", "--fd=3"], "not allowed with argument"),
        (["--socket-path=x", "--connect=y"], "not allowed with argument"),
        (["--fd=3", "--connect=y"], "not allowed with argument"),
        (["--fd=three"], "argument --fd: invalid int value: 'three'"),
        (["--connect=host:port"], "neither a path nor HOST:PORT"),
        (["--connect="], "neither a path nor HOST:PORT"),
        (["--socket-path="], "argument --socket-path: a path is needed"),
        (["--socket-path=x", "--state-dir="], "argument --state-dir: a path is needed"),
        (
            ["--socket-path=x", VSCARD, "--reader=slots=2"],
            "--reader: vscard has QEMU's own reader; this is for usbredir",
        ),
        (["--socket-path=x", "--transport=ccid"], "invalid choice: 'ccid'"),
        (["--socket-path=x", "--card=nonsense"], "no such type of card"),
        (["--socket-path=x", "--card=piv"], "give it keys=FILE.p12|FILE.pem, or card=NAME"),
        (["--socket-path=x", "--card=piv,card=a,policy=us"], "policy: 'us' is none of use,"),
        (
            ["--socket-path=x", VSCARD, "--card=piv,card=a", "--card=piv,card=b"],
            "one slot; give it one card",
        ),
        (["--socket-path=x", "--state-key-file="], "argument --state-key-file: a path is needed"),
        (["--socket-path=x", "--socket-mode=rw"], "--socket-mode: rw: this is no mode"),
        (["--socket-path=x", "--socket-group=?"], "--socket-group: ?: there is no such group"),
        (
            ["--fd=3", "--socket-mode=0660"],
            "--socket-mode: this is for the socket that --s",
        ),
        (
            ["--connect=y", "--socket-group=0"],
            "--socket-group: this is for the socket that",
        ),
        (["--socket-path=x", "--allow=uid:?"], "--allow: uid:?: there is no such user"),
        (["--listen=host:1"], "TCP is for TLS: give certificates as QEMU's tls-creds-x509"),
        (["--connect=host:1"], "or do without by --insecure-tcp=on, and whoever reaches"),
        (["--connect=host:1", "--insecure-tcp=off"], "TCP is for TLS"),
        (["--connect=host:1", "--insecure-tcp"], "argument --insecure-tcp: expected one argument"),
        (["--listen=host", "--tls-creds=x"], "--listen: host is not HOST:PORT"),
        (["--listen=host:65536", "--tls-creds=x"], "--listen: host:65536 is not HOST:PORT"),
        (["--listen=a..b:1", "--tls-creds=x"], "--listen: a..b:1 has no host name before its port"),
        (["--listen=host:1", "--fd=3"], "not allowed with argument"),
        (["--listen=host:1", "--insecure-tcp=on", "--tls-creds=x"], "not allowed with --tls-creds"),
        (["--listen=host:1", "--tls-creds=x", "--tls-hostname=y"], "is for --connect=HOST:PORT"),
        (["--connect=host:1", "--insecure-tcp=on", "--tls-hostname=y"], "go with --tls-creds"),
        (["--listen=host:1", "--insecure-tcp=on", "--allow=cert:CN=a"], "go with --tls-creds"),
        (["--socket-path=x", "--tls-creds=y"], "--tls-creds: this is for TCP"),
        (["--socket-path=x", "--insecure-tcp=on"], "--insecure-tcp: this is for TCP"),
        (["--connect=x", "--tls-hostname=y"], "--tls-hostname: this is for TCP"),
        (
            ["--connect=host:1", "--tls-creds=x", "--allow=gid:0"],
            "are for Unix sockets: TCP",
        ),
        (["--socket-path=x", "--allow=cert:CN=a"], "--allow: this is for TCP"),
        (
            ["--socket-path=x", "--transport=serial", "--allow=uid:0"],
            ": this is for sockets",
        ),
        (["--socket=x"], "unrecognized arguments: --socket=x"),
        (["socket"], "unrecognized arguments: socket"),
        (["card"], "required: COMMAND"),
        (["card", "nonsense"], "invalid choice: 'nonsense'"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(arguments: list[str], message: str) -> None:
    result = run_ccidd(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fd=99"], "file descriptor 99 cannot be served: Bad file descriptor"),
        (["--socket-path=/nonexistent/x"], "cannot listen on /nonexistent/x: No such file"),
        (["--socket-path=/dev/null"], "cannot listen on /dev/null: it exists and is no socket"),
        (
            ["--socket-path=x", "--card=piv,keys=/nonexistent,pin-file=x"],
            "cannot read /nonexistent",
        ),
        (["--socket-path=x", "--card=piv,card=alice"], "there is no card alice in"),
        (
            ["--listen=127.0.0.1:1", "--tls-creds=/nonexistent"],
            "cannot read /nonexistent/ca",
        ),
        (["--listen=nowhere.invalid:1", "--insecure-tcp=on"], "cannot listen on nowhere.invalid:1"),
        (["--socket-path=x", "--state-key-file=/nonexistent"], "cannot use /nonexistent: No such"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_status_1(
    arguments: list[str], message: str, state_directory: Path
) -> None:
    run_ccidd("--fd=99", f"--state-dir={state_directory}")
    result = run_ccidd(*arguments, f"--state-dir={state_directory}", "--log-level=error")
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_socket_from_systemd_excludes_the_options(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started(
        [
            "systemd-socket-activate",
            f"--listen={tmp_path}/socket",
            *CCIDD,
            f"--socket-path={tmp_path}/other",
        ],
        log=log,
    ) as process:
        # Activation waits for a connection before it starts the program.
        connect(tmp_path / "socket").close()
        assert process.wait(60) == 2
    assert "--socket-path is not allowed with a socket from systemd" in log.read_text()


# Serving.


def connect(path: Path) -> socket.socket:
    """Connects as soon as somebody listens."""
    for _ in range(600):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            threading.Event().wait(0.05)
        else:
            return connection
    raise TimeoutError(path)


async def use_card(connection: socket.socket, then: Callable[[], object]) -> QemuPeer:
    """Plays QEMU until the connection ends; selects the PIV application, then calls `then`."""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
    peer = QemuPeer(stream)
    with trio.fail_after(60):
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            await peer.until(lambda: peer.atr)
            response = await peer.transmit(SELECT_PIV)
            assert response[-2:] == b"\x90\x00"
            then()
    return peer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_quickly_and_the_guest_sees_card_and_reader_go(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    with started([*options, f"--socket-path={socket_path}"], log=tmp_path / "log") as process:
        peer = await use_card(connect(socket_path), lambda: process.send_signal(number))
        assert peer.seen[-2:] == [vscard.CardRemove(0), vscard.ReaderRemove(0)]
        assert process.wait(5) == 0
    assert not socket_path.exists()


async def test_a_signal_ends_it_without_a_connection(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with started([*options, f"--socket-path={socket_path}"], log=tmp_path / "log") as process:
        connect(socket_path).close()
        process.terminate()
        assert process.wait(5) == 0
    assert not socket_path.exists()


async def test_a_peer_that_does_not_answer_does_not_hold_up_the_end(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    arguments = [*options, f"--socket-path={socket_path}"]
    with started(arguments, log=tmp_path / "log") as process, connect(socket_path) as silent:
        assert silent.recv(100)
        process.terminate()
        assert process.wait(1.5) == 0
    assert not socket_path.exists()


async def test_qemu_can_come_back(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with started([*options, f"--socket-path={socket_path}"], log=tmp_path / "log") as process:
        for _ in range(2):
            connection = connect(socket_path)
            await use_card(connection, partial(connection.shutdown, socket.SHUT_WR))
        await use_card(connect(socket_path), process.terminate)
        assert process.wait(5) == 0


async def test_an_inherited_connection(tmp_path: Path, options: tuple[str, ...]) -> None:
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    with started([*options, f"--fd={fd}"], pass_fds=[fd], log=tmp_path / "log") as process:
        theirs.close()
        await use_card(ours, process.terminate)
        assert process.wait(5) == 0


async def test_an_inherited_listening_socket(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(socket_path))
    listening.listen()
    fd = listening.fileno()
    with started([*options, f"--fd={fd}"], pass_fds=[fd], log=tmp_path / "log") as process:
        listening.close()
        await use_card(connect(socket_path), process.terminate)
        assert process.wait(5) == 0
    assert socket_path.exists()


@pytest.mark.parametrize("listens", [True, False])
def test_an_inherited_tcp_socket_needs_tls(options: tuple[str, ...], *, listens: bool) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as connected,
    ):
        fd = (listening if listens else connected).fileno()
        result = subprocess.run(
            [*options, f"--fd={fd}"], pass_fds=[fd], check=False, capture_output=True, text=True
        )
    assert result.returncode == 2
    assert "TCP is for TLS" in result.stderr


async def test_tcp_without_tls_is_served_loudly(tmp_path: Path, options: tuple[str, ...]) -> None:
    log = tmp_path / "log"
    with started([*options, "--listen=127.0.0.1:0", "--insecure-tcp=on"], log=log) as process:
        while (found := re.search(r"address=127\.0\.0\.1:(\d+)", log.read_text())) is None:
            assert process.poll() is None
            await trio.sleep(0.05)
        connection = socket.create_connection(("127.0.0.1", int(found[1])))
        await use_card(connection, process.terminate)
        assert process.wait(5) == 0
    assert "level=warning event=tcp_without_tls" in log.read_text()


async def test_tcp_with_tls_is_served(tmp_path: Path, options: tuple[str, ...]) -> None:
    authority = Authority("authority")
    creds = authority.write(tmp_path / "creds", "client", authority.issue("ccidd"))
    authority.write(tmp_path / "creds", "server", authority.issue("qemu"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=creds / "ca-cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(creds / "server-cert.pem", creds / "server-key.pem")
    (listening,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    target = f"--connect=127.0.0.1:{listening.socket.getsockname()[1]}"
    log = tmp_path / "log"
    with started([*options, target, f"--tls-creds={creds}"], log=log) as process:
        with trio.fail_after(60):
            async with listening:
                stream = trio.SSLStream(
                    await listening.accept(), context, server_side=True, https_compatible=True
                )
            peer = QemuPeer(stream)
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(peer.run)
                await peer.until(lambda: peer.atr)
                assert (await peer.transmit(SELECT_PIV))[-2:] == b"\x90\x00"
                process.terminate()
        assert process.wait(5) == 0
    assert peer.seen[-2:] == [vscard.CardRemove(0), vscard.ReaderRemove(0)]


async def test_a_connection_that_never_spoke_vscard_is_a_failure(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    with started([*options, f"--fd={fd}"], pass_fds=[fd], log=tmp_path / "log") as process:
        theirs.close()
        ours.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert process.wait(60) == 1
    ours.close()


async def test_socket_activation(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    activation = ["systemd-socket-activate", f"--listen={socket_path}", *options]
    with started(activation, log=tmp_path / "log") as process:
        await use_card(connect(socket_path), process.terminate)
        assert process.wait(5) == 0


async def test_a_qemu_that_listens(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with started([*options, f"--connect={socket_path}"], log=tmp_path / "log") as process:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(socket_path))
            listening.listen()
            listening.settimeout(60)
            connection, _ = listening.accept()
        await use_card(connection, process.terminate)
        assert process.wait(5) == 0


def test_a_second_ccidd_takes_neither_the_socket_nor_the_card(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with started([*options, f"--socket-path={socket_path}"], log=tmp_path / "log") as process:
        connect(socket_path).close()
        other_state = f"--state-dir={tmp_path / 'other'}"
        second = run_ccidd(f"--socket-path={socket_path}", other_state)
        assert second.returncode == 1
        assert "another process listens there" in second.stderr
        (state,) = [option for option in options if option.startswith("--state-dir=")]
        third = run_ccidd(f"--socket-path={tmp_path / 'third'}", state)
        assert third.returncode == 1
        assert third.stderr == (
            f"ccidd: the card default is being served by process {process.pid}\n"
        )
        connect(socket_path).close()


def test_a_log_that_nobody_reads_ends_nothing(socket_path: Path, options: tuple[str, ...]) -> None:
    read_end, write_end = os.pipe()
    process = subprocess.Popen([*options, f"--socket-path={socket_path}"], stderr=write_end)
    try:
        os.close(write_end)
        os.close(read_end)
        connect(socket_path).close()
        connect(socket_path).close()
        process.terminate()
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


# The embedded card.


def test_the_embedded_card_is_shown_once(tmp_path: Path) -> None:
    socket_path, log = tmp_path / "socket", tmp_path / "log"
    state = f"--state-dir={tmp_path / 'state'}"
    for _ in range(2):
        with started([*CCIDD, state, f"--socket-path={socket_path}"], log=log) as process:
            connect(socket_path).close()
            process.terminate()
            process.wait(5)
    text = log.read_text()
    (pin,) = re.findall(r"^PIN +(\d{6})$", text, re.MULTILINE)
    (puk,) = re.findall(r"^PUK +(\d{8})$", text, re.MULTILINE)
    assert text.count(pin) == 1
    assert text.count(puk) == 1
    shown = run_ccidd("card", "show", state)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "PIN   3 of 3 tries left\n" in shown.stdout
    assert re.search(r"^key +9A P-256 +CN=ccidd PIV authentication", shown.stdout, re.MULTILINE)


def test_the_embedded_card_is_not_shown_to_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    identity = f"{journal.stat().st_dev}:{journal.stat().st_ino}"
    arguments = [*CCIDD, "--fd=99", f"--state-dir={tmp_path}"]
    with journal.open("w") as stdout:
        environ = {**os.environ, "JOURNAL_STREAM": identity}
        subprocess.run(arguments, check=False, stdout=stdout, stderr=stdout, env=environ)
    assert "PIN  " not in journal.read_text()
    assert "event=card_made" in journal.read_text()
    assert "`ccidd card reset-pin`" in journal.read_text()
    shown = run_ccidd("card", "reset-pin", f"--state-dir={tmp_path}")
    assert re.search(r"^PIN +\d{6}$", shown.stdout, re.MULTILINE)


def test_a_journal_elsewhere_hides_no_pin(tmp_path: Path) -> None:
    made = run_ccidd("--fd=99", f"--state-dir={tmp_path}", JOURNAL_STREAM="1:1")
    assert "PIN  " in made.stdout


def test_a_pin_can_be_reset_while_a_guest_has_the_card(
    socket_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    state = options[-1]
    with started([*options, f"--socket-path={socket_path}"], log=tmp_path / "log") as process:
        connect(socket_path).close()
        assert f"by    process {process.pid}\n" in run_ccidd("card", "show", state).stdout
        shown = run_ccidd("card", "reset-pin", "--json", state)
        assert re.fullmatch(r"\d{6}", json.loads(shown.stdout)["pin"])
        destroyed = run_ccidd("card", "destroy", "default", "--yes", state)
        assert destroyed.returncode == 1
        assert destroyed.stderr == (
            f"ccidd: the card default is being served by process {process.pid}\n"
        )

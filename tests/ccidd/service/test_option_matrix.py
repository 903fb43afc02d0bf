# SPDX-License-Identifier: Apache-2.0
"""Each option with each wrong value, and what cannot go together: on the command line, and in TOML.

The options and values are in tests/support/option_matrix.py. Almost all of it runs in this process:
up to the moment when readers would be served, which is a failure here.
"""

import contextlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from ccidd.keys.generated import private_key_pem
from ccidd.keys.key import KeyAlgorithm
from ccidd.service import cli, configfile, daemon, options
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.configuration import ReaderConfiguration
from ccidd.service.control.server import ControlServer
from ccidd.service.embedded import load_or_make
from ccidd.service.options import PCSC, card_options
from ccidd.service.service import Service
from ccidd.service.state import State
from crash import CHEAP
from credentials import credential, private_key
from option_lines import COMBINATIONS, FILE_KEYS, TOP_OPTIONS, Line
from option_matrix import (
    CARD_OPTIONS,
    PCSC_OPTIONS,
    READER_OPTIONS,
    UNUSABLE,
    USAGE,
    Option,
)
from programs import run_ccidd
from tokens import nss_database

HINT = "give it a line as tests/support/option_matrix.py says"


# Is everything there?


def test_each_option_of_the_command_line_is_in_the_matrix() -> None:
    known = {
        string.removeprefix("--")
        for action in cli._parser()._actions
        for string in action.option_strings
        if string.startswith("--")
    }
    _compare(known, set(TOP_OPTIONS), "TOP_OPTIONS")


def test_each_option_of_readers_is_in_the_matrix() -> None:
    _compare(set(options.READER_OPTIONS), set(READER_OPTIONS), "READER_OPTIONS")


def test_each_option_of_cards_is_in_the_matrix() -> None:
    known = {name for kind in CARD_TYPES for name in card_options(kind)}
    _compare(known, set(CARD_OPTIONS), "CARD_OPTIONS")
    _compare(set(card_options(PCSC)), set(PCSC_OPTIONS), "PCSC_OPTIONS")


def test_each_key_of_a_file_is_in_the_matrix() -> None:
    in_file = [
        name
        for name, lines in TOP_OPTIONS.items()
        if any(line.reader is not None or line.top is not None for line in lines)
    ]
    keys = {*configfile.READER_KEYS, *configfile._GLOBAL}
    _compare({FILE_KEYS.get(key, key) for key in keys}, set(in_file), "TOP_OPTIONS, with a file")


def _compare(known: set[str], there: set[str], table: str) -> None:
    lacking, gone = sorted(known - there), sorted(there - known)
    assert not lacking, f"new: {', '.join(lacking)}; {HINT}, {table}"
    assert not gone, f"there is no {', '.join(gone)} any more, but in {table}"


# What all is tried with.


@dataclass(frozen=True)
class Case:
    """A way of being wrong."""

    line: Line
    option: str

    def __str__(self) -> str:
        return f"{' '.join(self.line.arguments) or self.line.reader or self.line.top}"[:60]


class Bench:
    """Where ccidd is run in this process.

    Args:
        directory: the directory for `@`.
        run: runs ccidd, and gives what it says and its exit status.
    """

    def __init__(self, directory: Path, run: Callable[[Sequence[str]], tuple[str, int]]) -> None:
        self.directory = directory
        self._run = run

    def _here(self, text: str) -> str:
        return text.replace("@", f"{self.directory}")

    def command_line(self, line: Line) -> tuple[str, int]:
        arguments = [self._here(each) for each in line.arguments]
        if not any(each.startswith("--state-dir") for each in arguments):
            arguments.append(f"--state-dir={self.directory}/state")
        return self._run(arguments)

    def file(self, line: Line) -> tuple[str, int]:
        top = line.top or ""
        if "state-dir" not in top:
            top += f'\nstate-dir = "{self.directory}/state"'
        reader = line.reader
        if reader is None and not line.top:
            reader = ""
        elif reader is None and "readers" not in top and "no reader" not in f"{line.file_message}":
            reader = 'socket-path = "@/s"'
        table = "" if reader is None else f"[readers.a]\n{reader}"
        self.configuration.write_text(self._here(f"{top}\n{table}\n"))
        return self._run([f"--config={self.configuration}"])

    @property
    def configuration(self) -> Path:
        return self.directory / "ccidd.toml"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all that options name, and a state with two cards."""
    directory = tmp_path_factory.mktemp("matrix")
    certificate = credential(KeyAlgorithm.P_256).certificate.public_bytes(Encoding.PEM)
    key = private_key_pem(private_key(KeyAlgorithm.P_256, 0))
    contents = {"key": key + certificate, "pin": b"123456", "puk": b"12345678", "text": b"text\n"}
    for name, content in contents.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
    nss_database(directory / "database", {"one": (KeyAlgorithm.P_256, 0)}, "123456")
    with State(directory / "state", cost=CHEAP) as state:
        for name in ("alice", "default", "a"):
            load_or_make(state, name)
    return directory


@pytest.fixture
def bench(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Bench]:
    async def serve(service: Service, control: ControlServer | None, *_others: object) -> bool:
        # Sockets are opened as serving does it.
        with contextlib.ExitStack() as opened:
            opened.callback(service.close)
            service.listen()
            if control is not None:
                opened.callback(control.close)
                control.listen()
        raise AssertionError("it is served")

    monkeypatch.setattr(daemon, "serve", serve)
    monkeypatch.setattr(cli, "DEFAULT_FILE", directory / "none")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")

    def run(arguments: Sequence[str]) -> tuple[str, int]:
        # The sandbox would be for all tests.
        monkeypatch.setattr(sys, "argv", ["ccidd", "--sandbox=off", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        assert captured.out == ""
        if isinstance(ended.value.code, str):
            # As Python ends a process.
            return ended.value.code, UNUSABLE
        assert isinstance(ended.value.code, int)
        return captured.err.removesuffix("\n"), ended.value.code

    yield Bench(directory, run)
    structlog.reset_defaults()


def _refused(said: tuple[str, int], message: str, line: Line) -> str:
    """Holds what is said against what is expected; gives the line."""
    text, status = said
    # The log may warn before; what is wrong is the last line.
    *before, last = text.splitlines()
    assert message in last
    assert status == line.status
    assert last.startswith("ccidd: ")
    assert "Traceback" not in text
    assert status == UNUSABLE or not before
    return last


# Options of cards and readers.


def _of_cards() -> Iterator[Case]:
    for kind in (*CARD_TYPES, PCSC):
        table = PCSC_OPTIONS if kind == PCSC else CARD_OPTIONS
        base = {"reader": "X"} if kind == PCSC else {"card": "alice"}
        for template in card_options(kind):
            option = table.get(template)
            if option is None:
                # It is missed above.
                continue
            name = option.name or template
            others = {**(base if option.base is None else option.base), **option.also}
            for given, message, status in _wrong(name, option):
                yield Case(_card(kind, [*others.items(), *given], message, status), name)


def _of_readers() -> Iterator[Case]:
    for name, option in READER_OPTIONS.items():
        for given, message, status in _wrong(name, option):
            yield Case(_reader(given, message, status), name)


def _wrong(name: str, option: Option) -> Iterator[tuple[Sequence[tuple[str, str]], str, int]]:
    """Gives the ways in which an option can be wrong, each with the options that it is given."""
    for wrong in option.wrong:
        yield [(name, wrong.value)], wrong.message, wrong.status
    yield [(name, "")], f"this needs a value: {name}=...", USAGE
    if name not in _REPEATABLE:
        yield [(name, option.right), (name, option.right)], "this is given twice", USAGE


_REPEATABLE = {
    name for kind in CARD_TYPES for name, option in card_options(kind).items() if option.repeatable
}


def _card(kind: str, given: Sequence[tuple[str, str]], message: str, status: int = USAGE) -> Line:
    table = _table([("type", kind), *given])
    return Line(
        ["--socket-path=@/s", f"--card={','.join([kind, *_assignments(given)])}"],
        message,
        f'socket-path = "@/s"\ncards = [{table}]',
        status=status,
    )


def _reader(given: Sequence[tuple[str, str]], message: str, status: int = USAGE) -> Line:
    return Line(
        ["--socket-path=@/s", f"--reader={','.join(_assignments(given))}"],
        message,
        f'socket-path = "@/s"\nreader = {_table(given)}',
        status=status,
    )


def _assignments(given: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name}={value.replace(',', ',,')}" for name, value in given]


def _table(given: Sequence[tuple[str, str]]) -> str:
    """Gives options as an inline table: what is given more than once has a list."""
    values: dict[str, list[str]] = {}
    for name, value in given:
        values.setdefault(name, []).append(value)
    texts = [
        f"{name} = {json.dumps(each[0] if len(each) == 1 else each, ensure_ascii=False)}"
        for name, each in values.items()
    ]
    return f"{{{', '.join(texts)}}}"


CASES = [*_of_cards(), *_of_readers()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_wrong_values_on_the_command_line(case: Case, bench: Bench) -> None:
    last = _refused(bench.command_line(case.line), case.line.message, case.line)
    assert re.search(rf"--(card=[a-z+]+|reader): (\w.*)?{case.option}\b", last)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_wrong_values_in_a_file(case: Case, bench: Bench) -> None:
    last = _refused(bench.file(case.line), case.line.message, case.line)
    where = rf"{bench.configuration}: readers\.a\.(cards\[0\]|reader)"
    assert re.match(rf"ccidd: {where}.*\b{case.option}\b", last)
    assert not re.search(r"--(card|reader)(=(?!help)|:)", last)


# All others.


LINES = [Case(line, name) for name, lines in TOP_OPTIONS.items() for line in lines]


def _name(case: Case) -> str:
    return f"{case.option} {case}"


@pytest.mark.parametrize("case", [c for c in LINES if c.line.arguments], ids=_name)
def test_wrong_options_of_the_command_line(case: Case, bench: Bench) -> None:
    last = _refused(bench.command_line(case.line), case.line.message, case.line)
    # What is no use is named by itself.
    assert f"--{case.option}" in last or any(text in last for text in _values(case))


def _values(case: Case) -> Iterator[str]:
    for argument in case.line.arguments:
        name, _equals, value = argument.partition("=")
        if name == f"--{case.option}" and value:
            yield value.removeprefix("@/")


@pytest.mark.parametrize(
    "case", [c for c in LINES if c.line.reader is not None or c.line.top is not None], ids=_name
)
def test_wrong_keys_of_a_file(case: Case, bench: Bench) -> None:
    message = case.line.file_message or case.line.message
    last = _refused(bench.file(case.line), message, case.line)
    if case.line.reader is not None:
        assert last.startswith(f"ccidd: {bench.configuration}: readers.a")


# Together.


@pytest.mark.parametrize(
    "line", [line for line in COMBINATIONS if line.message], ids=lambda line: line.message
)
def test_wrong_together_on_the_command_line(line: Line, bench: Bench) -> None:
    _refused(bench.command_line(line), line.message, line)


@pytest.mark.parametrize(
    "line",
    [line for line in COMBINATIONS if line.reader is not None or line.top is not None],
    ids=lambda line: line.file_message or line.message,
)
def test_wrong_together_in_a_file(line: Line, bench: Bench) -> None:
    last = _refused(bench.file(line), line.file_message or line.message, line)
    assert last.startswith(f"ccidd: {bench.configuration}: ")


SOCKETS: Mapping[str, str] = {
    "socket-path": '"@/s"',
    "fd": "3",
    "listen": '"localhost:0"',
    "connect": '"@/s"',
}


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(SOCKETS, 2)])
def test_sockets_exclude_each_other(first: str, second: str, bench: Bench) -> None:
    values = {name: value.strip('"') for name, value in SOCKETS.items()}
    arguments = [f"--{name}={values[name]}" for name in (first, second)]
    line = Line(arguments, f"argument --{second}: not allowed with argument --{first}")
    _refused(bench.command_line(line), line.message, line)
    keys = "\n".join(f"{name} = {SOCKETS[name]}" for name in (first, second))
    _refused(bench.file(Line(reader=keys)), "this is not allowed with", line)


@pytest.mark.parametrize("name", [*cli._SOCKETS, *cli._READERS])
def test_what_is_in_the_file_is_not_beside_it(name: str, bench: Bench) -> None:
    option = f"--{name.replace('_', '-')}"
    value = {
        "fd": "=3",
        "listen": "=localhost:0",
        "insecure_tcp": "=on",
        "socket_mode": "=0600",
        "socket_group": "=root",
        "allow": "=uid:0",
        "transport": "=vscard",
        "unsafe_trace_secrets": "",
        "card": "=piv,card=a",
        "reader": "=level=short",
    }.get(name, "=@/s")
    line = Line(["--config=@/c", f"{option}{value}"], f"{option} is not allowed with the file ")
    _refused(bench.command_line(line), line.message, line)


@pytest.mark.parametrize("name", READER_OPTIONS)
def test_the_reader_of_vscard_is_of_qemu(name: str, bench: Bench) -> None:
    line = _reader([(name, READER_OPTIONS[name].right)], "vscard has QEMU's own reader")
    line = Line(
        [*line.arguments, "--transport=vscard"],
        line.message,
        f'transport = "vscard"\n{line.reader}',
    )
    _refused(bench.command_line(line), line.message, line)
    _refused(bench.file(line), line.message, line)


SOURCES = ("keys", "nss", "pkcs11", "pin-file", "puk-file", "password-file", "keyXX")


@pytest.mark.parametrize("kind", CARD_TYPES)
@pytest.mark.parametrize("template", SOURCES)
def test_a_card_has_one_source(kind: str, template: str, bench: Bench) -> None:
    option = CARD_OPTIONS[template]
    given = [(option.name or template, option.right)]
    line = _card(kind, [("card", "alice"), *given], "leave out")
    _refused(bench.command_line(line), line.message, line)
    _refused(bench.file(line), line.message, line)
    if template != "keyXX":
        line = _card(kind, [("token", "any"), *given], "keys and PIN are the token's: leave out")
        _refused(bench.command_line(line), line.message, line)
        _refused(bench.file(line), line.message, line)


@pytest.mark.parametrize("name", [name for name in CARD_OPTIONS if name not in PCSC_OPTIONS])
def test_a_card_of_the_host_has_its_own(name: str, bench: Bench) -> None:
    option = CARD_OPTIONS[name]
    given = [("reader", "X"), (option.name or name, option.right)]
    line = _card(PCSC, given, "there is no option")
    _refused(bench.command_line(line), line.message, line)
    _refused(bench.file(line), line.message, line)


# What is right.


@pytest.mark.parametrize("kind", [*CARD_TYPES, PCSC])
def test_what_is_right_is_taken(kind: str, directory: Path) -> None:
    table = PCSC_OPTIONS if kind == PCSC else CARD_OPTIONS
    base = {"reader": "X"} if kind == PCSC else {"card": "alice"}
    for template in card_options(kind):
        option = table[template]
        others = {**(base if option.base is None else option.base), **option.also}
        given = {**others, option.name or template: option.right}
        card = options.make_card(kind, [f"{name}={value}" for name, value in given.items()])
        ReaderConfiguration(socket_path=directory / "s", cards=(card,)).check()


@pytest.mark.parametrize("name", READER_OPTIONS)
def test_what_is_right_for_a_reader_is_taken(name: str, directory: Path) -> None:
    given = options.make_reader([f"{name}={READER_OPTIONS[name].right}"])
    ReaderConfiguration(socket_path=directory / "s", options=given).check()


# The program itself.


@pytest.mark.parametrize("case", CASES[:: len(CASES) // 6], ids=str)
def test_the_program_itself(case: Case, directory: Path) -> None:
    def run(arguments: Sequence[str]) -> tuple[str, int]:
        result = run_ccidd(*arguments)
        assert result.stdout == ""
        return result.stderr.removesuffix("\n"), result.returncode

    bench = Bench(directory, run)
    _refused(bench.command_line(case.line), case.line.message, case.line)
    _refused(bench.file(case.line), case.line.message, case.line)

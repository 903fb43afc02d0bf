# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import os
from pathlib import Path

import pytest
import structlog

from ccidd.service.check import command
from programs import run_ccidd

CONFIGURATION = """
state-dir = "{directory}/state"

[readers.alice]
socket-path = "{directory}/alice.sock"
cards = [{{ type = "piv", keys = "{directory}/key", pin-file = "{directory}/pin" }}]

[readers.bob]
"""


@pytest.fixture
def file(files: Path) -> Path:
    path = files / "ccidd.toml"
    path.write_text(CONFIGURATION.format(directory=files))
    return path


def test_all_is_well(file: Path, files: Path) -> None:
    before = sorted(files.rglob("*"))
    result = run_ccidd("check", f"--config={file}", f"--qemu={_qemu(files)}")
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"ok       {file}: nobody else may change this file",
        f"ok       state: there is none yet; it will be made in {files}/state",
        f"ok       {file}: readers.alice.socket-path: {files}/alice.sock can be made",
        f"ok       {file}: readers.alice.cards[0]: a piv card with the keys 9A",
        (
            f"ok       {file}: readers.bob: no socket is named here: systemd is to pass one"
            " (FileDescriptorName=bob)"
        ),
        f"ok       {file}: readers.bob: the card bob will be made, and its PIN shown once",
        f"ok       {files}/qemu: it has usb-redir and a USB controller",
        "errors: 0, warnings: 0",
    ]
    assert result.returncode == 0
    assert sorted(files.rglob("*")) == [*before, files / "qemu"]


def _qemu(directory: Path) -> Path:
    program = directory / "qemu"
    program.write_text("""#!/bin/sh\nprintf 'name "usb-redir"\\nname "qemu-xhci"\\n'\n""")
    program.chmod(0o755)
    return program


def test_all_that_is_wrong_is_told_at_once(file: Path, files: Path) -> None:
    text = file.read_text()
    file.write_text(text + "fd = 3\n[readers.carol]\nfd = 3\n[readers.dave]\ntransport = 'us'\n")
    file.chmod(0o666)
    (files / "pin").chmod(0o644)
    result = run_ccidd("check", f"--config={file}", f"--qemu={_qemu(files)}", "--json")
    assert result.returncode == 1
    told = json.loads(result.stdout)
    assert told["errors"] == 4
    assert [each for each in told["findings"] if each["severity"] == "error"] == [
        _error(f"{file}: readers.carol", "the readers bob and carol are at 3"),
        _error(
            f"{file}: readers.dave.transport",
            "this is to be one of usbredir, vscard, serial",
        ),
        _error(f"{file}", f"others may change this file (mode 666); run: chmod go-w {file}"),
        _error(
            f"{file}: readers.alice.cards[0].pin-file",
            f"{files}/pin is open to other users (mode 644); run: chmod u=rw,g=,o= {files}/pin",
        ),
    ]


def _error(where: str, text: str) -> dict[str, str]:
    return {"severity": "error", "where": where, "text": text}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [", "Invalid value (at end of document)"),
        ("", "there is no reader; begin one with [readers.NAME]"),
        ("log-level = 'loud'\n[readers.a]", "log-level: this is to be one of debug"),
    ],
)
def test_a_file_that_cannot_be_read(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    result = run_ccidd("check", f"--config={file}")
    assert result.returncode == 1
    first, last = result.stdout.splitlines()
    assert first.startswith(f"error    {file}: ")
    assert message in first
    assert last == "errors: 1, warnings: 0"


def test_a_card_in_two_places(file: Path, files: Path) -> None:
    cards = 'cards = [{type="piv", card="bob"}, {type="piv", card="bob"}]\n'
    file.write_text(CONFIGURATION.format(directory=files) + "[readers.carol]\n" + cards)
    result = run_ccidd("check", f"--config={file}", f"--qemu={_qemu(files)}")
    for index in (0, 1):
        assert (
            f"error    {file}: readers.carol.cards[{index}]: the card bob is at"
            f" {file}: readers.bob already" in result.stdout
        )


def test_the_command_line_is_checked_as_well(files: Path) -> None:
    result = run_ccidd(
        "check",
        f"--socket-path={files}/s",
        f"--card=piv,keys={files}/none,pin-file={files}/pin",
        f"--state-dir={files}/state",
        f"--qemu={_qemu(files)}",
    )
    assert result.returncode == 1
    assert f"error    --card=piv: keys: cannot read {files}/none: No such file" in result.stdout
    assert f"ok       --socket-path: {files}/s can be made" in result.stdout


def test_credentials_of_systemd_are_listed(file: Path, files: Path) -> None:
    credentials = files / "credentials"
    credentials.mkdir()
    (credentials / "pin").touch()
    result = run_ccidd("check", f"--config={file}", CREDENTIALS_DIRECTORY=f"{credentials}")
    assert "ok       $CREDENTIALS_DIRECTORY: systemd passes pin\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quemu=x"], "unrecognized arguments: --quemu=x"),
        (["--card=pvi"], "--card=pvi: there is no such type of card"),
        (["--config=f", "--fd=3"], "--fd is not allowed with the file f"),
        (["--qemu="], "argument --qemu: a path is needed"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(arguments: list[str], message: str) -> None:
    result = run_ccidd("check", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("ccidd check: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_does_not_come(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fifo = files / "fifo"
    os.mkfifo(fifo)
    monkeypatch.setattr(command, "TIMEOUT", 0.1)
    options = argparse.Namespace(json=False)
    with pytest.raises(SystemExit) as ended:
        command.run(options, None, fifo)
    assert ended.value.code == 1
    assert f"error    cannot read {fifo}: no answer within 0.1 s\n" in capsys.readouterr().out
    # The thread that waits for it ends.
    os.close(os.open(fifo, os.O_WRONLY))
    structlog.reset_defaults()


def test_what_goes_with_all_readers_is_looked_at(file: Path, files: Path) -> None:
    file.write_text(f'control = ["{files}/none/c"]\n{file.read_text()}')
    result = run_ccidd(
        "check", f"--config={file}", f"--control={files}/c", f"--metrics-file={files}/none/m"
    )
    assert f"ok       {file}: control: {files}/c can be made\n" in result.stdout
    lacking = f"there is no directory {files}/none; make it"
    assert f"error    {file}: control: {lacking}\n" in result.stdout
    assert f"error    {file}: metrics-file: {lacking}\n" in result.stdout


def test_agents_are_there_later(file: Path, files: Path) -> None:
    text = file.read_text().replace(
        'type = "piv", keys', 'type="piv", confirm="sign", confirm-with="agent", keys'
    )
    file.write_text(text + 'reader = {pin-entry = "agent"}\n')
    result = run_ccidd("check", f"--config={file}")
    assert f"ok       {file}: readers.bob.reader: the source of PINs can be used\n" in result.stdout
    assert "error" not in result.stdout.replace("errors: 0", "")
    where = f"warning  {file}: readers.alice.cards[0].confirm-with: "
    wanted = f"{where}agent needs a control socket for agents"
    assert wanted in result.stdout
    result = run_ccidd("check", f"--config={file}", f"--control={files}/c,role=agent")
    assert wanted not in result.stdout

# SPDX-License-Identifier: Apache-2.0
"""The control socket held against QEMU's own monitor: the same bytes have the same answers.

No guest is booted.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from ccid_protocol.qmp import Error, Return
from ccidd.service.control.commands import REGISTRY
from ccidd.service.control.context import Context
from ccidd.service.control.session import Session
from ccidd.service.service import Service
from ccidd.service.state import State
from control_client import ControlClient
from harness.process import running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from harness.qemu import Qemu

# QEMU's own list (tests/qtest/qmp-test.c), and more.
TEXTS = [
    *(b"{]", b"{\xff", b"{\x01", b"{'bad \xff", b"{'execute': 'no-such', 'id':'\n"),
    *(b"null ", b"1 2 3 ", b"'a'", b'"a"', b"{}", b"[]", b"}", b"]", b",", b"[}{]}", b"{[}]"),
    *(b"{'execute': true}", b"{'execute':'x','arguments':[]}", b"{'execute':'x','extra':1}"),
    *(b"{'exec-oob':'x'}", b"{'execute':}", b"{'execute':'x' 'id':1}", b"{'a':1,'a':2}"),
    *(b"[1 2]", b"tru ", b"[1e999]", b"['\\ud800']", b"['\xc3']", b"['\\x']", b"#", b"\xc3"),
    *(b"{'execute':'no-such','id':null}", b"{'execute':'no-such','id':{'a':[1,'\\'\"']}}"),
    *(b'\r\n\t {"execute"\n:"no-such" ,"id":"\\u00e4"}', "{'execute':'nö','id':'ö'}".encode()),
    *(b"{'execute':'query-version','arguments':{'a':1},'id':1}", b"{'execute':'qmp_capabilities'}"),
]


@asynccontextmanager
async def qemus_monitor(qemu: Qemu, directory: Path) -> AsyncGenerator[trio.abc.Stream]:
    path = directory / "monitor.socket"
    machine = ["-M", "none", "-nodefaults", "-display", "none", "-S"]
    argv = [*qemu.argv, *machine, "-qmp", f"unix:{path},server=on,wait=off"]
    async with running(argv, log=directory / "qemu.log"):
        with trio.fail_after(30):
            while not path.exists():  # noqa: ASYNC110 -- nobody tells when QEMU listens
                await trio.sleep(0.05)
        async with await trio.open_unix_socket(str(path)) as stream:
            yield stream


@asynccontextmanager
async def our_socket(_qemu: Qemu, directory: Path) -> AsyncGenerator[trio.abc.Stream]:
    ours, theirs = trio.testing.memory_stream_pair()
    with State(directory / "state") as state:
        context = Context(Service(), state, REGISTRY, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Session(theirs, context).run)
        yield ours
        nursery.cancel_scope.cancel()


async def answers(stream: trio.abc.Stream) -> list[list[str]]:
    """Sends each text, and gives the kinds of its answers with their ids."""
    client = ControlClient(stream)
    await client.begin()
    given = []
    for text in TEXTS:
        await stream.send_all(text + b"{'execute':'query-version','id':'the end'}")
        kinds = []
        while not isinstance(message := await client.receive(), Return):
            assert isinstance(message, Error)
            kinds.append(f"{message.error_class} {json.dumps(message.id, default=str)}")
        assert message.id == "the end"
        given.append(kinds)
    return given


async def test_it_answers_as_qemu_does(qemu: Qemu, tmp_path: Path) -> None:
    seen = []
    opener: Callable[[Qemu, Path], AbstractAsyncContextManager[trio.abc.Stream]]
    for opener in (qemus_monitor, our_socket):
        async with opener(qemu, tmp_path) as stream:
            with trio.fail_after(60):
                seen.append(await answers(stream))
    theirs, ours = seen
    assert dict(zip(TEXTS, ours, strict=True)) == dict(zip(TEXTS, theirs, strict=True))

# SPDX-License-Identifier: Apache-2.0
"""The emulated QEMU of the unit tests, held against QEMU itself.

Both get the same messages of a card and must answer them alike.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from ccid_protocol import vscard
from ccid_protocol.events import ConnectionClosed, NeedData
from harness.bare import bare_qemu
from harness.ccidd import passthru
from qemu_peer import QemuPeer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from harness.qemu import Qemu

ATR = bytes.fromhex("3B0B80F9A00000030800001000")
CONVERSATION: tuple[vscard.Message, ...] = (
    vscard.Init(),
    vscard.Error(vscard.ErrorCode.GENERAL_ERROR),
    vscard.ReaderRemove(),
    vscard.ReaderAdd(b"ccidd"),
    vscard.ATR(ATR),
    vscard.ReaderAdd(),
    vscard.CardRemove(),
    vscard.CardRemove(),
    vscard.ReaderRemove(),
)


def real_qemu(qemu: Qemu, directory: Path) -> AbstractAsyncContextManager[trio.abc.Stream]:
    return bare_qemu(qemu, directory, passthru)


@asynccontextmanager
async def emulated_qemu(_qemu: Qemu, _directory: Path) -> AsyncGenerator[trio.abc.Stream]:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(QemuPeer(theirs).run)
        yield ours
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("peer", [real_qemu, emulated_qemu])
async def test_a_card_is_answered_alike_by_qemu_and_by_the_emulated_one(
    peer: Callable[[Qemu, Path], AbstractAsyncContextManager[trio.abc.Stream]],
    qemu: Qemu,
    tmp_path: Path,
) -> None:
    connection = vscard.Connection(vscard.Role.CLIENT)
    answers: list[vscard.Message] = []
    async with peer(qemu, tmp_path) as stream:
        for message in CONVERSATION:
            await stream.send_all(connection.send(message))
            if isinstance(message, vscard.Error):
                continue
            with trio.fail_after(10):
                while isinstance(event := connection.next_event(), NeedData):
                    connection.receive_data(bytes(await stream.receive_some(4096)))
            assert not isinstance(event, ConnectionClosed)
            answers.append(event)
    assert answers == [vscard.Init(), *[vscard.Error(0, 0)] * 7]

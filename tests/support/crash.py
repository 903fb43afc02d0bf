# SPDX-License-Identifier: Apache-2.0
"""Processes that use the state and are killed in the middle of it.

SQLite's VFS for Unix lets its system calls be replaced (`sqlite3_vfs.xSetSystemCall`, which is
there for such tests), so a process can be killed at each single write, or in the middle of one.
"""

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import trio

from ccidd.errors import UserError
from ccidd.service.state import NewCard, ScryptCost, State, StoredMemory

CHEAP = ScryptCost(log2_n=2)
GUID = "00000000-0000-4000-8000-000000000001"
PIN, OTHER_PIN, WRONG_PIN = b"123456\xff\xff", b"777777\xff\xff", b"000000\xff\xff"
PIN_REFERENCE = 0x80

OLD = {"a": b"old" * 3000, "b": b"old", "c": b"old"}
CHANGES: dict[str, bytes | None] = {"a": b"new" * 3000, "b": b"new", "c": None, "d": b"new"}
NEW = {"a": b"new" * 3000, "b": b"new", "d": b"new"}

_context = multiprocessing.get_context("spawn")

_Pointer = ctypes.c_void_p
_WRITE = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t,
    ctypes.c_int,
    _Pointer,
    ctypes.c_size_t,
    ctypes.c_int64,
    use_errno=True,
)
_UNLINK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, use_errno=True)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int64, use_errno=True)


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("iVersion", ctypes.c_int),
        ("szOsFile", ctypes.c_int),
        ("mxPathname", ctypes.c_int),
        ("pNext", _Pointer),
        ("zName", ctypes.c_char_p),
        ("pAppData", _Pointer),
        ("methods", _Pointer * 13),
        (
            "xSetSystemCall",
            ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_char_p, _Pointer),
        ),
        ("xGetSystemCall", ctypes.CFUNCTYPE(_Pointer, _Pointer, ctypes.c_char_p)),
    )


@dataclass
class Fault:
    """What happens at one of SQLite's writes.

    Attributes:
        at: which one, from 1.
        kind: the process is killed before it ("killed") or in its middle ("torn"), or the disk is
            full from then on ("full").
    """

    at: int
    kind: str
    seen: int = 0

    def install(self) -> None:
        """Has SQLite's writes go through this, in this process and for good."""
        library = ctypes.CDLL("libsqlite3.so.0")
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        vfs = library.sqlite3_vfs_find(None)
        self._keep: list[Any] = [library]
        for name, prototype in (
            (b"write", _WRITE),
            (b"pwrite", _WRITE),
            (b"pwrite64", _WRITE),
            (b"unlink", _UNLINK),
            (b"ftruncate", _TRUNCATE),
        ):
            address = vfs.contents.xGetSystemCall(vfs, name)
            if not address:
                continue
            original = prototype(address)
            replacement = prototype(self._through(original, is_write=prototype is _WRITE))
            self._keep += [original, replacement]
            vfs.contents.xSetSystemCall(vfs, name, ctypes.cast(replacement, _Pointer))

    def _through(self, original: Callable[..., int], *, is_write: bool) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.seen += 1
            if self.seen == self.at and self.kind != "full":
                if self.kind == "torn" and is_write:
                    file, data, size, offset = arguments
                    original(file, data, size // 2, offset)
                os.kill(os.getpid(), signal.SIGKILL)
            if self.seen >= self.at and self.kind == "full" and is_write:
                ctypes.set_errno(28)  # ENOSPC
                return -1
            return original(*arguments)

        return call


def open_state(directory: Path) -> State:
    return State(directory, cost=CHEAP)


def make_card(directory: Path) -> None:
    """Makes the card that the operations below work on, with one try of its PIN spent."""
    with open_state(directory) as state:
        state.add_card(NewCard(GUID, "a card", "piv", {PIN_REFERENCE: PIN}, OLD))
        state.spend_try(GUID, PIN_REFERENCE)


def add_another(state: State) -> None:
    other = GUID.replace("1", "2")
    state.add_card(NewCard(other, "another", "piv", {PIN_REFERENCE: PIN, 0x81: PIN}, OLD))


def store(state: State) -> None:
    trio.run(StoredMemory(state, state.card(GUID)).store, CHANGES)


def compare_wrong(state: State) -> None:
    trio.run(StoredMemory(state, state.card(GUID)).pin(PIN_REFERENCE).compare, WRONG_PIN)


def compare_right(state: State) -> None:
    trio.run(StoredMemory(state, state.card(GUID)).pin(PIN_REFERENCE).compare, PIN)


def change(state: State) -> None:
    trio.run(StoredMemory(state, state.card(GUID)).pin(PIN_REFERENCE).change, OTHER_PIN)


def forget(state: State) -> None:
    state.forget_card(GUID)


def just_open(_state: State) -> None:
    pass


OPERATIONS = {
    each.__name__: each
    for each in (add_another, store, compare_wrong, compare_right, change, forget, just_open)
}


def run_with_faults(directory: Path, copies: Path, operation: str, kind: str) -> list[int]:
    """Runs an operation on copies of a state, with a fault at each write in turn.

    Args:
        directory: the state.
        copies: gets the copies, named 1, 2 and so on by the write with the fault.
        operation: one of `OPERATIONS`.
        kind: the kind of fault.

    Returns:
        The exit status of each: 0 (the last) if the fault never came, 3 if the operation failed, 4
        if it survived the fault, -9 if it was killed.
    """
    arguments = [sys.executable, __file__, str(directory), str(copies), operation, kind]
    done = subprocess.run(arguments, check=True, capture_output=True, timeout=300)
    # The log may have said something before.
    statuses: list[int] = json.loads(done.stdout.splitlines()[-1])
    return statuses


def _main() -> None:
    """Forks a process for each fault, which is quicker than to start one."""
    directory, copies, operation, kind = sys.argv[1:]
    statuses: list[int] = []
    while statuses[-1:] != [0]:
        fault = Fault(len(statuses) + 1, kind)
        copy = Path(copies) / f"{fault.at}"
        shutil.copytree(directory, copy)
        process = os.fork()
        if not process:
            os._exit(_run(copy, OPERATIONS[operation], fault))
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    print(json.dumps(statuses))  # noqa: T201 (it is a program)


def _run(directory: Path, operation: Callable[[State], None], fault: Fault) -> int:
    fault.install()
    try:
        with open_state(directory) as state:
            operation(state)
    except (OSError, UserError, sqlite3.Error):
        return 3
    return 0 if fault.seen < fault.at else 4


def _work(directory: Path, acknowledge: Connection) -> None:
    """Writes for ever; tells after each step what must be on the disk from then on."""

    async def work() -> None:
        number = 0
        while True:
            number += 1
            value = b"%d" % number * 500
            await memory.store({"a": value, "b": value})
            acknowledge.send(("stored", number))
            await pin.compare(WRONG_PIN)
            acknowledge.send(("spent", number))
            await pin.change(PIN)
            acknowledge.send(("changed", number))

    with open_state(directory) as state:
        memory = StoredMemory(state, state.card(GUID))
        pin = memory.pin(PIN_REFERENCE)
        acknowledge.send(("opened", 0))
        trio.run(work)


def work_until_killed(directory: Path, seconds: float) -> list[tuple[str, int]]:
    """Kills a process that writes, some time after it has begun.

    Returns:
        What it said that it had done.
    """
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_work, args=(directory, theirs))
    process.start()
    theirs.close()
    said = [ours.recv()]
    process.join(seconds)
    process.kill()
    process.join()
    while True:
        try:
            said.append(ours.recv())
        except EOFError:
            return said


if __name__ == "__main__":
    _main()

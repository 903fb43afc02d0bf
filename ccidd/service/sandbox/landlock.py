# SPDX-License-Identifier: Apache-2.0
"""Landlock: which files, and which TCP ports, this process can reach from now on.

What is open already stays open. The rules hold for this thread and all that it starts, so they come
before the first other thread and the first child process.

Three system calls, made with ctypes. There are libraries: `landlockpy` 0.2 (2026, 0BSD, typed, pure
Python) does the same calls well, but is months old, and what runs just before a sandbox with all
privileges is better read here than trusted there; `py-landlock` 0.1 (2026) is as young, and
`landlock` 1.0.0.dev5 (2025) no release yet.

Source: landlock.rst of the kernel's user space API; linux/landlock.h, ABI 1 to 7.
"""

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from enum import IntFlag
from pathlib import Path
from typing import Final

from ccidd.service.sandbox.needs import Access, Needs

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
"""The numbers are the same on all architectures."""

_VERSION_FLAG: Final = 1
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2

_CONNECT_TCP: Final = 2
_BIND_TCP: Final = 1

_SCOPE_ABSTRACT_SOCKETS: Final = 1
_SCOPE_SIGNALS: Final = 2


class _Right(IntFlag):
    """LANDLOCK_ACCESS_FS_*, without the prefix."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # ABI 2
    TRUNCATE = 1 << 14  # ABI 3
    IOCTL_DEV = 1 << 15  # ABI 5


_OF_FILES: Final = (
    _Right.EXECUTE | _Right.WRITE_FILE | _Right.READ_FILE | _Right.TRUNCATE | _Right.IOCTL_DEV
)
"""What a rule for anything but a directory may give."""

_READ: Final = _Right.READ_FILE | _Right.READ_DIR
_REPLACE: Final = _Right.WRITE_FILE | _Right.TRUNCATE | _Right.MAKE_REG | _Right.REMOVE_FILE

_RIGHTS: Final = {
    Access.READ: _READ,
    Access.EXECUTE: _Right.EXECUTE,
    Access.WRITE: _READ
    | _REPLACE
    | _Right.MAKE_DIR
    | _Right.REMOVE_DIR
    | _Right.MAKE_SOCK
    | _Right.MAKE_FIFO
    | _Right.MAKE_SYM
    | _Right.REFER,
    Access.CREATE: _REPLACE,
    Access.BIND: _Right.MAKE_SOCK | _Right.MAKE_SYM | _Right.REMOVE_FILE,
    Access.DEVICE: _READ | _Right.WRITE_FILE | _Right.IOCTL_DEV,
}


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr; an older kernel wants what it does not know to be zero."""

    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr, which is packed."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    """struct landlock_net_port_attr."""

    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def landlock_abi() -> int:
    """Tells which ABI of Landlock the kernel has, from 1.

    Raises:
        OSError: It has none, or is told not to use it.
    """
    return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)


def restrict(needs: Needs) -> None:
    """Restricts this thread, and what it starts, to what is needed.

    Args:
        needs: what is needed; a path that is not there is left out.

    Raises:
        OSError: The kernel refuses, or has no Landlock.
    """
    abi = landlock_abi()
    files, ports = _handled_files(abi), _handled_ports(abi, needs)
    attributes = _Ruleset(files, ports, _scope(abi, needs))
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    try:
        for path, access in needs.paths.items():
            # Not there, or not to be seen by this user, who then cannot use it either.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _allow_path(ruleset, path, _rights(access) & files)
        _allow_ports(ruleset, needs.connects_to or (), _CONNECT_TCP & ports)
        _allow_ports(ruleset, needs.listens_on, _BIND_TCP & ports)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _handled_files(abi: int) -> _Right:
    """All rights that the kernel can take away."""
    newer = {_Right.REFER: 2, _Right.TRUNCATE: 3, _Right.IOCTL_DEV: 5}
    rights = _Right(0)
    for right in _Right:
        if newer.get(right, 1) <= abi:
            rights |= right
    return rights


def _handled_ports(abi: int, needs: Needs) -> int:
    if abi < 4:
        return 0
    return _BIND_TCP if needs.connects_to is None else _BIND_TCP | _CONNECT_TCP


def _scope(abi: int, needs: Needs) -> int:
    if abi < 6:
        return 0
    return (0 if needs.signals else _SCOPE_SIGNALS) | (
        0 if needs.abstract_sockets else _SCOPE_ABSTRACT_SOCKETS
    )


def _rights(access: Access) -> _Right:
    rights = _Right(0)
    for each in access:
        rights |= _RIGHTS[each]
    return rights


def _allow_path(ruleset: int, path: Path, rights: _Right) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        if rights:
            rule = _PathBeneath(rights, descriptor)
            _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _allow_ports(ruleset: int, ports: Iterable[int], right: int) -> None:
    if not right:
        return
    for port in ports:
        rule = _NetPort(right, port)
        try:
            _call(_ADD_RULE, ruleset, _RULE_NET_PORT, ctypes.byref(rule), 0)
        except OSError as error:
            # A kernel without TCP has nothing to allow.
            if error.errno != errno.EAFNOSUPPORT:
                raise


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result

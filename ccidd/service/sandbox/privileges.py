# SPDX-License-Identifier: Apache-2.0
"""No new privileges, and none of the old ones.

A process that drops its capabilities is still its user, and still in its groups. The supplementary
groups stay: they are what an operator gives access to tokens, to pcscd and to QEMU's directories
with, and whoever is to give them up needs a capability for it.

The standard library has none of these calls. Of the libraries that have, `prctl` (2010) and
`python-prctl` (2020) are not maintained and need a compiler, and `pyprctl` (2021) does with ctypes
what is done here in a few lines.

Source: capabilities(7), prctl(2), capset(2), no_new_privs.rst of the kernel.
"""

import ctypes
import errno
import os
from itertools import count
from typing import Final

_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_CAPABILITY_VERSION: Final = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3, of which two structures hold 64 bits."""


class _Header(ctypes.Structure):
    """capset(2), cap_user_header_t; the process 0 is the caller."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """capset(2), cap_user_data_t."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def forbid_new_privileges() -> None:
    """Has this thread, and what it starts, gain nothing from set-user-ID and the like.

    Raises:
        OSError: The kernel refuses.
    """
    _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def drop_capabilities() -> None:
    """Drops all capabilities of this thread, and the bounding set where the kernel allows it.

    Raises:
        OSError: The kernel refuses.
    """
    libc = _libc()
    if not _has_capabilities(libc):
        # Where systemd has taken them away, it may have taken the call away as well.
        return
    _empty_bounding_set(libc)
    _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    header = _Header(version=_CAPABILITY_VERSION)
    held = (_Data * 2)()
    _check(libc.capget(ctypes.byref(header), ctypes.byref(held)))
    # A service manager that has left none may forbid the call too (SystemCallFilter=~@privileged).
    if any(each.effective or each.permitted or each.inheritable for each in held):
        _check(libc.capset(ctypes.byref(header), ctypes.byref((_Data * 2)())))


def _has_capabilities(libc: ctypes.CDLL) -> bool:
    """Whether any set holds any; the ambient set is part of the permitted."""
    header, data = _Header(version=_CAPABILITY_VERSION), (_Data * 2)()
    _check(libc.capget(ctypes.byref(header), ctypes.byref(data)))
    return any(each.effective | each.permitted | each.inheritable for each in data)


def _empty_bounding_set(libc: ctypes.CDLL) -> None:
    """Empties it as far as it can be, which takes CAP_SETPCAP.

    A process without has nothing to fear from its bounding set: nothing is gained from that without
    new privileges.
    """
    for capability in count():
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            # EINVAL: there is no such capability, and so none after it.
            if ctypes.get_errno() not in {errno.EINVAL, errno.EPERM}:
                _check(-1)
            return


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

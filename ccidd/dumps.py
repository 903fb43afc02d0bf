# SPDX-License-Identifier: Apache-2.0
"""Keeps what is in memory, keys and PINs among it, from core dumps and the same user's debuggers.

Source: prctl(2), PR_SET_DUMPABLE; core(5); proc(5): the process's files there then belong to root.
A program that is started is dumpable again, so each process does this itself.
"""

import ctypes
import os
import resource
from typing import Final

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4


def forbid_dumps() -> None:
    """Forbids core dumps of this process, and that others of its user look into it.

    Raises:
        OSError: The kernel refuses.
    """
    # The limit is for what is started from here as well.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def dumps_are_forbidden() -> bool:
    """Whether this process may not be dumped."""
    return bool(ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 0)

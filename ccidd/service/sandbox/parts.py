# SPDX-License-Identifier: Apache-2.0
"""The parts of the sandbox, in their order.

Light, since each PKCS#11 module's process has it.
"""

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from ccidd.dumps import forbid_dumps
from ccidd.service.sandbox.landlock import landlock_abi, restrict
from ccidd.service.sandbox.needs import Needs
from ccidd.service.sandbox.privileges import drop_capabilities, forbid_new_privileges
from ccidd.service.sandbox.seccomp import allow_calls, find_library

_LAST_THREAD: Final = 5.0
"""Seconds that a thread has to end that was started before."""


def put_in_force(needs: Needs) -> tuple[list[str], dict[str, str]]:
    """Gives up for good what is not needed, as far as that works.

    Args:
        needs: what is needed.

    Returns:
        The names of the parts that are in force, and why each of the others is not.

    Raises:
        RuntimeError: There are other threads, which would not be confined.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            # A token that was tried may be logging out.
            thread.join(_LAST_THREAD)
            if thread.is_alive():
                raise RuntimeError(f"there is a thread already: {thread.name}")
    in_force, missing = [], {}
    for name, apply in _parts(needs):
        try:
            apply()
        except OSError as error:
            missing[name] = reason_of(error)
        else:
            in_force.append(name)
    return in_force, missing


def missing_support() -> dict[str, str]:
    """Tells which parts cannot work here, and why, as far as that is known without trying."""
    missing = {}
    for name, probe in (("landlock", landlock_abi), ("seccomp", find_library)):
        try:
            probe()
        except OSError as error:
            missing[name] = reason_of(error)
    return missing


def _parts(needs: Needs) -> list[tuple[str, Callable[[], None]]]:
    """The parts; seccomp comes last, as it knows nothing of the others' calls."""
    return [
        ("no-dumps", forbid_dumps),
        ("no-new-privileges", forbid_new_privileges),
        ("landlock", partial(restrict, needs)),
        ("no-capabilities", drop_capabilities),
        ("seccomp", partial(allow_calls, needs)),
    ]


def reason_of(error: OSError) -> str:
    """Says what is wrong, for people."""
    return os.strerror(error.errno) if error.errno else str(error)

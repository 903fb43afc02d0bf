# SPDX-License-Identifier: Apache-2.0
"""The sandbox: ccidd gives up what it does not need, for good.

    needs         what a configuration needs, and nothing else
    surroundings  what of this machine it needs as well: Python's files, PKCS#11 modules' stores
    landlock      the files and ports that can be reached
    seccomp       the system calls that can be made
    privileges    new privileges, capabilities
    confine       all of these, in order, and what came of it

`ccidd.dumps` keeps the memory from others. docs/security.md tells what it is all good for.
"""

from ccidd.service.sandbox.confine import Confinement, Mode, confine
from ccidd.service.sandbox.needs import Needs, needs_of
from ccidd.service.sandbox.surroundings import Surroundings

__all__ = ["Confinement", "Mode", "Needs", "Surroundings", "confine", "needs_of"]

# SPDX-License-Identifier: Apache-2.0
"""The process of a PKCS#11 module, confined to what modules need.

Such a module is a library of somebody else's that works on what a guest sends. So its process reads
neither ccidd's state nor its configuration, makes no sockets and starts no programs. It confines
itself, whether it is started before ccidd has confined itself or after that.

The first line of its standard input is what it needs; the rest is for `cryptoki_worker`.
"""

import os

from ccidd.keys import cryptoki_worker
from ccidd.service.sandbox.needs import Needs
from ccidd.service.sandbox.parts import put_in_force

_STDIN = 0


def _first_line() -> str:
    """Reads a line, and not a byte more."""
    line = bytearray()
    while (byte := os.read(_STDIN, 1)) not in {b"", b"\n"}:
        line += byte
    return line.decode()


def main() -> None:
    """Confines the process, and runs the module in it."""
    # What is missing here is missing in ccidd as well, which says so.
    put_in_force(Needs.from_json(_first_line()))
    cryptoki_worker.main()


if __name__ == "__main__":
    main()

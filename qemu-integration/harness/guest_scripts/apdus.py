# SPDX-License-Identifier: Apache-2.0
"""Send APDUs to the card in one slot, through PC/SC, in one connection.

    python3 apdus.py SLOT

Each line of standard input is a command in hex. The first line of output is the ATR; each command
adds one with the seconds that it took and the response.
"""

import sys
import time

from smartcard.System import (
    readers,
)

slot = int(sys.argv[1])
# pcsc-lite ends a reader's name with the numbers of the reader and of the slot.
(reader,) = [name for name in readers() if int(str(name).split()[-1], 16) == slot]
connection = reader.createConnection()
connection.connect()
print(bytes(connection.getATR()).hex())
for line in sys.stdin:
    begun = time.monotonic()
    data, sw1, sw2 = connection.transmit(list(bytes.fromhex(line)))
    print(time.monotonic() - begun, bytes([*data, sw1, sw2]).hex())

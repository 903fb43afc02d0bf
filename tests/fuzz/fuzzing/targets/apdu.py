# SPDX-License-Identifier: Apache-2.0
"""Command and response APDUs."""

from ccid_protocol import RemoteProtocolError
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU


def run(data: bytes) -> None:
    """Reads the input as a command and as a response, and writes them again."""
    for kind in (CommandAPDU, ResponseAPDU):
        try:
            apdu = kind.decode(data)
        except RemoteProtocolError:
            continue
        assert apdu.encode() == data

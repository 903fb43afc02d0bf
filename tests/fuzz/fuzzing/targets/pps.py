# SPDX-License-Identifier: Apache-2.0
"""PPS requests and responses."""

from ccid_protocol import RemoteProtocolError
from ccid_protocol.pps import PPS


def run(data: bytes) -> None:
    """Reads the input as a PPS, and writes it again."""
    try:
        pps = PPS.decode(data)
    except RemoteProtocolError:
        return
    assert pps.encode() == data

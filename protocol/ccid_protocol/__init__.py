# SPDX-License-Identifier: Apache-2.0
"""The wire formats around a smart-card reader, sans-I/O.

Between a host and a reader: `vscard`, `usbredir`, `usb`, `ccid`, `gempc`. Between a reader and a
card (ISO 7816): `apdu`, `atr`, `tlv`, `pps`, `t1`. With people: `assuan` (a pinentry), `qmp` (a
control socket). No module does I/O, keeps time or logs, and all of them need the standard library
only.

Connections follow one manner: `receive_data` takes bytes from the peer, `next_event` gives what
they mean, `send` turns a message into bytes for the peer. Whatever the peer sends, the only
exception that leaves `receive_data`, `next_event` or a decoder is `RemoteProtocolError`;
`LocalProtocolError` is a mistake of the calling program.
"""

from ccid_protocol.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed, NeedData

__all__ = [
    "NEED_DATA",
    "ConnectionClosed",
    "LocalProtocolError",
    "NeedData",
    "ProtocolError",
    "RemoteProtocolError",
]

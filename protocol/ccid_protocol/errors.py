# SPDX-License-Identifier: Apache-2.0
"""The two ways in which a protocol can be broken: by the peer, and by ourselves."""


class ProtocolError(Exception):
    """Somebody did not keep to the protocol. Only its two subclasses are raised."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow.

    The one exception that leaves a decoder. Its text names the fault and the numbers involved,
    never the peer's data: that may hold a PIN.
    """


class LocalProtocolError(ProtocolError):
    """This program tried to send something that the protocol does not allow now, or ever."""

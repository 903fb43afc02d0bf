# SPDX-License-Identifier: Apache-2.0
"""QMP: how programs talk to QEMU's monitor, and to a server of the same form, from both ends.

Source: QEMU, docs/interop/qmp-spec.rst, and tests/qtest/qmp-test.c for what a server does about
what is no JSON. JSON is RFC 8259.

The server speaks first, with a greeting. After that the client sends requests and the server
answers each, in their order, with a return or an error; in between it may send events. All of these
are JSON objects. The server ends each with CR LF. A client needs nothing between its objects, and
may put white space anywhere, line ends as well. A server that takes no more clients may greet with
an error, which QEMU's never does.

Out-of-band execution is not offered, and refused.

Arguments may be PINs. They are in no repr and no text of an exception.
"""

from ccid_protocol.qmp.connection import (
    MAX_REQUEST,
    MAX_RESPONSE,
    ClientConnection,
    ServerConnection,
)
from ccid_protocol.qmp.jsonstream import JSON, MAX_DEPTH
from ccid_protocol.qmp.messages import (
    NO_ID,
    BadRequest,
    Error,
    ErrorClass,
    Event,
    Greeting,
    Message,
    NoId,
    Request,
    Return,
)

__all__ = [
    "JSON",
    "MAX_DEPTH",
    "MAX_REQUEST",
    "MAX_RESPONSE",
    "NO_ID",
    "BadRequest",
    "ClientConnection",
    "Error",
    "ErrorClass",
    "Event",
    "Greeting",
    "Message",
    "NoId",
    "Request",
    "Return",
    "ServerConnection",
]

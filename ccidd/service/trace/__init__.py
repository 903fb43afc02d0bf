# SPDX-License-Identifier: Apache-2.0
"""Traces: what crosses a front door, in a file that Wireshark reads.

    trace         the file
    censor        takes PINs and keys out of what is written

They are written here, and read by others.
"""

from ccidd.service.trace.trace import Trace, open_trace

__all__ = ["Trace", "open_trace"]

# SPDX-License-Identifier: Apache-2.0
"""Traces: what crosses a front door, in a file that Wireshark reads.

    tracer        looks on at a reader, and has traces begin and end
    censor        takes PINs and keys out of what is written
    trace         what is written
    tracefile     writes it, in a thread

They are written here, and read by others.
"""

from ccidd.service.trace.tracer import Tracer

__all__ = ["Tracer"]

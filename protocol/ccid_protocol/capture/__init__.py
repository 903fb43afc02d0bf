# SPDX-License-Identifier: Apache-2.0
"""Captures that Wireshark reads: what crossed a USB, in a pcapng file.

    pcapng        the file's blocks
    usbmon        a transfer of a USB, as Linux's usbmon records it

They are written here, and read by others.
"""

from ccid_protocol.capture.pcapng import enhanced_packet, file_header, interface_statistics
from ccid_protocol.capture.usbmon import (
    LINKTYPE_USB_LINUX_MMAPPED,
    Event,
    Transfer,
)

__all__ = [
    "LINKTYPE_USB_LINUX_MMAPPED",
    "Event",
    "Transfer",
    "enhanced_packet",
    "file_header",
    "interface_statistics",
]

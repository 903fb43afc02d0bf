# SPDX-License-Identifier: Apache-2.0
"""Talk to a CCID reader over USB with no driver in between.

Each line of standard input is one of these, numbers and bytes in hex:

    out BYTES                                       to the bulk-OUT endpoint
    in SIZE                                         from bulk-IN; time extensions are skipped
    notify                                          from the interrupt endpoint
    control TYPE REQUEST VALUE INDEX LENGTH         "-" for a request that writes no data
    clear ENDPOINT                                  CLEAR_FEATURE(ENDPOINT_HALT)
    configure VALUE                                 SET_CONFIGURATION; 0 for none

Each adds one line of output: the bytes in hex, or the name of the error, such as EPIPE for a STALL.
"""

import errno
import sys
from pathlib import Path

import usb.core  # type: ignore[import-not-found] # the guest has it
import usb.util  # type: ignore[import-not-found] # "

BULK_OUT, BULK_IN, INTERRUPT_IN = 0x01, 0x82, 0x83
TIMEOUT = 10_000
NOTIFY_TIMEOUT = 3_000
"""Milliseconds."""


def is_reader(device: usb.core.Device) -> bool:
    return any(interface.bInterfaceClass == 0x0B for interface in device[0])


device = usb.core.find(custom_match=is_reader)


def configure(value: int) -> None:
    usb.util.dispose_resources(device)
    ports = ".".join(str(port) for port in device.port_numbers)
    path = Path(f"/sys/bus/usb/devices/{device.bus}-{ports}/bConfigurationValue")
    path.write_text(f"{value}\n")
    if value:
        usb.util.claim_interface(device, 0)


def read(size: int) -> bytes:
    while True:
        data = bytes(device.read(BULK_IN, size, TIMEOUT))
        if len(data) != 10 or data[7] & 0xC0 != 0x80:
            return data


def control(request_type: int, request: int, value: int, index: int, length: str) -> bytes:
    if length == "-":
        device.ctrl_transfer(request_type, request, value, index, None, TIMEOUT)
        return b""
    return bytes(
        device.ctrl_transfer(request_type, request, value, index, int(length, 16), TIMEOUT)
    )


def carry_out(words: list[str]) -> bytes:
    match words:
        case ["out", data]:
            device.write(BULK_OUT, bytes.fromhex(data), TIMEOUT)
        case ["in", size]:
            return read(int(size, 16))
        case ["notify"]:
            return bytes(device.read(INTERRUPT_IN, 8, NOTIFY_TIMEOUT))
        case ["control", kind, request, value, index, length]:
            return control(int(kind, 16), int(request, 16), int(value, 16), int(index, 16), length)
        case ["clear", endpoint]:
            device.clear_halt(int(endpoint, 16))
        case ["configure", value]:
            configure(int(value))
        case _:
            raise SystemExit(f"unknown: {words}")
    return b""


for line in sys.stdin:
    try:
        print(carry_out(line.split()).hex(), flush=True)
    except usb.core.USBError as error:
        print(errno.errorcode.get(error.errno, error), flush=True)

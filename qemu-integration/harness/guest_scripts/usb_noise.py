# SPDX-License-Identifier: Apache-2.0
"""Send random requests to a CCID reader over USB, with no driver in between.

    python3 usb_noise.py SEED COUNT

In the end the reader is reset, and how often which of them succeeded or failed is printed, a line
for each kind: its name, then the outcomes and their numbers.
"""

import errno
import random
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path

import usb.core  # type: ignore[import-not-found] # the guest has it
import usb.util  # type: ignore[import-not-found] # "

BULK_OUT, BULK_IN, INTERRUPT_IN = 0x01, 0x82, 0x83
TIMEOUT = 1000
"""Milliseconds."""
SET_ADDRESS = (0x00, 5)
"""The bus's own: whoever sends it has another device, or none."""


def is_reader(device: usb.core.Device) -> bool:
    return any(interface.bInterfaceClass == 0x0B for interface in device[0])


device = usb.core.find(custom_match=is_reader)
outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)


def configuration(value: int) -> None:
    usb.util.dispose_resources(device)
    ports = ".".join(str(port) for port in device.port_numbers)
    path = Path(f"/sys/bus/usb/devices/{device.bus}-{ports}/bConfigurationValue")
    path.write_text(f"{value}\n")
    if value:
        usb.util.claim_interface(device, 0)


class Noise:
    """Random requests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 (no secret)

    def make(self) -> None:
        """Make one request."""
        kinds = [
            (self.any_control, 20),
            (self.likely_control, 20),
            (self.any_write, 10),
            (self.message, 25),
            (self.read, 20),
            (self.notification, 3),
            (self.change_configuration, 2),
            (self.halt, 5),
            (self.unhalt, 10),
        ]
        make = self._random.choices([k for k, _ in kinds], [weight for _, weight in kinds])[0]
        try:
            make()
            outcome = "done"
        except usb.core.USBError as error:
            outcome = errno.errorcode.get(error.errno, str(error))
        except OSError as error:
            outcome = errno.errorcode.get(error.errno or 0, str(error))
        outcomes[make.__name__][outcome] += 1

    def any_control(self) -> None:
        number = self._random.randrange
        # The kernel takes no more than 4096 bytes.
        self._control(number(256), number(256), number(65536), number(65536), number(4097))

    def likely_control(self) -> None:
        choose, number = self._random.choice, self._random.randrange
        kind = choose([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x21, 0xA1])
        value = choose([0, 1, 0x100, 0x200, 0x300, 0x301, 0x2100, number(65536)])
        index = choose([0, 1, BULK_OUT, BULK_IN, INTERRUPT_IN])
        self._control(kind, number(13), value, index, choose([0, 1, 2, 8, 255, 4096]))

    def _control(self, kind: int, request: int, value: int, index: int, length: int) -> None:
        if (kind, request) == SET_ADDRESS:
            return
        wanted = length if kind & 0x80 else self._random.randbytes(length)
        device.ctrl_transfer(kind, request, value, index, wanted, TIMEOUT)

    def any_write(self) -> None:
        size = self._random.choice([0, 1, 9, 10, 63, 64, 65, 512, 4096, 65554, 70000])
        device.write(BULK_OUT, self._random.randbytes(self._random.randrange(size + 1)), TIMEOUT)

    def message(self) -> None:
        choose, number = self._random.choice, self._random.randrange
        apdu = bytes([0, choose([0x10, 0x20, 0x40, number(256)]), number(256), number(256)])
        data = choose([b"", apdu, self._random.randbytes(number(300))])
        kind = choose([0x62, 0x63, 0x65, 0x6F, 0x6F, 0x6F, 0x69, 0x72, 0x61, 0x6C, number(256)])
        length = len(data) + choose([0, 0, 0, 0, 1, 70])
        header = bytes([kind, *length.to_bytes(4, "little"), choose([0, 0, 1, 7]), number(256)])
        device.write(BULK_OUT, header + choose([bytes(3), b"\0\1\0"]) + data, TIMEOUT)

    def read(self) -> None:
        """Read, and mostly give up soon."""
        size = self._random.choice([0, 1, 10, 64, 100, 512, 65556])
        device.read(BULK_IN, size, self._random.choice([1, 2, 5, 20, 100]))

    def notification(self) -> None:
        device.read(INTERRUPT_IN, 8, self._random.choice([1, 5, 50]))

    def change_configuration(self) -> None:
        configuration(self._random.choice([0, 1, 1]))

    def halt(self) -> None:
        self._control(0x02, 3, 0, self._random.choice([BULK_OUT, BULK_IN, INTERRUPT_IN]), 0)

    def unhalt(self) -> None:
        device.clear_halt(self._random.choice([BULK_OUT, BULK_IN, INTERRUPT_IN]))


def main() -> None:
    seed, count = map(int, sys.argv[1:])
    stopped = threading.Event()

    def read_meanwhile() -> None:
        noise = Noise(seed + 1)
        while not stopped.wait(0.01):
            for kind in (noise.read, noise.notification):
                try:
                    kind()
                except usb.core.USBError as error:
                    outcomes["meanwhile"][errno.errorcode.get(error.errno, str(error))] += 1

    configuration(1)
    reader = threading.Thread(target=read_meanwhile)
    reader.start()
    noise = Noise(seed)
    for _ in range(count):
        noise.make()
    stopped.set()
    reader.join()
    device.reset()
    configuration(1)
    for kind, counts in outcomes.items():
        print(kind, *(f"{outcome}:{number}" for outcome, number in sorted(counts.items())))


main()

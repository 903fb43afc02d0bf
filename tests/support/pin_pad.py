# SPDX-License-Identifier: Apache-2.0
"""Has a PIN modified at the first reader of this host's pcscd, through PC/SC part 10.

    python3 pin_pad.py APDU

The APDU, in hex, is the template of the command; the current PIN goes to byte 0 of its data, the
new one to byte 8. It is done once for each way in which a host may count its messages, and the
status word of each is printed. Nothing but the standard library and libpcsclite is needed.
"""

import ctypes
import struct
import sys

NUMBERS_OF_MESSAGES = (0, 1, 2, 3, 0xFF)

_GET_FEATURE_REQUEST = 0x42000D48
_FEATURE_MODIFY_PIN_DIRECT = 7
_EXCLUSIVE, _ANY_PROTOCOL = 1, 3
_SCOPE_SYSTEM = 2


def check(result: int) -> None:
    if result:
        raise SystemExit(f"PC/SC says {result & 0xFFFFFFFF:08X}")


class Reader:
    """A connection to the card in the first reader."""

    def __init__(self) -> None:
        self._pcsc = ctypes.CDLL("libpcsclite.so.1")
        context, size, protocol = ctypes.c_long(), ctypes.c_ulong(), ctypes.c_ulong()
        self._card = ctypes.c_long()
        check(self._pcsc.SCardEstablishContext(_SCOPE_SYSTEM, None, None, ctypes.byref(context)))
        check(self._pcsc.SCardListReaders(context, None, None, ctypes.byref(size)))
        names = ctypes.create_string_buffer(size.value)
        check(self._pcsc.SCardListReaders(context, None, names, ctypes.byref(size)))
        check(
            self._pcsc.SCardConnect(
                context,
                names.raw.split(b"\0")[0],
                _EXCLUSIVE,
                _ANY_PROTOCOL,
                ctypes.byref(self._card),
                ctypes.byref(protocol),
            )
        )

    def control(self, code: int, data: bytes) -> bytes:
        answer, size = ctypes.create_string_buffer(300), ctypes.c_ulong()
        check(
            self._pcsc.SCardControl(
                self._card,
                ctypes.c_ulong(code),
                data,
                ctypes.c_ulong(len(data)),
                answer,
                ctypes.c_ulong(len(answer)),
                ctypes.byref(size),
            )
        )
        return answer.raw[: size.value]

    def feature(self, wanted: int) -> int:
        """Gives the control code of a feature (PC/SC part 10, 2.2)."""
        features = self.control(_GET_FEATURE_REQUEST, b"")
        for position in range(0, len(features), 6):
            tag, _length, code = struct.unpack_from(">BBI", features, position)
            if tag == wanted:
                return int(code)
        raise SystemExit(f"the reader has no feature {wanted}")


def modification(apdu: bytes, number_of_messages: int) -> bytes:
    """Gives the structure PIN_MODIFY (PC/SC part 10, 2.5.3)."""
    fields = (30, 30, 0x82, 0x08, 0x00, 0, 8, 8, 6, 0x03, 0x02, number_of_messages, 0x0409)
    return struct.pack("<12BH6BI", *fields, 0, 1, 2, 0, 0, 0, len(apdu)) + apdu


def main() -> None:
    apdu = bytes.fromhex(sys.argv[1])
    reader = Reader()
    code = reader.feature(_FEATURE_MODIFY_PIN_DIRECT)
    for number in NUMBERS_OF_MESSAGES:
        print(reader.control(code, modification(apdu, number)).hex())  # noqa: T201 (its result)


if __name__ == "__main__":
    main()

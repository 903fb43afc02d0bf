# SPDX-License-Identifier: Apache-2.0
"""What a reader asks its person for."""

from ccidd.reader.pinentry.source import ModificationRequest, VerificationRequest

READER = "Reader of a guest"
PIN = "135792"
OTHER_PIN = "246813"


def verification(timeout: float = 60, *, least: int = 4, most: int = 8) -> VerificationRequest:
    return VerificationRequest(
        reader=READER, slot=1, card="card A", min_digits=least, max_digits=most, timeout=timeout
    )


def modification(
    *, current: bool = True, confirms: bool = True, after_mismatch: bool = False
) -> ModificationRequest:
    return ModificationRequest(
        reader=READER,
        slot=1,
        card="card A",
        min_digits=4,
        max_digits=8,
        timeout=60,
        asks_current=current,
        confirms=confirms,
        after_mismatch=after_mismatch,
    )

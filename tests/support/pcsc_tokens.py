# SPDX-License-Identifier: Apache-2.0
"""Tokens that are cards in a reader of pcscd's, through OpenSC's module."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ccidd.keys.modules import configured_modules
from ccidd.reader.slot import Slot
from ccidd.transport.serial import serial_model
from pcscd import pcscd, serving

OPENSC = next(module for module in configured_modules() if "opensc" in module)


def use_pcscd_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has modules look for the pcscd of `reader`."""
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", str(directory / "pcscd/pcscd.comm"))


@asynccontextmanager
async def reader(directory: Path, slot: Slot) -> AsyncIterator[None]:
    """A pcscd with a reader of this process's, which must not wait for it in Trio's thread."""
    link = directory / "reader"
    async with serving(link, [slot]), pcscd(link, serial_model(1).name):
        yield

# SPDX-License-Identifier: Apache-2.0
"""Opens the cards that vscclient's options ask for."""

import structlog

from ccidd.errors import UserError
from ccidd.service.cards import open_supply
from ccidd.service.options import CardOptions
from ccidd.service.state import State
from ccidd.service.supply import CardSupply
from ccidd.service.vscclient.emulation import Emulation, Hardware, SoftReader

log: structlog.stdlib.BoundLogger = structlog.get_logger()

DEFAULT_DATABASE = "sql:/etc/pki/nssdb"

_OWN_SLOTS = {"", "NSS Certificate DB", "NSS User Private Key and Certificate Services"}
"""What NSS calls the database itself, as a token and as a slot; or nothing."""


def open_readers(emulation: Emulation, state: State) -> tuple[list[str], list[CardSupply]]:
    """Opens the readers.

    Args:
        emulation: what is asked for.
        state: what the cards remember.

    Returns:
        The names of the readers, and what fills their slots.

    Raises:
        UserError: There is nothing to serve, or a certificate or database cannot be used.
    """
    database = emulation.database or DEFAULT_DATABASE
    names = [soft.name for soft in emulation.soft]
    supplies = [_open_soft(soft, database, state) for soft in emulation.soft]
    if not supplies and emulation.hardware is Hardware.NO:
        raise UserError("there is nothing to serve: use_hw=no, and no soft= or -c")
    if not supplies:
        raise UserError(
            "hardware is not served yet; give it certificates: use_hw=no soft=(…) or -c"
        )
    if emulation.hardware is not Hardware.NO:
        log.warning("hardware_not_served_yet", hint="use_hw=no")
    return names, supplies


def _open_soft(soft: SoftReader, database: str, state: State) -> CardSupply:
    where = f"soft=({soft.slot},{soft.name},…)"
    if soft.slot not in _OWN_SLOTS:
        raise UserError(f"{where}: certificates are in the database itself; leave the slot empty")
    if not soft.certificates:
        raise UserError(f"{where}: it names no certificate")
    values = {f"cert{n}": (nickname,) for n, nickname in enumerate(soft.certificates, start=1)}
    options = CardOptions("cac", {"nss": (database,), **values})
    try:
        return open_supply(options, state)
    except UserError as error:
        raise UserError(str(error).replace("--card=cac", where)) from error

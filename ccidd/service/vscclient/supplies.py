# SPDX-License-Identifier: Apache-2.0
"""Opens the cards that vscclient's options ask for."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import structlog

from ccidd.errors import UserError
from ccidd.keys.nss import database_directory
from ccidd.keys.nssmodules import registered_modules
from ccidd.service.cards import open_supply
from ccidd.service.options import CardOptions
from ccidd.service.state import State
from ccidd.service.supply import CardSupply
from ccidd.service.vscclient.emulation import Emulation, Hardware, SoftReader

log: structlog.stdlib.BoundLogger = structlog.get_logger()

DEFAULT_DATABASE: Final = "sql:/etc/pki/nssdb"

_OWN_NAME: Final = "NSS Certificate DB"
_OWN_SLOTS: Final = {"", _OWN_NAME, "NSS User Private Key and Certificate Services"}
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
    if not soft.certificates:
        raise UserError(f"{where}: it names no certificate")
    if soft.slot not in _OWN_SLOTS:
        return _open_on_token(where, soft, database, state)
    nicknames = [nickname.removeprefix(f"{_OWN_NAME}:") for nickname in soft.certificates]
    values = {f"cert{n}": (nickname,) for n, nickname in enumerate(nicknames, start=1)}
    return _open(where, {"nss": (database,), **values}, state)


def _open_on_token(where: str, soft: SoftReader, database: str, state: State) -> CardSupply:
    """Opens a card whose certificates are on a token of one of the database's modules."""
    reasons = []
    for module in registered_modules(database_directory(database)):
        uris = tuple(
            f"pkcs11:token={quote(soft.slot, safe='')}"
            f";object={quote(nickname.removeprefix(f'{soft.slot}:'), safe='')}"
            f"?module-path={quote(str(module.path))}"
            for nickname in soft.certificates
        )
        try:
            return _open(where, {"pkcs11": uris}, state)
        except UserError as error:
            reasons.append(f"module {module.name!r}: {error}")
    raise UserError(
        "; ".join(reasons)
        or f"{where}: {database} lists no module that could have it (modutil -add); certificates"
        " of the database itself have an empty slot"
    )


def _open(where: str, values: Mapping[str, tuple[str, ...]], state: State) -> CardSupply:
    try:
        return open_supply(CardOptions("cac", values), state)
    except UserError as error:
        # There, the options of ccidd are named.
        raise UserError(str(error).replace("--card=cac", where)) from error

# SPDX-License-Identifier: Apache-2.0
"""Opens the cards that vscclient's options ask for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog

from ccidd.errors import UserError
from ccidd.keys.cryptoki import SlotFlags, TokenInfo
from ccidd.keys.modules import configured_modules
from ccidd.keys.nss import database_directory
from ccidd.keys.nssmodules import registered_modules
from ccidd.service.cards import open_supply
from ccidd.service.options import ANY_TOKEN, CardOptions
from ccidd.service.state import State
from ccidd.service.supply import CardSupply, unprotected
from ccidd.service.tokens import TokenSupply
from ccidd.service.vscclient.emulation import CardType, Emulation, Hardware, SoftReader

log: structlog.stdlib.BoundLogger = structlog.get_logger()

SYSTEM_DATABASE: Final = Path("/etc/pki/nssdb")
DEFAULT_DATABASE: Final = f"sql:{SYSTEM_DATABASE}"

_OWN_NAME: Final = "NSS Certificate DB"
_OWN_SLOTS: Final = {"", _OWN_NAME, "NSS User Private Key and Certificate Services"}
"""What NSS calls the database itself, as a token and as a slot; or nothing."""

_P11_KIT_PROXY: Final = "p11-kit-proxy.so"

_MAX_TOKENS: Final = 4
"""Hardware tokens at a time; of those that come later, each waits until one goes."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the cards of some readers come from.

    Attributes:
        supply: what fills their slots.
        names: gives each reader's name.
    """

    supply: CardSupply
    names: Sequence[Callable[[], str]]


def open_sources(emulation: Emulation, state: State) -> Sequence[Source]:
    """Opens what is asked for: readers with certificates, and those for hardware after them.

    Args:
        emulation: what is asked for.
        state: what the cards remember.

    Raises:
        UserError: There is nothing to serve, or a certificate or database cannot be used.
    """
    database = emulation.database or DEFAULT_DATABASE
    sources = [
        Source(_open_soft(soft, database, state), [partial(str, soft.name)])
        for soft in emulation.soft
    ]
    if emulation.hardware is not Hardware.NO:
        sources += _open_hardware(emulation, state)
    if not sources:
        raise UserError("there is nothing to serve: use_hw=no, and no soft= or -c")
    return sources


def _open_hardware(emulation: Emulation, state: State) -> Sequence[Source]:
    """Opens what follows the tokens of the modules."""
    if emulation.card_type is CardType.PASSTHRU:
        raise UserError("hw_type=PASSTHRU is not served yet")
    modules = hardware_modules(emulation.database)
    if not modules:
        place = emulation.database or DEFAULT_DATABASE
        if not emulation.soft:
            raise UserError(f"there is nothing to serve: {place} lists no modules (modutil -add)")
        log.info("no_modules", database=place, hint="modutil -add")
        return []
    options = CardOptions(
        "cac", {"token": (ANY_TOKEN,), "module": tuple(modules), "slots": (str(_MAX_TOKENS),)}
    )
    supply = TokenSupply(options, state, unprotected, partial(_is_served, emulation.hardware))
    return [Source(supply, [partial(_token_name, supply, n) for n in range(_MAX_TOKENS)])]


def _token_name(supply: TokenSupply, number: int) -> str:
    return supply.labels.get(number, "(hardware)")


def hardware_modules(database: str | None) -> Sequence[str]:
    """Gives the paths of the modules whose tokens are served.

    They are those that the database lists. p11-kit's proxy in there stands for all that p11-kit is
    configured with, and so does the system's database where there is none.

    Raises:
        UserError: The database cannot be read.
    """
    if database is None and not SYSTEM_DATABASE.exists():
        return configured_modules()
    found: list[str] = []
    for module in registered_modules(database_directory(database or DEFAULT_DATABASE)):
        is_proxy = module.path.name == _P11_KIT_PROXY
        found += configured_modules() if is_proxy else [str(module.path)]
    return list(dict.fromkeys(found))


def _is_served(hardware: Hardware, token: TokenInfo) -> bool:
    """Whether a token is of the kind that use_hw= says."""
    wanted = SlotFlags.REMOVABLE_DEVICE
    if hardware is Hardware.YES:
        wanted |= SlotFlags.HW_SLOT
    return token.slot_flags & wanted == wanted


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
    if reasons:
        raise UserError(f"{where}: {'; '.join(reasons)}")
    raise UserError(
        f"{where}: {database} lists no module that could have it (modutil -add); certificates of"
        " the database itself have an empty slot"
    )


def _open(where: str, values: Mapping[str, tuple[str, ...]], state: State) -> CardSupply:
    try:
        return open_supply(CardOptions("cac", values), state)
    except UserError as error:
        # There, the options of ccidd are named.
        raise UserError(str(error).replace("--card=cac", where)) from error

# SPDX-License-Identifier: Apache-2.0
"""Opens the cards that vscclient's options ask for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog

from ccidd.card.guard.guest import Guest
from ccidd.errors import UserError
from ccidd.keys.cryptoki import SlotFlags, TokenFlags, TokenInfo
from ccidd.keys.modules import configured_modules
from ccidd.keys.nss import database_directory
from ccidd.keys.nssmodules import registered_modules
from ccidd.service.cards import open_supply
from ccidd.service.guards import protector
from ccidd.service.options import ANY_TOKEN, PCSC, CardOptions
from ccidd.service.readers import Pinentries
from ccidd.service.state import State
from ccidd.service.supply import CardSupply, Protection
from ccidd.service.tokenchoice import TokenChoice
from ccidd.service.tokens import TokenSupply
from ccidd.service.vscclient.emulation import CardType, Emulation, Hardware, SoftReader
from ccidd.service.where import Where

log: structlog.stdlib.BoundLogger = structlog.get_logger()

SYSTEM_DATABASE: Final = Path("/etc/pki/nssdb")
DEFAULT_DATABASE: Final = f"sql:{SYSTEM_DATABASE}"

_OWN_NAME: Final = "NSS Certificate DB"
_OWN_SLOTS: Final = {"", _OWN_NAME, "NSS User Private Key and Certificate Services"}
"""What NSS calls the database itself, as a token and as a slot; or nothing."""

_CAC: Final = "cac"

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


class Sources:
    """Opens what is asked for.

    Args:
        emulation: what is asked for.
        state: what the cards remember.
        guest: the guest that is connected.
    """

    def __init__(self, emulation: Emulation, state: State, guest: Guest) -> None:
        self._emulation = emulation
        self._database = emulation.database or DEFAULT_DATABASE
        self._state = state
        self._guest = guest
        self._pinentries = Pinentries()

    def open(self) -> Sequence[Source]:
        """Opens the readers with certificates, and those for hardware after them.

        Raises:
            UserError: There is nothing to serve, or a certificate or database cannot be used.
        """
        sources = [self._open_soft(soft) for soft in self._emulation.soft]
        match self._emulation.hardware, self._emulation.card_type:
            case Hardware.NO, _:
                pass
            case _, CardType.PASSTHRU:
                supply = self._open("hw_type=PASSTHRU", PCSC, {"reader": ("*",)})
                sources.append(Source(supply, [partial(str, "PC/SC")]))
            case _:
                sources += self._open_tokens()
        if not sources:
            raise UserError("there is nothing to serve: use_hw=no, and no soft= or -c")
        return sources

    def _open_tokens(self) -> Iterator[Source]:
        """Opens what follows the tokens of the modules."""
        hardware = self._emulation.hardware
        if self._emulation.database is None and not SYSTEM_DATABASE.exists():
            modules: Sequence[str] = configured_modules()
            lack = "p11-kit is configured with no modules"
            if hardware is Hardware.YES:
                # There is nothing here that libcacard would have chosen from.
                hardware = Hardware.ANY
        else:
            modules = listed_modules(self._database)
            lack = f"{self._database} lists no modules (modutil -add)"
        if modules:
            values = {
                "token": (ANY_TOKEN,),
                "module": tuple(modules),
                "slots": (str(_MAX_TOKENS),),
            }
            options = CardOptions(_CAC, values, Where("use_hw", None))
            accepts = _Acceptance(hardware)
            choice = TokenChoice.of(options)
            supply = TokenSupply(choice, self._state, self._protection(options), accepts)
            yield Source(supply, [partial(_token_name, supply, n) for n in range(_MAX_TOKENS)])
        elif self._emulation.soft:
            log.info("no_hardware", reason=lack)
        else:
            raise UserError(f"there is nothing to serve: {lack}")

    def _open_soft(self, soft: SoftReader) -> Source:
        where = f"soft=({soft.slot},{soft.name},…)"
        if not soft.certificates:
            raise UserError(f"{where}: it names no certificate")
        name = partial(str, soft.name)
        if soft.slot not in _OWN_SLOTS:
            return Source(self._open_on_token(where, soft), [name])
        nicknames = [nickname.removeprefix(f"{_OWN_NAME}:") for nickname in soft.certificates]
        values = {f"cert{n}": (nickname,) for n, nickname in enumerate(nicknames, start=1)}
        return Source(self._open(where, _CAC, {"nss": (self._database,), **values}), [name])

    def _open_on_token(self, where: str, soft: SoftReader) -> CardSupply:
        """Opens a card whose certificates are on a token of one of the database's modules."""
        reasons = []
        for module in registered_modules(database_directory(self._database)):
            uris = tuple(
                f"pkcs11:token={quote(soft.slot, safe='')}"
                f";object={quote(nickname.removeprefix(f'{soft.slot}:'), safe='')}"
                f"?module-path={quote(str(module.path))}"
                for nickname in soft.certificates
            )
            try:
                return self._open(where, _CAC, {"pkcs11": uris})
            except UserError as error:
                reasons.append(f"module {module.name!r}: {error}")
        if reasons:
            raise UserError(f"{where}: {'; '.join(reasons)}")
        raise UserError(
            f"{where}: {self._database} lists no module that could have it (modutil -add);"
            " certificates of the database itself have an empty slot"
        )

    def _open(self, where: str, kind: str, values: Mapping[str, tuple[str, ...]]) -> CardSupply:
        # The names of ccidd's options would say nothing.
        options = CardOptions(kind, values, Where(where, None))
        return open_supply(options, self._state, self._protection(options))

    def _protection(self, options: CardOptions) -> Protection:
        return protector(options, self._guest, self._pinentries)


def _token_name(supply: TokenSupply, number: int) -> str:
    return supply.labels.get(number, "(hardware)")


def listed_modules(database: str) -> Sequence[str]:
    """Gives the paths of the modules that a database lists.

    p11-kit's proxy in there stands for all that p11-kit is configured with.

    Raises:
        UserError: The database cannot be read.
    """
    found: list[str] = []
    for module in registered_modules(database_directory(database)):
        is_proxy = module.path.name == _P11_KIT_PROXY
        found += configured_modules() if is_proxy else [str(module.path)]
    return list(dict.fromkeys(found))


class _Acceptance:
    """Says which tokens are of the kind that use_hw= wants."""

    def __init__(self, hardware: Hardware) -> None:
        self._wanted = {
            Hardware.YES: SlotFlags.REMOVABLE_DEVICE | SlotFlags.HW_SLOT,
            Hardware.REMOVABLE: SlotFlags.REMOVABLE_DEVICE,
        }.get(hardware, SlotFlags(0))
        self._told: set[tuple[str, str]] = set()

    def __call__(self, token: TokenInfo) -> bool:
        if token.slot_flags & self._wanted == self._wanted:
            return True
        name = token.label, token.serial
        if TokenFlags.LOGIN_REQUIRED in token.flags and name not in self._told:
            self._told.add(name)
            log.warning(
                "token_left_out",
                token=token.label,
                reason="its module does not say that it is removable hardware",
                hint="use_hw=any",
            )
        return False

# SPDX-License-Identifier: Apache-2.0
"""The commands of `ccidd card` that have to do with PINs and PUKs.

They may run while ccidd serves the card: what they change is in the database alone, where the
serving process looks each time, and each change is one transaction.
"""

import argparse
import json

import trio

from ccidd.card.piv.references import PinReference
from ccidd.errors import UserError
from ccidd.service.cardtypes import CARD_TYPES, PUK
from ccidd.service.pincodes import pin_on_wire, puk_on_wire, random_pin, random_puk
from ccidd.service.secretinput import given_secret, secret
from ccidd.service.state import CardRecord, State, StoredPin


def change_pin(state: State, options: argparse.Namespace) -> None:
    """`ccidd card change-pin`.

    Raises:
        UserError: The old one is wrong, or the new one cannot be used.
    """
    record = state.card(options.name)
    reference, name = chosen_pin(state, record, options.which)
    pin = StoredPin(state, record.guid, reference)
    old = secret(options, "pin", f"{name} of {options.name}")
    # Whether the new one can be used is told before a try is spent.
    new = secret(options, "new-pin", f"New {name}", is_new=True)
    on_wire = secret_on_wire(new, name)
    trio.run(try_pin, pin, secret_on_wire(old, name), name, options.which)
    trio.run(pin.change, on_wire)
    _report(state, options, record, reference, name)


def unblock(state: State, options: argparse.Namespace) -> None:
    """`ccidd card unblock`.

    Raises:
        UserError: There is no such PIN, or the PUK is wrong.
    """
    record = state.card(options.name)
    reference, name = chosen_pin(state, record, options.which, changes=options.with_puk)
    if not options.with_puk:
        state.restore_tries(record.guid, reference)
    elif options.which != "pin":
        raise UserError(f"the PUK does not unblock the {name}; leave out --with-puk")
    else:
        puk = secret(options, "puk", f"PUK of {options.name}")
        new = secret_on_wire(secret(options, "new-pin", "New PIN", is_new=True), name)
        trio.run(
            try_pin, StoredPin(state, record.guid, PUK), secret_on_wire(puk, "PUK"), "PUK", "puk"
        )
        trio.run(StoredPin(state, record.guid, reference).change, new)
    _report(state, options, record, reference, name)


def reset_pin(state: State, options: argparse.Namespace) -> None:
    """`ccidd card reset-pin`.

    Raises:
        UserError: The new PIN cannot be used.
    """
    record = state.card(options.name)
    reference, name = chosen_pin(state, record, options.which)
    new = given_secret(options, "new-pin")
    shown = None
    if new is None:
        shown = random_puk() if reference == PUK else random_pin()
    on_wire = secret_on_wire(shown.encode() if shown else new or b"", name)
    trio.run(StoredPin(state, record.guid, reference).change, on_wire)
    _report(state, options, record, reference, name, shown)


def chosen_pin(
    state: State, record: CardRecord, which: str, *, changes: bool = True
) -> tuple[int, str]:
    """Tells which PIN is meant.

    Args:
        state: the database.
        record: the card.
        which: `pin`, `puk` or `global`.
        changes: whether it is to be changed, and not its tries alone.

    Returns:
        Its key reference, and what to call it.

    Raises:
        UserError: The card has no such PIN, or it is kept elsewhere.
    """
    kind = CARD_TYPES[record.type]
    match which:
        case "puk":
            reference, name = PUK, "PUK"
        case "global":
            if not kind.has_piv:
                raise UserError(f"the card {record.name} is {record.type}, which has no global PIN")
            reference, name = int(PinReference.GLOBAL_PIN), "global PIN"
        case _:
            reference, name = kind.pin, "PIN"
    pin = state.pin(record.guid, reference)
    if changes and record.name is None and pin is not None and pin.hash is None:
        raise UserError(f"the {name} of the card {record.guid} is kept elsewhere; change it there")
    return reference, name


def _field(name: str) -> str:
    return name.lower().replace(" ", "_")


def secret_on_wire(value: bytes, name: str) -> bytes:
    """Gives a PIN or a PUK as cards are sent it.

    Args:
        value: as people write it.
        name: what it is called: `PUK`, or something else for a PIN.

    Raises:
        UserError: It is none.
    """
    return puk_on_wire(value, "the PUK") if name == "PUK" else pin_on_wire(value, "the PIN")


async def try_pin(pin: StoredPin, value: bytes, name: str, which: str) -> None:
    """Compares a PIN, for which a try is spent.

    Args:
        pin: the PIN.
        value: what it is said to be, as it is on the wire.
        name: what it is called.
        which: what the option `--which` calls it.

    Raises:
        UserError: It is not that, or is blocked.
    """
    if await pin.compare(value):
        return
    left = await pin.tries_left()
    if left:
        raise UserError(f"this is not the {name}; {left} tries are left")
    raise UserError(f"the {name} is blocked; `ccidd card unblock --which={which}` frees it")


def _report(  # noqa: PLR0913, PLR0917 (what there is to tell)
    state: State,
    options: argparse.Namespace,
    record: CardRecord,
    reference: int,
    name: str,
    shown: str | None = None,
) -> None:
    pin = state.pin(record.guid, reference)
    if pin is None:
        which = "" if options.which == "pin" else f" --which={options.which}"
        raise UserError(
            f"the card {options.name} has no {name}; `ccidd card reset-pin{which}` sets one"
        )
    if options.json:
        value = {"guid": record.guid, "tries_left": pin.tries_left, "max_tries": pin.max_tries}
        print(json.dumps(value | ({_field(name): shown} if shown else {}), indent=2))  # noqa: T201
        return
    print(f"card  {options.name}, GUID {record.guid}")  # noqa: T201
    if shown:
        print(f"{name:<5} {shown}\nIt is shown this once.")  # noqa: T201
    else:
        print(f"{name:<5} {pin.tries_left} of {pin.max_tries} tries left")  # noqa: T201

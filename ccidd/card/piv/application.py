# SPDX-License-Identifier: Apache-2.0
"""The PIV card application: selection, and which part of it carries out which command.

Source: NIST SP 800-73-4, part 2, section 3, with the changes of SP 800-73-5; all but secure
messaging (section 4), on-card biometric comparison and the contactless interface.
"""

from collections.abc import Collection, Mapping
from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU, StatusWord
from ccidd.card.application import Application, CardError
from ccidd.card.memory import CardMemory
from ccidd.card.piv import private_keys, templates
from ccidd.card.piv.administrator import Administrator
from ccidd.card.piv.extensions import Extensions
from ccidd.card.piv.identity import Identity
from ccidd.card.piv.key_pairs import generate_key_pair
from ccidd.card.piv.objects import DataObjects
from ccidd.card.piv.options import PivOptions
from ccidd.card.piv.pins import Pins
from ccidd.card.piv.records import Records
from ccidd.card.piv.references import AID, MANAGEMENT_KEY, PIX, RID, KeyReference
from ccidd.card.piv.slots import Slots
from ccidd.errors import UserError
from ccidd.keys.key import Credential

_LABEL: Final = b"ccidd PIV"

_DYNAMIC_AUTHENTICATION_TEMPLATE: Final = 0x7C
_RESPONSE: Final = 0x82


class PivApplication(Application):
    """The PIV card application.

    Its state is that of its parts: what the card remembers (`records`), and the security status of
    cardholder (`pins`) and administrator (`administrator`).

    Args:
        credentials: keys from outside, with their certificates.
        memory: what the card remembers; see `records` for its contents.
        options: how it is configured.

    Raises:
        UserError: The card cannot have one of the keys, or has no identity.
    """

    def __init__(
        self,
        credentials: Mapping[KeyReference, Credential],
        memory: CardMemory,
        options: PivOptions,
    ) -> None:
        _check(credentials.values(), options)
        self._options = options
        self._properties = _properties(options)
        self._records = Records(memory)
        self._slots = Slots(credentials, self._records)
        identity = Identity.of(self._records, credentials.values(), options.guid)
        self._objects = DataObjects(
            self._records, self._slots, identity, extensions=options.vendor_extensions
        )
        self._pins = Pins(
            memory,
            self._records,
            lambda: self._objects.global_pin_is_used,
            extensions=options.vendor_extensions,
        )
        self._administrator = Administrator(self._records)
        self._extensions = Extensions(
            self._records,
            options,
            identity,
            self._administrator,
            self._pins,
            self._slots,
            self._objects,
        )

    def is_selected_by(self, aid: bytes) -> bool:
        """See `Application.is_selected_by`: the full identifier, or its beginning.

        Hosts leave the version away, and some all but the RID.
        """
        return len(aid) >= len(RID) and AID.startswith(aid)

    def select(self) -> bytes:
        """See `Application.select`: the application property template (part 2, table 3).

        Selected again, the application keeps its security status (part 2, 3.1.1).
        """
        self._note_command(Instruction.SELECT)
        return self._properties

    def deselect(self) -> None:
        """See `Application.deselect`."""
        self._pins.end()
        self._administrator.end()

    def reset(self) -> None:
        """See `Application.reset`."""
        self._pins.reset()
        self._administrator.end()

    async def process(self, command: CommandAPDU) -> ResponseAPDU:
        """See `Application.process`."""
        self._note_command(command.ins)
        try:
            return ResponseAPDU(await self._carry_out(command))
        except OSError as error:
            raise CardError(StatusWord.MEMORY_FAILURE) from error

    def _note_command(self, ins: int) -> None:
        """Lets the PIN age with each command that is no use of a key.

        A key with the rule "PIN always" wants the PIN verified "immediately before" each use
        (part 1, 3.2.1). Cards that NIST has approved take that to the letter: any command in
        between, even one that reads, and the key is refused. OpenSC, Windows and macOS are written
        for such cards, and hold the card for themselves from VERIFY to GENERAL AUTHENTICATE. The
        tools for the extensions are not: they verify the PIN, then authenticate the administrator
        or read metadata, then sign, because on their cards only the use of a private key spends the
        verification. With the extensions it is so here too. In either case each use takes a PIN
        entry of its own, which is what the rule is for.
        """
        if not self._options.vendor_extensions and ins != Instruction.GENERAL_AUTHENTICATE:
            self._pins.spend()

    async def _carry_out(self, command: CommandAPDU) -> bytes:
        match command.ins:
            case Instruction.GET_DATA:
                return self._objects.get_data(
                    command, pin_is_verified=lambda: self._pins.is_verified
                )
            case Instruction.VERIFY:
                await self._pins.verify(command)
            case Instruction.CHANGE_REFERENCE_DATA:
                await self._pins.change_reference_data(command)
            case Instruction.RESET_RETRY_COUNTER:
                await self._pins.reset_retry_counter(command)
            case Instruction.GENERAL_AUTHENTICATE:
                return await self._general_authenticate(command)
            case Instruction.PUT_DATA:
                self._administrator.require()
                await self._objects.put_data(command)
            case Instruction.GENERATE_ASYMMETRIC_KEY_PAIR:
                self._administrator.require()
                return await generate_key_pair(command, self._slots, self._options)
            case _ if self._options.vendor_extensions:
                return await self._extensions.process(command)
            case _:
                raise CardError(StatusWord.INSTRUCTION_NOT_SUPPORTED)
        return b""

    async def _general_authenticate(self, command: CommandAPDU) -> bytes:
        """GENERAL AUTHENTICATE (part 2, 3.2.4), with the administrator's key or any other."""
        if command.p2 == MANAGEMENT_KEY:
            if not self._options.vendor_extensions:
                self._pins.spend()
            result = self._administrator.authenticate(
                command.p1,
                templates.decode_template(command.data, _DYNAMIC_AUTHENTICATION_TEMPLATE),
            )
            return tlv.encode(_DYNAMIC_AUTHENTICATION_TEMPLATE, result) if result else b""
        # ykman signs to learn whether a key is that of a certificate, and takes 6A80 for a no.
        extensions = self._options.vendor_extensions
        slot = private_keys.slot_for_use(
            self._slots,
            command.p1,
            command.p2,
            otherwise=StatusWord.INCORRECT_DATA if extensions else StatusWord.INCORRECT_P1_P2,
        )
        self._pins.use(slot.pin_policy)
        fields = templates.decode_template(command.data, _DYNAMIC_AUTHENTICATION_TEMPLATE)
        result = await private_keys.use(
            slot, command.p2, fields, self._pins.application, any_key_agrees=extensions
        )
        return tlv.encode(_DYNAMIC_AUTHENTICATION_TEMPLATE, tlv.encode(_RESPONSE, result))


def _check(credentials: Collection[Credential], options: PivOptions) -> None:
    for credential in credentials:
        algorithm = credential.key.algorithm
        if not options.takes(algorithm):
            raise UserError(f"{algorithm.value} is too weak; give the card a longer key")


def _properties(options: PivOptions) -> bytes:
    """Gives the application property template (SP 800-73-4, part 2, table 3)."""
    algorithms = (
        tlv.encode(0x80, bytes([identifier])) for identifier in options.algorithm_identifiers()
    )
    return tlv.encode(
        0x61,
        tlv.encode(0x4F, PIX),
        tlv.encode(0x79, tlv.encode(0x4F, RID)),
        tlv.encode(0x50, _LABEL),
        tlv.encode(0xAC, *algorithms, tlv.encode(0x06, b"\x00")),
    )

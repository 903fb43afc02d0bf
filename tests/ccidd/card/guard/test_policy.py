# SPDX-License-Identifier: Apache-2.0
import logging
from collections.abc import Iterator, Sequence

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.operations import MANAGE, NOTHING, USE, Operation, parse_policy
from ccidd.errors import UserError
from recording_card import (
    AIDS,
    CAC_CCC,
    CAC_ENCRYPTION,
    CAC_IDENTITY,
    OPENPGP,
    OTHER,
    PIV,
    RecordingCard,
    select,
)
from use_of_cards import is_use

ODD_CLASSES = (0x01, 0x04, 0x0C, 0x10, 0x13, 0x20, 0x40, 0x4F, 0x60, 0x84, 0x90, 0xB0, 0xFE, 0xFF)
PARAMETERS = (
    *(0x0000, 0x0080, 0x0081, 0x0082, 0x0083, 0x0100, 0x0400, 0x3FFF, 0x8000, 0x8100, 0xFF00),
    *(0xFF80, 0xFFFF, 0x9E9A, 0x8086, 0x41A4, 0x41B8, 0x00C4, 0x00D3, 0x0200, 0x009A, 0x009B),
    *(0x079A, 0x079C, 0x079D, 0x119E, 0x089E, 0x089A, 0x089B, 0x2704, 0x1182, 0x1195, 0x1196),
    *(0x07F9, 0xE19D, 0x0780),
)
DATA = (
    b"",
    b"123456\xff\xff",
    bytes.fromhex("7C0881061122334455BB"),
    bytes.fromhex("7C0881061122334455AA"),
    bytes.fromhex("7C0885061122334455AA"),
    bytes.fromhex("7C028100"),
)
BROKEN_TEMPLATES = (
    "7C",
    "7C0A8106112233445566",
    "7C0881061122334455668200",
    "7C088106112233445566" * 2,
    "7C0C8104112233448104AABBCCDD",
    "7C068304112233447C00",
    "7D0881061122334455667788",
    "7C068101AA8301BB",
    "7C0482008000",
)


CHAINING = {0x10, 0x13}


def every_command() -> Iterator[CommandAPDU]:
    for ins in set(range(256)) - {0xA4}:
        data = DATA if ins == 0x87 else DATA[:2]
        for parameters in PARAMETERS:
            for cla in (0x00, 0x80):
                for each in data:
                    yield CommandAPDU(cla, ins, *divmod(parameters, 256), each)
        for cla in ODD_CLASSES:
            yield CommandAPDU(cla, ins, 0x00, 0x80, DATA[1])
            yield CommandAPDU(cla, ins, 0x07, 0x9A, DATA[3])
            yield CommandAPDU(cla, ins, 0x00, 0x00)


@pytest.fixture
def no_log() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def guard(card: RecordingCard, policy: frozenset[Operation] = USE, retry_floor: int = 0) -> Guard:
    return Guard(card, Rules(policy, retry_floor, NOTHING))


async def send(card: Guard, command: str | CommandAPDU) -> int:
    raw = command.encode() if isinstance(command, CommandAPDU) else bytes.fromhex(command)
    return ResponseAPDU.decode(await card.transmit(raw)).sw


async def selected(aid: str, policy: frozenset[Operation] = USE) -> tuple[Guard, RecordingCard]:
    card = RecordingCard()
    guarded = guard(card, policy)
    await guarded.power_on()
    assert await send(guarded, select(aid)) == 0x9000
    card.received.clear()
    return guarded, card


@pytest.mark.parametrize("aid", AIDS)
async def test_only_what_uses_the_application_reaches_it(aid: str, no_log: None) -> None:
    guarded, card = await selected(aid)
    for command in every_command():
        card.received.clear()
        sw = await send(guarded, command)
        uses = is_use(command, aid)
        assert bool(card.received) is uses, f"{command} {command.data.hex()}"
        # A chain that is not whole yet is not sent; whether it is refused is tried elsewhere.
        assert (sw == 0x9000) is uses or command.cla in CHAINING


@pytest.mark.parametrize("aid", AIDS)
async def test_whoever_may_manage_may_do_all_but_conceal(aid: str) -> None:
    guarded, card = await selected(aid, MANAGE)
    for cla in (0x00, 0x01, 0x80, 0xFE):
        for ins in set(range(256)) - {0xC2, 0xC3}:
            card.received.clear()
            assert await send(guarded, CommandAPDU(cla, ins, 0x12, 0x34, b"data")) == 0x9000
            assert card.commands == [f"{cla:02X}{ins:02X}12340464617461"]
    for concealing in ("FFCA000000", "00C2000004002000FF", "00C3000000", "80C2000000"):
        card.received.clear()
        assert await send(guarded, concealing) in {0x6E00, 0x6D00}
        assert not card.received


REFUSALS = [
    (PIV, "00240080103132333435363738313233343536373839", 0x6985, "CHANGE REFERENCE DATA", "80"),
    (PIV, "002C0080103132333435363738313233343536373839", 0x6985, "RESET RETRY COUNTER", "80"),
    (PIV, "00DB3FFF055C035FC105", 0x6985, "PUT DATA", None),
    (PIV, "0047009A05AC03800111", 0x6985, "GENERATE ASYMMETRIC KEY PAIR", "9A"),
    (PIV, "00FE119A02067F", 0x6985, "IMPORT ASYMMETRIC KEY", "9A"),
    (PIV, "0087089B047C028000", 0x6985, "GENERAL AUTHENTICATE", "9B"),
    (PIV, "00FB0000", 0x6985, "RESET", None),
    (PIV, "00E60000", 0x6D00, "INS E6", None),
    (PIV, "80CB3FFF055C035FC105", 0x6E00, "GET DATA", None),
    (PIV, "01CB3FFF055C035FC105", 0x6881, "INS CB", None),
    (PIV, "0CCB3FFF055C035FC105", 0x6882, "GET DATA", None),
    (PIV, "1020008004313233FF", 0x6884, "chain of INS 20", None),
    (CAC_IDENTITY, "8058000004AABBCCDD", 0x6985, "UPDATE BUFFER", None),
    (CAC_IDENTITY, "00820000081122334455667788", 0x6985, "EXTERNAL AUTHENTICATE", None),
    (OPENPGP, "00200083083132333435363738", 0x6985, "VERIFY", "83"),
    (OPENPGP, "00DA00D3083132333435363738", 0x6985, "PUT DATA", None),
    (OPENPGP, "00E60000", 0x6985, "TERMINATE DF", None),
    (OPENPGP, "0047800002B600", 0x6985, "GENERATE ASYMMETRIC KEY PAIR", None),
    (OPENPGP, "00F20303", 0x6D00, "INS F2", None),
    (OTHER, "00A10000", 0x6D00, "INS A1", None),
    (OTHER, "00CB3FFF055C035FC105", 0x6D00, "INS CB", None),
]


@pytest.mark.parametrize(("aid", "command", "sw", "instruction", "key"), REFUSALS)
async def test_a_refusal_has_a_status_word_and_one_event_without_data(
    aid: str, command: str, sw: int, instruction: str, key: str | None
) -> None:
    guarded, card = await selected(aid)
    with capture_logs() as logs:
        assert await send(guarded, command) == sw
    assert not card.received
    event = {
        "event": "guard_refused",
        "log_level": "warning",
        "guest": "the guest",
        "instruction": instruction,
        "reason": "policy",
    }
    assert logs == [event if key is None else {**event, "key": key}]


@pytest.mark.parametrize("template", BROKEN_TEMPLATES)
async def test_a_template_that_can_be_read_in_two_ways_is_unknown(template: str) -> None:
    guarded, card = await selected(PIV)
    assert await send(guarded, f"0087079A{len(template) // 2:02X}{template}") == 0x6A86
    assert not card.received


SIGNING = frozenset({Operation.READ, Operation.VERIFY, Operation.SIGN})
DECRYPTING = frozenset({Operation.READ, Operation.VERIFY, Operation.DECRYPT})

USES_OF_KEYS = [
    # RSA by the key's purpose, elliptic curves by what is asked for.
    (PIV, "0087079A0C7C0A82008106112233445566", SIGNING),
    (PIV, "0087079C0C7C0A82008106112233445566", SIGNING),
    (PIV, "0087079D0C7C0A82008106112233445566", DECRYPTING),
    (PIV, "008716820C7C0A82008106112233445566", DECRYPTING),
    (PIV, "0087119D0C7C0A82008106112233445566", SIGNING),
    (PIV, "0087119D0C7C0A82008506112233445566", DECRYPTING),
    (PIV, "0087119A0C7C0A82008506112233445566", DECRYPTING),
    (PIV, "0087E1950C7C0A82008506112233445566", DECRYPTING),
    (CAC_IDENTITY, "80420000081122334455667788", SIGNING),
    (CAC_ENCRYPTION, "80420000081122334455667788", DECRYPTING),
    (OPENPGP, "002A9E9A081122334455667788", SIGNING),
    (OPENPGP, "00880000081122334455667788", SIGNING),
    (OPENPGP, "002A8086081122334455667788", DECRYPTING),
]


@pytest.mark.parametrize(("aid", "command", "needs"), USES_OF_KEYS)
async def test_signing_and_decrypting_are_told_apart(
    aid: str, command: str, needs: frozenset[Operation]
) -> None:
    for policy in (SIGNING, DECRYPTING):
        guarded, card = await selected(aid, policy)
        assert (await send(guarded, command) == 0x9000) is (policy is needs)
        assert bool(card.received) is (policy is needs)


async def test_a_key_that_both_might_use_needs_both() -> None:
    # Of the card capability container it is not known what it would do with the block.
    for policy in (SIGNING, DECRYPTING):
        guarded, card = await selected(CAC_CCC, policy)
        assert await send(guarded, "80420000081122334455667788") == 0x6985
        assert not card.received


async def test_rules_can_be_given_one_by_one() -> None:
    guarded, card = await selected(PIV, parse_policy("use+change-pin"))
    assert await send(guarded, "002400801031323334353637383132333435363738") == 0x9000
    assert await send(guarded, "00DB3FFF055C035FC105") == 0x6985
    assert await send(guarded, "00E60000") == 0x6D00
    assert len(card.received) == 1


def test_policies_are_names_joined_by_plus() -> None:
    assert parse_policy("use") == USE
    assert parse_policy("manage") == MANAGE
    assert parse_policy("read+sign") == {Operation.READ, Operation.SIGN}
    for wrong in ("", "use+", "reads", "conceal", "use,manage", "USE"):
        with pytest.raises(UserError, match="is none of use, manage, change-pin"):
            parse_policy(wrong)


async def test_broken_commands_go_nowhere() -> None:
    guarded, card = await selected(PIV, MANAGE)
    for broken in ("", "00", "00CB3F", "00CB3FFF0501", "00CB3FFF00000501", "0020008000003132"):
        assert await send(guarded, broken) == 0x6700
    assert not card.received


async def test_until_an_application_is_selected_nothing_is_known() -> None:
    card = RecordingCard(default=PIV)
    guarded = guard(card)
    await guarded.power_on()
    assert await send(guarded, "00200080083132333435363738") == 0x6D00
    await send(guarded, select(PIV))
    assert await send(guarded, "00200080083132333435363738") == 0x9000
    await guarded.power_off()
    await guarded.power_on()
    assert await send(guarded, "00200080083132333435363738") == 0x6D00
    assert [each.command.ins for each in card.received] == [0xA4, 0x20]


SELECTIONS = [
    ("00A4040009A00000030800001000", PIV),
    ("00A404000BA00000030800001000010000", PIV),
    ("00A4040C0BA000000308000010000100", PIV),
    # With another occurrence, a file, or less of a name, it may be anything.
    ("00A4040209A00000030800001000", None),
    ("00A4040005A000000308", None),
    ("00A4040004A0000003", None),
    ("00A40400", None),
    ("00A40000023F00", None),
    ("00A404000AA0000003080000100001", PIV),
    ("00A404000CA00000030800001000010000", None),
    ("00A4040005A000000079", CAC_CCC),
    ("00A4040007A0000000790100", CAC_CCC),
    ("00A40400066D7900012401", None),
    ("00A4040006D27600012401", OPENPGP),
    ("00A4040010D2760001240103040006123456780000", OPENPGP),
    ("00A4040005D276000124", None),
]


class _Agreeable(RecordingCard):
    """Selects whatever it is told to."""

    async def transmit(self, command: bytes) -> bytes:
        await super().transmit(command)
        return b"\x90\x00"


@pytest.mark.parametrize(("command", "application"), SELECTIONS)
async def test_the_guard_knows_what_a_select_selects(command: str, application: str | None) -> None:
    probes = {PIV: "0087119A0C7C0A82008106112233445566", CAC_CCC: "80520000020102"}
    probes[OPENPGP] = "002A9E9A081122334455667788"
    guarded = guard(_Agreeable())
    await guarded.power_on()
    assert await send(guarded, command) == 0x9000
    passed = [aid for aid, probe in probes.items() if await send(guarded, probe) == 0x9000]
    assert passed == ([] if application is None else [application])


async def test_an_application_named_by_its_provider_is_known_by_its_properties() -> None:
    properties = bytes.fromhex("61114F0600001000010079074F05A000000308")
    for data, sw in ((properties, 0x9000), (properties[:-1], 0x6D00), (b"", 0x6D00)):
        answers = {"00A40400": lambda data=data: ResponseAPDU(data)}
        guarded = guard(RecordingCard(answers=answers))
        await guarded.power_on()
        assert await send(guarded, "00A4040005A00000030800") == 0x9000
        assert await send(guarded, "00CB3FFF055C035FC105") == sw


@pytest.mark.parametrize(("between", "sw"), [(None, 0x9000), ("0084000008", 0x6D00)])
async def test_its_properties_may_wait_for_get_response(between: str | None, sw: int) -> None:
    properties = bytes.fromhex("61114F0600001000010079074F05A000000308")
    answers = {
        "00A40400": lambda: ResponseAPDU(properties[:4], sw=0x610F),
        "00C00000": lambda: ResponseAPDU(properties[4:]),
    }
    guarded = guard(RecordingCard(answers=answers))
    await guarded.power_on()
    await send(guarded, "00A4040005A000000308")
    if between is not None:
        await send(guarded, between)
    await send(guarded, "00C000000F")
    assert await send(guarded, "00CB3FFF055C035FC105") == sw


@pytest.mark.parametrize("sw", [0x6A82, 0x6999, 0x6700, 0x6D00])
async def test_a_select_that_fails_changes_nothing(sw: int) -> None:
    guarded, card = await selected(PIV)
    card._answers = {"00A40400": lambda: ResponseAPDU(sw=sw)}
    assert await send(guarded, select(OPENPGP)) == sw
    assert await send(guarded, "0087119A0C7C0A82008106112233445566") == 0x9000
    assert await send(guarded, "002A9E9A081122334455667788") == 0x6D00


@pytest.mark.parametrize("sw", [0x6F00, 0x6400, 0x9100, 0x0000])
async def test_after_a_select_with_an_odd_end_nothing_is_known(sw: int) -> None:
    guarded, card = await selected(PIV)
    card._answers = {"00A40400": lambda: ResponseAPDU(sw=sw)}
    assert await send(guarded, select(OPENPGP)) == sw
    assert await send(guarded, "0087119A0C7C0A82008106112233445566") == 0x6D00
    assert await send(guarded, "002A9E9A081122334455667788") == 0x6D00


async def test_objects_of_a_cac_belong_to_the_same_applet() -> None:
    guarded, _card = await selected(CAC_IDENTITY)
    assert await send(guarded, "00A40200020100") == 0x9000
    assert await send(guarded, "80520000020102") == 0x9000
    assert await send(guarded, "00A40000020100") == 0x9000
    assert await send(guarded, "80520000020102") == 0x6E00


# Any sequence.

_bytes = st.integers(0, 255)
_interesting_data = st.sampled_from(
    [*DATA, *(bytes.fromhex(aid) for aid in AIDS), *(bytes.fromhex(aid)[:7] for aid in AIDS)]
)
_commands = st.builds(
    CommandAPDU,
    cla=st.sampled_from([0x00] * 6 + [0x10] * 4 + [0x01, 0x11, 0x80, 0x90, 0x0C, 0x40, 0x50])
    | _bytes,
    ins=st.sampled_from([0xA4, 0x20, 0x24, 0x87, 0xDB, 0x47, 0x42, 0x2A, 0xFB, 0xC2, 0x70])
    | _bytes,
    p1=st.sampled_from([0x00, 0x04, 0x07, 0x11, 0x3F, 0x80, 0x9E]) | _bytes,
    p2=st.sampled_from([0x00, 0x02, 0x0C, 0x80, 0x9A, 0x9B, 0x9D, 0xFF]) | _bytes,
    data=_interesting_data | st.binary(max_size=20),
    extended=st.booleans(),
)
_selects = st.builds(
    CommandAPDU,
    cla=st.sampled_from([0x00, 0x00, 0x00, 0x10, 0x01, 0x80]),
    ins=st.just(0xA4),
    p1=st.sampled_from([0x04, 0x04, 0x04, 0x00, 0x02]),
    p2=st.sampled_from([0x00, 0x0C, 0x02]),
    data=st.sampled_from([bytes.fromhex(aid) for aid in AIDS])
    | st.builds(lambda aid, n: bytes.fromhex(aid)[:n], st.sampled_from(AIDS), st.integers(0, 11)),
)


@settings(max_examples=400, deadline=None)
@given(
    commands=st.lists(_commands | _selects, max_size=30),
    default=st.sampled_from(AIDS),
    deselects=st.booleans(),
)
async def test_whatever_is_sent_the_card_is_only_used(
    commands: Sequence[CommandAPDU], default: str, *, deselects: bool
) -> None:
    card = RecordingCard(default, failed_select_deselects=deselects)
    guarded = guard(card)
    await guarded.power_on()
    for command in commands:
        response = await guarded.transmit(command.encode())
        assert len(response) >= 2
    whole = b""
    for each in card.received:
        command = each.command
        if command.cla & 0x90 == 0x10:
            whole += command.data
            continue
        command = CommandAPDU(
            command.cla, command.ins, command.p1, command.p2, whole + command.data
        )
        whole = b""
        # A SELECT that failed may have left another application than before. What is sent then is
        # no management of either.
        assert any(is_use(command, aid) for aid in AIDS), command
        if not deselects:
            assert is_use(command, each.selected), command

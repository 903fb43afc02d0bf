# SPDX-License-Identifier: Apache-2.0
"""What a guest gets of ccidd-vscclient, run as its users run it, beside an emulated QEMU."""

import json
import shutil
from pathlib import Path

import pytest

from ccid_protocol import vscard
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import KeyAlgorithm
from credentials import credential
from passthrough import bench, new_piv_card
from piv import PIN as CARD_PIN
from piv import SELECT as SELECT_PIV
from piv import new_memory
from programs import run_ccidd
from running_vscclient import PASSWORD, SELECT_PKI, emul_args, ended, listening, running, soft
from tokens import PIN as TOKEN_PIN
from tokens import SOFTHSM, SoftHsm, StoredKey, register_module

VERIFY = CommandAPDU(0, 0x20, 0, 0, PASSWORD.encode()).encode()
WRONG_VERIFY = CommandAPDU(0, 0x20, 0, 0, b"000000").encode()
# What QEMU's T=0 reader is told; the historical bytes are libcacard's.
CAC_ATR = bytes.fromhex("3B0A73667465206364313434")


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A token that says it is removable, and so passes for hardware."""
    softhsm = SoftHsm(tmp_path / "softhsm", monkeypatch)
    softhsm.configure("slots.removable = true")
    softhsm.add("my token", [StoredKey(KeyAlgorithm.RSA_2048, b"\1", "a key")])
    return softhsm


@pytest.fixture
def with_module(tmp_path: Path, softhsm: SoftHsm, database: Path) -> Path:
    """The database, with SoftHSM in its list of modules."""
    directory = Path(shutil.copytree(database, tmp_path / "database"))
    register_module(directory, "SoftHSM", SOFTHSM)
    return directory


# What a guest gets.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_the_documents_command_gives_a_guest_its_cac(
    host: str, database: Path, tmp_path: Path, environ: None
) -> None:
    arguments = ["-e", emul_args(database, soft("id-cert", "signing-cert", "encryption-cert"))]
    async with listening(host) as qemu:
        arguments += [host, qemu.arguments[1]]
        async with running(*arguments, tmp_path=tmp_path) as client, qemu.client() as peer:
            await peer.until(lambda: peer.atr)
            assert peer.atr == CAC_ATR
            for select in SELECT_PKI:
                assert (await peer.transmit(select))[0] == 0x61
            assert await peer.transmit(WRONG_VERIFY) != b"\x90\x00"
            assert await peer.transmit(VERIFY) == b"\x90\x00"
            await client.sees("> ")
            await client.types("exit\n")
            await peer.until(lambda: peer.closed)
            assert await client.process.wait() == 0
            assert peer.seen[-2:] == [vscard.CardRemove(0), vscard.ReaderRemove(0)]


async def test_certificates_of_the_option_c_are_one_more_reader(
    database: Path, tmp_path: Path, environ: None
) -> None:
    options = [
        "-e",
        emul_args(database, soft("signing-cert")),
        "-c",
        "id-cert",
        "-cencryption-cert",
    ]
    async with (
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        await client.sees("> ")
        assert await client.does("list") == (
            "Active Readers:\n"
            "  0 CARD_PRESENT Test\n"
            "Inactive Readers:\n"
            "  1 CARD_PRESENT Virtual Reader\n"
        )
        assert await peer.transmit(SELECT_PKI[1]) == b"\x6a\x82"
        await client.does("select 1")
        await peer.until(lambda: peer.atr is None)
        await peer.until(lambda: peer.atr)
        assert (await peer.transmit(SELECT_PKI[1]))[0] == 0x61


async def test_certificates_may_be_on_a_token_of_a_module(
    with_module: Path, tmp_path: Path, environ: None
) -> None:
    reader = "soft=(my token,Test,CAC,,my token:a key)"
    async with (
        listening() as qemu,
        running("-e", emul_args(with_module, reader), *qemu.arguments, tmp_path=tmp_path),
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
        verify = CommandAPDU(0, 0x20, 0, 0, TOKEN_PIN).encode()
        assert await peer.transmit(verify) == b"\x90\x00"
    other = emul_args(with_module, reader.replace("a key", "nobody"))
    result = ended("-e", other, "127.0.0.1", "1")
    assert result.returncode == 1
    assert "module 'SoftHSM': " in result.stderr


async def test_a_guest_cannot_block_the_card(database: Path, tmp_path: Path, environ: None) -> None:
    options = ["-e", emul_args(database, soft("id-cert"))]
    async with (
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path),
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        await peer.transmit(SELECT_PKI[0])
        answers = [(await peer.transmit(WRONG_VERIFY)).hex() for _ in range(3)]
        assert answers == ["63c1", "63c0", "6983"]
        assert (await peer.transmit(VERIFY)).hex() == "6983"
        (card,) = json.loads(run_ccidd("card", "list", "--json").stdout)
        assert card["pins"][0]["tries_left"] == 1
        assert run_ccidd("card", "unblock", card["guid"]).returncode == 0
        assert (await peer.transmit(VERIFY)).hex() == "9000"


async def test_two_may_have_the_same_database(
    database: Path, tmp_path: Path, environ: None
) -> None:
    options = ["-e", emul_args(database, soft("id-cert"))]
    async with (
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path),
        qemu.client() as one,
        running(*options, *qemu.arguments, tmp_path=tmp_path),
        qemu.client() as other,
    ):
        for peer in (one, other):
            await peer.until(lambda peer=peer: peer.atr)  # type: ignore[misc] # mypy: lambda
            assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
            assert await peer.transmit(VERIFY) == b"\x90\x00"


# Hardware.


async def test_tokens_of_the_databases_modules_come_and_go(
    with_module: Path, softhsm: SoftHsm, tmp_path: Path, environ: None
) -> None:
    options = ["-e", f'db="sql:{with_module}" use_hw=removable']
    async with (
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
        verify = CommandAPDU(0, 0x20, 0, 0, TOKEN_PIN).encode()
        assert await peer.transmit(verify) == b"\x90\x00"
        await client.sees("> ")
        listed = await client.does("list")
        assert listed.startswith("Active Readers:\n  0 CARD_PRESENT my token\nInactive Readers:\n")
        assert "  1              (hardware)\n" in listed
        assert await client.does("remove") == "remove my token, returned 0\n"
        await peer.until(lambda: peer.atr is None)
        assert await client.does("insert") == "insert my token, returned 0\n"
        await peer.until(lambda: peer.atr)
        softhsm.remove()
        await peer.until(lambda: peer.atr is None)
        assert await client.does("insert") == "insert (hardware), returned 1\n"
        softhsm.bring_back()
        await peer.until(lambda: peer.atr)


async def test_the_documents_command_gives_a_guest_the_hosts_card(
    tmp_path: Path, environ: None
) -> None:
    """A card in a reader of this host's, which OpenSC has made a token of."""
    card = piv_card({KeyReference.AUTHENTICATION: credential(KeyAlgorithm.RSA_2048)}, new_memory())
    async with (
        bench(tmp_path, card),
        listening() as qemu,
        running(*qemu.arguments, tmp_path=tmp_path),
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert b"sfte cd144" in (peer.atr or b"")
        assert (await peer.transmit(SELECT_PKI[0]))[0] == 0x61
        verify = CommandAPDU(0, 0x20, 0, 0, CARD_PIN.rstrip(b"\xff")).encode()
        assert await peer.transmit(verify) == b"\x90\x00"
        block = CommandAPDU(0x80, 0x42, 0x80, 0, b"\0\1" + bytes(238)).encode()
        assert await peer.transmit(block) == b"\x90\x00"
        rest = CommandAPDU(0x80, 0x42, 0, 0, bytes(16)).encode()
        assert (await peer.transmit(rest))[0] == 0x61


@pytest.mark.parametrize("use", ["any", "yes", "no"])
async def test_what_is_no_hardware_is_served_if_that_is_asked_for(
    use: str, with_module: Path, softhsm: SoftHsm, tmp_path: Path, environ: None
) -> None:
    softhsm.configure()
    emulation = f'db="sql:{with_module}" use_hw={use} {soft("id-cert")}'
    async with (
        listening() as qemu,
        running("-e", emulation, *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        await client.sees("> ")
        listed = await client.does("list")
        while use == "any" and "  1 CARD_PRESENT my token\n" not in listed:
            listed = await client.does("list")
        while use == "yes" and "event=token_left_out" not in client.log:
            listed = await client.does("list")
        assert listed.count("(hardware)") == {"any": 3, "yes": 4, "no": 0}[use]
        assert ("event=token_left_out" in client.log) == (use == "yes")


@pytest.mark.parametrize("options", [["-p"], ["-e", "passthru"], ["-e", "hw_type=PASSTHRU"]])
async def test_a_card_of_a_host_s_reader_is_passed_through(
    options: list[str], tmp_path: Path, environ: None
) -> None:
    async with (
        bench(tmp_path, new_piv_card()) as host,
        listening() as qemu,
        running(*options, *qemu.arguments, tmp_path=tmp_path) as client,
        qemu.client() as peer,
    ):
        await peer.until(lambda: peer.atr)
        assert (await peer.transmit(bytes.fromhex(SELECT_PIV)))[-2:] == b"\x90\x00"
        await client.sees("> ")
        assert (await client.does("list")).startswith("Active Readers:\n  0 CARD_PRESENT PC/SC\n")
        host.reader.remove()
        await peer.until(lambda: peer.atr is None)
        host.reader.insert(new_piv_card())
        await peer.until(lambda: peer.atr)


def test_a_database_without_modules_has_no_hardware(database: Path, environ: None) -> None:
    result = ended("-e", f'db="sql:{database}"', "127.0.0.1", "1")
    assert result.returncode == 1
    assert f"sql:{database} lists no modules (modutil -add)" in result.stderr

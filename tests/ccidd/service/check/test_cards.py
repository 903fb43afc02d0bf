# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cards import echo_card
from ccidd.card.passthrough.winscard import Context, PcscError
from ccidd.errors import UserError
from ccidd.keys.cryptoki import Cryptoki
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.cards import open_card
from ccidd.service.check.cards import look_at_card, look_at_embedded_card
from ccidd.service.check.state import StatePlace, look_at_state
from ccidd.service.embedded import load_or_make
from ccidd.service.options import parse_card
from ccidd.service.state import State
from ccidd.service.where import in_file
from crash import CHEAP
from passthrough import bench, following
from piv import selected, verify
from tokens import SOFTHSM, SoftHsm, StoredKey, nss_database, uri

P_256, RSA = KeyAlgorithm.P_256, KeyAlgorithm.RSA_2048
FILE = in_file("f")


def findings(text: str, place: StatePlace) -> list[str]:
    return [str(each) for each in look_at_card(parse_card(text), place)]


def snapshot(directory: Path) -> dict[Path, tuple[int, bytes]]:
    files = [each for each in directory.rglob("*") if each.is_file()]
    return {each: (each.stat().st_mtime_ns, each.read_bytes()) for each in files}


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login with a token is a failure."""

    def refuse(*_arguments: object) -> None:
        raise AssertionError("a check logs in")

    monkeypatch.setattr(Cryptoki, "login", refuse)


# Cards of files.


def test_a_card_of_files(files: Path, place: StatePlace) -> None:
    text = f"piv,keys={files}/key,pin-file={files}/pin"
    assert findings(text, place) == ["ok       --card=piv: a piv card with the keys 9A"]
    assert not place.directory.exists()


def test_secrets_that_others_can_read(files: Path, place: StatePlace) -> None:
    (files / "key").chmod(0o644)
    (files / "pin").chmod(0o602)
    found = findings(f"piv,key9E={files}/key,pin-file={files}/pin", place)
    assert found == [
        (
            f"error    --card=piv: key9E: {files}/key is open to other users (mode 644);"
            f" run: chmod u=rw,g=,o= {files}/key"
        ),
        (
            f"error    --card=piv: pin-file: {files}/pin is open to other users (mode 602);"
            f" run: chmod u=rw,g=,o= {files}/pin"
        ),
        "ok       --card=piv: a piv card with the keys 9E",
    ]


def test_a_group_may_read_secrets(files: Path, place: StatePlace) -> None:
    (files / "pin").chmod(0o640)
    assert len(findings(f"piv,keys={files}/key,pin-file={files}/pin", place)) == 1


def test_credentials_are_of_systemd(
    files: Path, place: StatePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "pin").chmod(0o444)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", f"{files}")
    assert len(findings(f"piv,keys={files}/key,pin-file={files}/pin", place)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("piv,keys=@none,pin-file=@pin", "--card=piv: keys: cannot read"),
        ("piv,keys=@key,pin-file=@none", "--card=piv: pin-file: cannot read"),
        ("piv,keys=@pin,pin-file=@pin", "--card=piv: keys: .*cannot be read as PEM or PKCS#12"),
        ("piv,keys=@key,pin-file=@key", "--card=piv: pin-file: .*a PIN has 6 to 8 digits"),
        ("piv,card=alice", "card: there is no card alice: there is no state in"),
    ],
)
def test_what_serving_would_end_with(
    text: str, message: str, files: Path, place: StatePlace
) -> None:
    with pytest.raises(UserError, match=message):
        findings(text.replace("@", f"{files}/"), place)


def test_a_pinentry_that_is_missing(files: Path, place: StatePlace) -> None:
    text = f"piv,keys={files}/key,pin-file={files}/pin,confirm=sign,confirm-with=no-such"
    first, _second = findings(text, place)
    assert first.startswith("error    --card=piv: confirm-with: there is no program no-such")


# Cards that ccidd keeps.


@pytest.fixture
def kept(place: StatePlace) -> StatePlace:
    with State(place.directory, cost=CHEAP) as state:
        load_or_make(state, "alice")
    return place


def test_a_card_that_is_kept(kept: StatePlace) -> None:
    before = snapshot(kept.directory)
    assert findings("piv,card=alice", kept) == [
        "ok       --card=piv: a piv card with the keys 9A, 9C, 9D"
    ]
    assert snapshot(kept.directory) == before


def test_a_card_of_another_kind(kept: StatePlace) -> None:
    with pytest.raises(UserError, match="--card=cac: card: the card alice is piv, not cac"):
        findings("cac,card=alice", kept)


def test_a_card_that_is_served(kept: StatePlace) -> None:
    with State(kept.directory) as state:
        open_card(parse_card("piv,card=alice"), state)
        found = findings("piv,card=alice", kept)
    assert found[-1].startswith("warning  --card=piv: the card alice is being served by process")
    # It could be looked at beside that, and is free again.
    assert len(found) == 2
    assert len(findings("piv,card=alice", kept)) == 1


async def test_a_pin_that_is_blocked(kept: StatePlace) -> None:
    with State(kept.directory) as state:
        card = await selected(open_card(parse_card("piv,card=alice"), state))
        for _ in range(3):
            await verify(card, "000000")
    found = await trio.to_thread.run_sync(findings, "piv,card=alice", kept)
    assert found[-1] == "warning  --card=piv: the PIN is blocked; run: ccidd card unblock alice"


def test_the_embedded_card(kept: StatePlace) -> None:
    def found(name: str) -> list[str]:
        return [str(each) for each in look_at_embedded_card(name, FILE, kept)]

    assert found("alice") == ["ok       f: a piv card with the keys 9A, 9C, 9D"]
    assert found("bob") == ["ok       f: the card bob will be made, and its PIN shown once"]


# The state.


def test_a_state(place: StatePlace) -> None:
    def found() -> list[str]:
        return [str(each) for each in look_at_state(place)]

    assert found() == [f"ok       state: there is none yet; it will be made in {place.directory}"]
    assert not place.directory.exists()
    with State(place.directory, cost=CHEAP) as state:
        load_or_make(state, "alice")
    assert found() == [f"ok       state: {place.directory} can be used; cards: alice"]


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.chmod(0o777), "is open to other users"),
        (lambda state: (state / "state.sqlite3").chmod(0o644), "is open to other users"),
        (lambda state: (state / "state.key").unlink(), "state.key is gone"),
        (lambda state: (state / "state.key").write_text("0" * 64), "under another key"),
        (lambda state: (state / "state.sqlite3").write_text("x" * 9999), "not a database"),
    ],
)
def test_a_state_that_cannot_be_used(kept: StatePlace, damage: Damage, message: str) -> None:
    damage(kept.directory)
    before = snapshot(kept.directory)
    with pytest.raises(UserError, match=message):
        list(look_at_state(kept))
    assert snapshot(kept.directory) == before


# Tokens.


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    softhsm = SoftHsm(tmp_path / "softhsm", monkeypatch)
    softhsm.add("a token", [StoredKey(P_256, b"\1", "first"), StoredKey(RSA, b"\2", "second")])
    return softhsm


@pytest.mark.usefixtures("softhsm", "no_login")
def test_keys_on_a_token(place: StatePlace, files: Path) -> None:
    for pin_file in (None, files / "pin"):
        source = uri(token="a token", pin_file=pin_file)
        assert findings(f"piv,pkcs11={source}", place) == [
            "ok       --card=piv: a piv card with the keys 9A, 9C"
        ]
    with pytest.raises(UserError, match="pkcs11: the token 'none' is not there"):
        findings(f"piv,pkcs11={uri(token='none')}", place)


@pytest.mark.usefixtures("softhsm", "no_login")
def test_what_is_seen_after_a_login_alone_is_not_called_wrong(
    softhsm: SoftHsm, place: StatePlace, files: Path
) -> None:
    softhsm.add("hidden", [StoredKey(P_256, b"\1", "first", is_hidden=True)])
    source = uri(token="hidden", pin_file=files / "pin")
    first, second = findings(f"piv,pkcs11={source}", place)
    assert first.startswith("warning  --card=piv: pkcs11: the token 'hidden' has no certificate")
    assert second.startswith("warning  --card=piv: a check does not log in")
    with pytest.raises(UserError, match="--card=piv: pkcs11: cannot read /nonexistent/pin"):
        findings(f"piv,pkcs11={source.replace(f'{files}', '/nonexistent')}", place)


@pytest.mark.usefixtures("softhsm", "no_login")
def test_slots_that_follow_tokens(softhsm: SoftHsm, place: StatePlace, files: Path) -> None:
    softhsm.add("empty", [])
    where = "--card=piv"
    first, second, third, fourth = findings(f"piv,token=any,slots=1,module={SOFTHSM}", place)
    assert third.startswith(f"warning  {where}: the token 'empty' cannot be used: ")
    assert [first, second, fourth] == [
        f"ok       {where}: the PKCS#11 module {SOFTHSM} works; tokens there: 'a token', 'empty'",
        f"ok       {where}: the token 'a token' is a piv card with the keys 9A, 9C",
        f"warning  {where}: there are 2 such tokens for 1 slots; the others wait",
    ]
    _first, last = findings(f"piv,token={uri(token='b', pin_file=files / 'pin')}", place)
    assert last.startswith("warning  --card=piv: token: there is no such token now")


def test_a_module_that_is_none(place: StatePlace) -> None:
    with pytest.raises(
        UserError, match=r"--card=piv: module: .* cannot be used as a PKCS#11 module"
    ):
        findings(f"piv,token=any,module={__file__}", place)


@pytest.mark.usefixtures("no_login")
def test_keys_in_a_database(tmp_path: Path, files: Path, place: StatePlace) -> None:
    database = nss_database(tmp_path / "db", {"one": (P_256, 0)}, "a password")
    assert findings(f"piv,nss=sql:{database}", place) == [
        "ok       --card=piv: a piv card with the keys 9A"
    ]
    with pytest.raises(UserError, match=r"--card=piv: nss: .*'two'"):
        findings(f"piv,nss=sql:{database},cert1=two", place)
    # The wrong password is not tried.
    text = f"piv,nss=sql:{database},pin-file={files}/pin,password-file={files}/pin"
    assert findings(text, place) == ["ok       --card=piv: a piv card with the keys 9A"]
    with pytest.raises(UserError, match="needs a PIN: leave out pin-file"):
        findings(f"piv,nss=sql:{database},pin-file={files}/pin", place)


# Cards of the host's.


async def test_a_reader_of_the_host(tmp_path: Path, place: StatePlace) -> None:
    async def found(text: str) -> list[str]:
        return await trio.to_thread.run_sync(findings, text, place)

    where = "--card=pcsc"
    async with bench(tmp_path, echo_card()) as host:
        async with following() as slot:
            await slot.wait_until_not(None)
        first, second = await found("pcsc,reader=*")
        assert first.startswith(f"ok       {where}: the reader 'Virtual 00 00' has a card with the")
        assert second == f"warning  {where}: the reader 'Virtual 00 01' has no card in it now"
        readers = "'Virtual 00 00', 'Virtual 00 01'"
        assert await found("pcsc,reader=Other") == [
            f"warning  {where}: reader: there is no such reader now; there are: {readers}"
        ]
        host.host.kill()
        # Until it has ended it seems to refuse us.
        await host.host._process.wait()
        (gone,) = await found("pcsc,reader=*")
        assert gone.startswith(f"error    {where}: SCardEstablishContext: ")
        assert gone.endswith("; is pcscd there? run: systemctl enable --now pcscd.socket")


def test_a_pcscd_that_does_not_let_us_in(
    place: StatePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_context: Context) -> None:
        # What pcscd makes of polkit's "no".
        raise PcscError("SCardEstablishContext", 0x8010006A)

    monkeypatch.setattr(Context, "establish", refuse)
    (found,) = findings("pcsc,reader=X", place)
    assert found.startswith("error    --card=pcsc: SCardEstablishContext: Access denied.; polkit ")


def test_a_state_that_is_not_ours_to_see(
    place: StatePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> bool:
        # As for anybody but root.
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert place.exists
    with pytest.raises(UserError, match=f"cannot use {place.directory}: "):
        list(look_at_state(place))

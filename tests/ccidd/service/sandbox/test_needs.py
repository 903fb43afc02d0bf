# SPDX-License-Identifier: Apache-2.0
"""What is needed, by configuration: nothing of this machine is looked at."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.control.options import ControlOptions
from ccidd.service.options import parse_card
from ccidd.service.sandbox.derivation import module_needs_of, needs_of
from ccidd.service.sandbox.needs import Access, Needs
from ccidd.service.sandbox.surroundings import Surroundings

AROUND = Surroundings(
    Path("/var/lib/ccidd"),
    home=Path("/home/alice"),
    python=(Path("/opt/python"),),
    modules=(Path("/opt/vendor/lib/p11.so"),),
    module_files=(Path("/etc/softhsm"),),
    module_stores=(Path("/srv/cache"),),
    tokens=Path("/srv/softhsm/tokens"),
    desktop_files=(Path("/home/alice/.Xauthority"),),
    desktop_stores=(Path("/run/user/1000"),),
)
BASE = needs_of(Configuration(()), AROUND)


def reader(*cards: str, **values: object) -> ReaderConfiguration:
    one = ReaderConfiguration(socket_path=Path("/run/ccidd/a.sock"))
    return replace(one, cards=tuple(parse_card(card) for card in cards), **values)  # type: ignore[arg-type] # (the test says which)


def needs(*cards: str, **values: object) -> Needs:
    return needs_of(Configuration((reader(*cards, **values),)), AROUND)


def added(*cards: str, **values: object) -> Mapping[Path, Access]:
    """What a reader needs beyond what every ccidd does, and beyond its socket."""
    paths = needs(*cards, **values).paths
    return {
        path: access
        for path, access in paths.items()
        if path not in BASE.paths and path != Path("/run/ccidd")
    }


def test_every_ccidd_needs_its_state_and_what_python_reads_and_no_more() -> None:
    assert BASE.access_to(Path("/var/lib/ccidd/state.db")) == (
        Access.WRITE | Access.READ | Access.CREATE | Access.BIND
    )
    assert BASE.access_to(Path("/opt/python/lib")) == Access.READ
    assert BASE.access_to(Path("/usr/bin/python3")) == Access.READ
    assert BASE.access_to(Path("/dev/null")) == Access.DEVICE
    for path in ("/home/alice", "/tmp/x", "/root", "/var/lib", "/dev/sda", "/run/docker.sock"):  # noqa: S108
        assert BASE.access_to(Path(path)) == Access(0)
    assert not BASE.programs
    assert not BASE.internet
    assert not BASE.abstract_sockets
    assert BASE.connects_to == frozenset()


def test_an_embedded_card_needs_the_directory_of_its_socket_beside() -> None:
    assert added() == {}
    assert needs().paths[Path("/run/ccidd")] == Access.BIND
    assert not needs().programs


def test_the_directory_of_the_configuration_file_is_read_at_each_reload() -> None:
    around = replace(AROUND, file=Path("/srv/ccidd/ccidd.toml"))
    assert needs_of(Configuration(()), around).paths[Path("/srv/ccidd")] == Access.READ


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("/etc/ccidd/keys/alice.p12", "/etc/ccidd/keys"),
        ("/home/alice/keys/alice.p12", "/home/alice/keys"),
        ("/home/alice/alice.p12", "/home/alice/alice.p12"),
        ("/home/alice.p12", "/home/alice.p12"),
        ("/tmp/alice.p12", "/tmp/alice.p12"),  # noqa: S108
        ("/alice.p12", "/alice.p12"),
    ],
)
def test_a_key_file_is_named_by_its_directory_unless_all_else_is_there(
    file: str, path: str
) -> None:
    assert added(f"piv,keys={file},pin-file=/var/lib/ccidd/pin") == {Path(path): Access.READ}


def test_each_option_that_names_a_file_has_it_read() -> None:
    card = "piv,key9A=/a/1/x,key9C=/a/2/x,keys=/a/3/x,pin-file=/a/4/x,puk-file=/a/5/x"
    paths = added(f"{card},password-file=/a/6/x", options={"pin-file": "/a/7/x"})
    assert paths == {Path(f"/a/{number}"): Access.READ for number in range(1, 8)}


def test_credentials_of_systemds_are_all_in_one_place() -> None:
    card = "piv,keys=credential:alice.p12,pin-file=credential:alice.pin"
    assert added(card, options={"pin-file": "credential:alice.pin"}) == {}


def test_a_trace_needs_a_directory_to_write_in() -> None:
    assert added(trace=Path("/var/log/ccidd/a.pcapng")) == {Path("/var/log/ccidd"): Access.CREATE}


def test_a_socket_to_connect_to_needs_nothing_and_tcp_its_port() -> None:
    for path in ("/run/qemu/a.sock", "a.sock", "./a:1"):
        assert needs(socket_path=None, connect=path) == BASE
    for target in ("host:4711", "[::1]:4711"):
        tcp = needs(socket_path=None, connect=target)
        assert tcp.internet
        assert tcp.connects_to == frozenset({4711, 53})
        assert not tcp.programs


def test_a_tcp_port_is_listened_at_with_certificates() -> None:
    tcp = needs(socket_path=None, listen="[::]:4711", tls_creds=Path("/etc/ccidd/tls"))
    assert tcp.internet
    assert tcp.listens_on == frozenset({4711})
    assert tcp.connects_to == frozenset()
    assert tcp.paths[Path("/etc/ccidd/tls")] == Access.READ


def test_control_sockets_and_statistics_need_their_directories() -> None:
    configuration = Configuration(
        (),
        control=(ControlOptions(Path("/run/ccidd/control.sock")), ControlOptions(fd=3)),
        metrics_file=Path("/var/lib/node-exporter/ccidd.prom"),
    )
    found = needs_of(configuration, AROUND)
    assert found.paths[Path("/run/ccidd")] == Access.BIND
    assert found.paths[Path("/var/lib/node-exporter")] == Access.CREATE


def test_a_serial_line_needs_terminals() -> None:
    assert added(transport="serial")[Path("/dev/pts")] == Access.DEVICE


@pytest.mark.parametrize(
    ("card", "module"),
    [
        ("piv,pkcs11=pkcs11:token=t?module-path=/opt/hsm/p11.so", "/opt/hsm"),
        ("piv,key9A=pkcs11:token=t?module-path=/opt/hsm/p11.so", "/opt/hsm"),
        ("piv,token=pkcs11:token=t?module-path=/opt/hsm/p11.so", "/opt/hsm"),
        ("piv,token=any,module=/opt/hsm/p11.so", "/opt/hsm"),
        ("piv,token=any", "/opt/vendor/lib"),
    ],
)
def test_a_token_needs_its_module_a_program_and_perhaps_the_network(card: str, module: str) -> None:
    found = needs(card)
    assert Access.READ in found.access_to(Path(module, "x"))
    assert found.programs
    assert found.internet
    assert found.connects_to is None
    for store in ("/srv/cache", "/srv/softhsm/tokens", "/srv/softhsm/other-tokens"):
        assert found.access_to(Path(store, "x")) & Access.WRITE
    assert found.access_to(Path("/dev/bus/usb/001/002")) == Access.DEVICE
    assert Access.EXECUTE in found.access_to(Path("/opt/python/bin/python"))
    assert Access.EXECUTE not in found.access_to(Path("/home/alice/program"))


def test_a_pin_source_is_read() -> None:
    uri = "pkcs11:token=t?module-path=/usr/lib/p11.so&pin-source=file:///etc/pins/t"
    assert needs(f"piv,token={uri}").access_to(Path("/etc/pins/t")) & Access.READ
    uri = uri.replace("file:///etc", "/home")
    assert needs(f"piv,token={uri}").access_to(Path("/home/pins/t")) & Access.READ


def test_a_database_is_written_and_needs_no_network() -> None:
    for name in ("sql:/home/alice/.pki/nssdb", "/home/alice/.pki/nssdb"):
        found = needs(f"piv,nss={name},key9A=nss:alice")
        assert found.paths[Path("/home/alice/.pki/nssdb")] == Access.WRITE
        assert found.programs
        assert not found.internet
        assert Path("/srv/softhsm") not in found.paths


@pytest.mark.parametrize(
    "found",
    [
        needs("piv,card=a,confirm=sign"),
        needs("piv,card=a,confirm=sign,confirm-with=pinentry-gtk-2"),
        needs(options={"pin-entry": "pinentry"}),
    ],
)
def test_a_pinentry_needs_a_terminal_or_a_window(found: Needs) -> None:
    assert found.programs
    assert found.abstract_sockets
    assert found.access_to(Path("/dev/pts/3")) == Access.DEVICE
    assert found.access_to(Path("/run/user/1000/bus")) & Access.WRITE
    assert found.access_to(Path("/home/alice/.Xauthority")) == Access.READ


def test_a_pinentry_of_ones_own_is_started() -> None:
    found = needs(options={"pin-entry": "/home/alice/bin/pinentry"})
    assert Access.EXECUTE in found.access_to(Path("/home/alice/bin/pinentry"))


def test_an_agent_needs_no_program() -> None:
    assert not needs(options={"pin-entry": "agent"}).programs
    assert not needs("piv,card=a,confirm=sign,confirm-with=agent").programs


def test_a_card_in_a_reader_of_the_hosts_needs_no_file() -> None:
    assert added("pcsc,reader=*") == {}


def test_the_directories_of_a_service_are_there_for_what_a_reload_may_bring() -> None:
    around = replace(AROUND, logs=(Path("/var/log/ccidd"),), runtime=(Path("/run/ccidd/more"),))
    found = needs_of(Configuration(()), around)
    assert found.paths[Path("/var/log/ccidd")] == Access.CREATE
    assert found.paths[Path("/run/ccidd/more")] == Access.BIND


def test_what_else_is_named_is_used_as_one_likes() -> None:
    configuration = Configuration((), sandbox_paths=(Path("/srv/vendor"),))
    for found in (needs_of(configuration, AROUND), module_needs_of(configuration, AROUND)):
        assert Access.WRITE | Access.EXECUTE in found.access_to(Path("/srv/vendor/x"))


# The processes of PKCS#11 modules.


def test_a_module_has_its_tokens_and_nothing_of_ccidds() -> None:
    configuration = Configuration(
        (
            reader(
                "piv,token=any",
                "piv,nss=sql:/srv/nss",
                "piv,keys=/etc/keys/a,pin-file=/srv/pins/a",
                options={"pin-entry": "pinentry"},
                trace=Path("/var/log/ccidd/a.pcapng"),
            ),
        )
    )
    around = replace(AROUND, file=Path("/srv/ccidd/ccidd.toml"), credentials=Path("/run/secrets"))
    found = module_needs_of(configuration, around)
    for path in (
        "/opt/vendor/lib/p11.so",
        "/srv/softhsm/tokens/x",
        "/srv/nss/key4.db",
        "/usr/lib/x",
    ):
        assert Access.READ in found.access_to(Path(path))
    for path in (
        *("/var/lib/ccidd/state.db", "/srv/ccidd/ccidd.toml", "/srv/pins/a", "/run/ccidd/a.sock"),
        *("/run/secrets/pin", "/var/log/ccidd/a.pcapng", "/home/alice/.Xauthority", "/dev/pts/1"),
    ):
        assert found.access_to(Path(path)) == Access(0)
    assert not any(Access.EXECUTE in access for access in found.paths.values())
    assert found.modules
    assert not found.programs
    assert found.beyond(needs_of(configuration, around)) is None


def test_needs_are_told_to_another_process() -> None:
    for found in (BASE, needs("piv,token=any"), needs(connect="host:4711")):
        assert Needs.from_json(found.to_json()) == found
        assert "\n" not in found.to_json()


# What is not granted.


def test_what_is_granted_is_not_beyond() -> None:
    for found in (BASE, needs(), needs("piv,token=any")):
        assert found.beyond(found) is None
        assert BASE.beyond(found) is None


@pytest.mark.parametrize(
    ("found", "beyond"),
    [
        (needs(socket_path=Path("/run/other/b.sock")), "/run/other"),
        (needs("piv,keys=/srv/b.p12,pin-file=/etc/pin"), "/srv/b.p12"),
        (needs(trace=Path("/run/ccidd/trace")), "/run/ccidd"),
        (needs(options={"pin-entry": "pinentry"}), "a program (PKCS#11"),
        (needs(connect="host:4711"), "TCP"),
        (replace(needs(), listens_on=frozenset({443})), "TCP port 443"),
    ],
)
def test_what_is_not_granted_is_named(found: Needs, beyond: str) -> None:
    assert (found.beyond(needs()) or "").startswith(beyond)


def test_ports_are_granted_one_by_one_or_all() -> None:
    one = needs(connect="host:4711")
    assert one.beyond(needs(connect="host:4712")) == "TCP port 4711"
    assert one.beyond(needs("piv,token=any")) is None
    assert (one | needs(connect="host:4712")).connects_to == frozenset({4711, 4712, 53})
    assert (one | needs("piv,token=any")).connects_to is None

# SPDX-License-Identifier: Apache-2.0
"""libvirt's own schema has the examples for it, and each goes with the ccidd that it names.

Source: libvirt, domain.rng; `virsh attach-device` takes one device, and a domain has all of them.
"""

import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ccidd.service.configfile import load_configuration
from ccidd.service.configuration import ReaderConfiguration
from documents import DOCUMENTS, blocks, name_of

LIBVIRT = Path(__file__).parents[2] / "packaging" / "libvirt"
EXAMPLES = sorted(LIBVIRT.iterdir())

# Where ccidd's end of the socket is, by what libvirt makes of QEMU's.
OTHER_END = {
    ("connect", "unix"): "socket_path",
    ("connect", "tcp"): "listen",
    ("bind", "unix"): "connect",
    ("bind", "tcp"): "connect",
}
TRANSPORT = {"redirdev": "usbredir", "smartcard": "vscard"}


def in_a_domain(example: str) -> ET.Element:
    """Gives a domain with what an example has."""
    root = ET.fromstring(example)  # noqa: S314 (our own file)
    if root.tag == "domain":
        return root
    domain = ET.parse(LIBVIRT / "domain.xml").getroot()  # noqa: S314 (our own file)
    devices = domain.find("devices")
    assert devices is not None
    devices.clear()
    devices.extend(root if root.tag == "devices" else [root])
    return domain


def check(domain: ET.Element, directory: Path) -> subprocess.CompletedProcess[str]:
    file = directory / "domain.xml"
    ET.ElementTree(domain).write(file)
    return subprocess.run(
        ["virt-xml-validate", file, "domain"], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_libvirt_accepts_it(example: Path, tmp_path: Path) -> None:
    checked = check(in_a_domain(example.read_text(encoding="utf-8")), tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_libvirt_accepts_what_the_documents_have(document: Path, tmp_path: Path) -> None:
    for block in blocks(document, "xml"):
        checked = check(in_a_domain(block), tmp_path)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_libvirt_accepts_not_everything(tmp_path: Path) -> None:
    domain = in_a_domain((LIBVIRT / "domain.xml").read_text(encoding="utf-8"))
    redirdev = domain.find("devices/redirdev")
    assert redirdev is not None
    redirdev.set("bus", "pci")
    assert check(domain, tmp_path).returncode != 0


def with_a_socket() -> list[Path]:
    return [
        example for example in EXAMPLES if "<source mode" in example.read_text(encoding="utf-8")
    ]


def reader_of(example: Path, tmp_path: Path) -> ReaderConfiguration:
    """Reads the part of ccidd.toml in an example's comment."""
    text = example.read_text(encoding="utf-8")
    file = tmp_path / "ccidd.toml"
    file.write_text(text[text.index("[readers") : text.index("-->", text.index("[readers"))])
    (reader,) = load_configuration(file, {}).readers
    return reader


@pytest.mark.parametrize("example", with_a_socket(), ids=name_of)
def test_ccidd_is_at_the_other_end_of_the_socket(example: Path, tmp_path: Path) -> None:
    (device,) = (
        device
        for tag in TRANSPORT
        for device in in_a_domain(example.read_text(encoding="utf-8")).iterfind(f"devices/{tag}")
    )
    source = device.find("source[@mode]")
    assert source is not None
    place = source.get("path") or f"{source.get('host')}:{source.get('service')}"
    reader = reader_of(example, tmp_path)
    assert reader.transport == TRANSPORT[device.tag]
    assert str(getattr(reader, OTHER_END[source.attrib["mode"], device.attrib["type"]])) == place
    assert (source.get("tls") == "yes") == (reader.tls_creds is not None)
    # QEMU reconnects; what listens waits.
    assert (source.find("reconnect") is not None) == (source.get("mode") == "connect")

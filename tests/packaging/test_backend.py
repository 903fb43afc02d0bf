# SPDX-License-Identifier: Apache-2.0
"""The description of ccidd for management software.

Source: QEMU, docs/interop/vhost-user.json, `VhostUserBackend`. It has no type for smart cards, and
software refuses files with a type that it does not know: this file has a directory of its own.
"""

import json
from pathlib import Path

from ccidd.service.cli import capabilities

ROOT = Path(__file__).parents[2]
BACKEND = ROOT / "packaging" / "backends" / "50-ccidd.json"


def test_it_has_what_capabilities_has() -> None:
    backend = json.loads(BACKEND.read_text(encoding="utf-8"))
    said = capabilities()
    assert (backend["type"], backend["features"]) == (said["type"], said["features"])


def test_it_has_the_members_that_the_schema_asks_for() -> None:
    backend = json.loads(BACKEND.read_text(encoding="utf-8"))
    assert backend.keys() == {"description", "type", "binary", "features"}
    assert backend["binary"] == "/usr/bin/ccidd"

# SPDX-License-Identifier: Apache-2.0
"""`ccidd check` looks at the devices of the QEMU that the guests run on."""

import shutil
from pathlib import Path

from ccidd.service.check.finding import Severity
from ccidd.service.check.qemu import look_at_qemu


def test_a_real_qemu_has_the_devices() -> None:
    program = shutil.which("qemu-system-x86_64")
    assert program is not None
    (found,) = look_at_qemu(["usbredir", "vscard"], Path(program))
    assert found.severity is Severity.OK, found

# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from ccidd.service.sandbox import seccomp

AARCH64 = 0xC00000B7
X86_64 = 0xC000003E
"""AUDIT_ARCH_* (linux/audit.h)."""

NEWER = {"fchmodat2"}
"""What the libseccomp of Debian 12 (2.5.4) does not know yet."""


def calls() -> list[str]:
    return " ".join(
        (*seccomp._BASE, *seccomp._OF_MODULES, *seccomp._OF_PROGRAMS, *seccomp._REFUSED)
    ).split()


@pytest.mark.parametrize("architecture", [AARCH64, X86_64])
def test_every_name_is_a_system_call(architecture: int) -> None:
    library = seccomp.find_library()
    resolve = library.seccomp_syscall_resolve_name_arch
    unknown = {name for name in calls() if resolve(architecture, name.encode()) == -1}
    assert unknown <= NEWER


def test_no_name_is_there_twice_and_none_is_allowed_that_leads_out() -> None:
    listed = [name for name in calls() if name not in seccomp._REFUSED]
    assert len(listed) == len(set(listed))
    assert not set(listed) & {
        *("bpf", "ptrace", "process_vm_readv", "process_vm_writev", "userfaultfd", "keyctl"),
        *("perf_event_open", "mount", "move_mount", "unshare", "setns", "io_uring_setup"),
        *("init_module", "kexec_load", "reboot", "open_by_handle_at", "personality", "pidfd_getfd"),
    }


def test_an_architecture_that_nobody_has_tried_has_no_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(OSError, match="no filter has been tried on pdp11"):
        seccomp.find_library()


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_LIBRARY", "libseccomp.so.99")
    with pytest.raises(OSError, match=re.escape("libseccomp.so.99 is not installed")):
        seccomp.find_library()


def test_a_rule_that_is_wrong_is_an_error() -> None:
    made = seccomp.Filter(seccomp.find_library(), 0)
    with pytest.raises(OSError, match="Invalid argument"):
        made.rule(1 << 15, "read")
    made.close()

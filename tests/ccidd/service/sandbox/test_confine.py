# SPDX-License-Identifier: Apache-2.0
"""What a confined process can and cannot do. Each is a process of its own: there is no way back."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.service.sandbox.confine import NOT_CONFINED, Confinement, Mode
from ccidd.service.sandbox.needs import Access, Needs
from sandboxed import needs_here, output_of, program_source, run_sandboxed

NOBODY = 65534

# Answers a system call with an error, as a kernel without it would: a filter before ours.
WITHOUT = """
from ccidd.service.sandbox import seccomp
from ccidd.service.sandbox.privileges import forbid_new_privileges
kernel = seccomp.Filter(seccomp.find_library(), 0x7FFF0000)
kernel.rule(0x00050000 | errno.ENOSYS, "{call}")
kernel.load(logged=False)
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    return directory


@pytest.fixture
def needs(state: Path) -> Needs:
    """What the embedded card needs."""
    return needs_here(state)


@pytest.fixture
def needs_programs(state: Path, tmp_path: Path) -> Needs:
    """What a card on a token needs."""
    return needs_here(state, f"piv,nss=sql:{tmp_path}/nss")


# Files.


def test_a_file_that_nobody_named_is_out_of_reach(tmp_path: Path, needs: Needs) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    program = f"""
print(refusal(open, {str(secret)!r}), refusal(open, {str(secret)!r}, "w"))
print(refusal(os.listdir, {str(tmp_path)!r}), refusal(os.unlink, {str(secret)!r}))
print(refusal(os.mkdir, {str(tmp_path / "new")!r}), refusal(os.truncate, {str(secret)!r}, 0))
"""
    assert output_of(program, needs) == ["EACCES"] * 6
    assert secret.read_text() == "secret"


def test_the_state_is_written_and_replaced(state: Path, needs: Needs) -> None:
    program = f"""
import sqlite3
with sqlite3.connect({str(state / "state.db")!r}) as database:
    database.execute("PRAGMA synchronous=EXTRA")
    database.execute("CREATE TABLE t(x)")
os.mkdir({str(state / "locks")!r})
open({str(state / "locks/a")!r}, "w").close()
os.rename({str(state / "locks/a")!r}, {str(state / "b")!r})
print(os.listdir({str(state / "locks")!r}))
"""
    assert output_of(program, needs) == ["[]"]
    assert (state / "b").exists()


def test_a_directory_for_traces_is_written_and_not_read(tmp_path: Path, needs: Needs) -> None:
    (tmp_path / "old").write_text("old")
    granted = needs | Needs({tmp_path: Access.CREATE})
    program = f"""
with open({str(tmp_path / "new")!r}, "w") as file:
    file.write("new")
os.replace({str(tmp_path / "new")!r}, {str(tmp_path / "trace")!r})
print(refusal(open, {str(tmp_path / "old")!r}), refusal(os.listdir, {str(tmp_path)!r}))
"""
    assert output_of(program, granted) == ["EACCES", "EACCES"]
    assert (tmp_path / "trace").read_text() == "new"


def test_a_directory_for_sockets_takes_sockets_alone(tmp_path: Path, needs: Needs) -> None:
    (tmp_path / "old").write_text("old")
    granted = needs | Needs({tmp_path: Access.BIND})
    program = f"""
import socket
listening = socket.socket(socket.AF_UNIX)
listening.bind({str(tmp_path / "s")!r})
os.unlink({str(tmp_path / "s")!r})
print(refusal(open, {str(tmp_path / "old")!r}), refusal(open, {str(tmp_path / "x")!r}, "w"))
"""
    assert output_of(program, granted) == ["EACCES", "EACCES"]


def test_what_is_open_stays_open(tmp_path: Path, needs: Needs) -> None:
    (tmp_path / "file").write_text("text")
    before = f"file = open({str(tmp_path / 'file')!r})"
    result = run_sandboxed("print(file.read())", needs, before=before)
    assert (result.stdout, result.stderr) == ("text\n", "")


def test_a_path_that_is_not_there_does_no_harm(tmp_path: Path, needs: Needs) -> None:
    granted = needs | Needs(
        {tmp_path / "nowhere": Access.WRITE, Path("/etc/passwd/x"): Access.READ}
    )
    assert output_of("print('here')", granted) == ["here"]


# Programs, threads, other processes.


def test_no_program_is_started_where_none_is_needed(needs: Needs) -> None:
    program = f"""
import subprocess
print(refusal(subprocess.run, [{sys.executable!r}, "-c", ""]), refusal(os.fork))
print(refusal(os.execv, {sys.executable!r}, ["python"]))
"""
    first, second, third = output_of(program, needs)
    assert {first, second} <= {"ENOSYS", "EPERM"}
    assert third == "EPERM"


def test_threads_are_started_and_confined(tmp_path: Path, needs: Needs) -> None:
    (tmp_path / "secret").touch()
    program = f"""
import threading
thread = threading.Thread(target=lambda: print(refusal(open, {str(tmp_path / "secret")!r})))
thread.start()
thread.join()
"""
    assert output_of(program, needs) == ["EACCES"]


def test_programs_that_are_needed_are_confined_as_well(
    tmp_path: Path, needs_programs: Needs
) -> None:
    secret = tmp_path / "secret"
    secret.touch()
    program = f"""
import subprocess
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "print(open('/proc/self/status').read())"], check=True)
print(subprocess.run(["cat", {str(secret)!r}], stderr=subprocess.DEVNULL).returncode)
print(refusal(subprocess.run, [{str(tmp_path / "program")!r}]))
"""
    (tmp_path / "program").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "program").chmod(0o755)
    words = output_of(program, needs_programs)
    status = dict(pairwise(words))
    assert (status["NoNewPrivs:"], status["Seccomp:"]) == ("1", "2")
    assert int(status["CapEff:"], 16) == int(status["CapPrm:"], 16) == 0
    assert words[-2:] == ["1", "EACCES"]


def test_other_processes_are_left_alone(needs_programs: Needs) -> None:
    """Neither debugged nor signalled; what was started in the sandbox is signalled."""
    program = f"""
import ctypes, signal, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
print(refusal(lambda: check(libc.ptrace(0, 0, 0, 0))))
print(refusal(os.kill, {os.getpid()}, 0))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
child.kill()
print(child.wait())
"""
    granted = replace(needs_programs, signals=False)
    assert output_of(program, granted) == ["EPERM", "EPERM", f"-{int(signal.SIGKILL)}"]


def test_namespaces_are_not_made(needs_programs: Needs) -> None:
    """In a user namespace a process would have all capabilities again."""
    program = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, SIGCHLD = 0x10000000, 17
for result in (libc.unshare(NEWUSER), libc.syscall(56, NEWUSER | SIGCHLD, 0, 0, 0, 0)):
    print(result, errno.errorcode[ctypes.get_errno()])
"""
    assert output_of(program, needs_programs) == ["-1", "ENOSYS"] * 2


def test_nothing_is_typed_on_the_terminal(needs_programs: Needs) -> None:
    """The kernel looks at the lower half of the request alone, and so does the filter."""
    program = """
import ctypes, fcntl, termios
master, slave = terminal
print(refusal(fcntl.ioctl, slave, termios.TIOCSTI, b"x"), refusal(os.isatty, slave))
libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl(slave, ctypes.c_ulong(termios.TIOCSTI | 1 << 32), b"x")
print(errno.errorcode[ctypes.get_errno()])
"""
    result = run_sandboxed(program, needs_programs, before="terminal = os.openpty()")
    assert result.stdout.split() == ["EPERM", "None", "EPERM"]


# Privileges.


def test_capabilities_are_gone_and_groups_are_not(needs: Needs) -> None:
    program = """
for line in open("/proc/self/status"):
    if line.startswith(("Cap", "NoNew", "Seccomp:")):
        print(line)
print(os.getgroups() == groups)
"""
    result = run_sandboxed(program, needs, before="groups = os.getgroups()")
    *lines, groups = result.stdout.split("\n\n")
    status = dict(line.split(":\t") for line in lines)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0
    if os.geteuid() == 0:
        assert int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert groups == "True\n"


def test_no_core_is_dumped(tmp_path: Path, needs: Needs) -> None:
    before = f"""
import resource
os.chdir({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    program = "import signal; os.kill(os.getpid(), signal.SIGSEGV)"
    result = run_sandboxed(program, needs | Needs({tmp_path: Access.CREATE}), before=before)
    assert result.returncode == -signal.SIGSEGV
    assert not list(tmp_path.glob("core*"))


@pytest.mark.parametrize(("mode", "status"), [(Mode.OFF, 0), (Mode.ON, 1)])
def test_the_same_user_does_not_look_into_it(needs: Needs, mode: Mode, status: int) -> None:
    user = os.geteuid() or NOBODY
    # After the change of users it is as a process that was started by this one.
    before = f"""
import ctypes
os.setresuid({user}, {user}, {user})
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
"""
    source = program_source("print(os.getpid(), flush=True); input()", needs, mode, before)
    with subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin
        assert process.stdout
        memory = f"/proc/{int(process.stdout.readline())}/environ"
        result = subprocess.run(["cat", memory], user=user, check=False, capture_output=True)
        process.stdin.close()
    assert result.returncode == status


# Sockets.


def test_there_are_no_sockets_but_those_that_are_needed(needs: Needs) -> None:
    program = """
import socket
print(refusal(socket.socket, socket.AF_INET), refusal(socket.socket, socket.AF_NETLINK, 3))
print(refusal(socket.socket, socket.AF_VSOCK), refusal(socket.socket, socket.AF_UNIX))
"""
    assert output_of(program, needs) == ["ENOSYS", "ENOSYS", "ENOSYS", "None"]


def test_tcp_goes_to_the_ports_that_are_named(needs: Needs) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as named,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        ports = [each.getsockname()[1] for each in (named, other)]
        granted = replace(needs, internet=True, connects_to=frozenset(ports[:1]))
        program = f"""
import socket
for port in {ports}:
    print(refusal(socket.create_connection, ("127.0.0.1", port)))
print(refusal(socket.create_server, ("127.0.0.1", 0)))
"""
        assert output_of(program, granted) == ["None", "EACCES", "EACCES"]


# What came of it.


@pytest.mark.parametrize(
    ("call", "part", "reason"),
    [
        ("landlock_create_ruleset", "landlock", "Function not implemented"),
        ("seccomp", "seccomp", "the kernel takes no filter"),
    ],
)
def test_a_part_that_is_missing_is_said_loudly_and_done_without(
    needs: Needs, call: str, part: str, reason: str
) -> None:
    result = run_sandboxed(
        "print(confinement.missing, 'no-capabilities' in confinement.in_force)",
        needs,
        mode=Mode.AUTO,
        before=WITHOUT.format(call=call),
    )
    assert result.stdout == f"{{{part!r}: {reason!r}}} True\n"
    (line,) = result.stderr.splitlines()
    assert "level=warning event=confined_in_part" in line
    assert f'{part.replace("-", "_")}="{reason}"' in line


@pytest.mark.parametrize(
    ("call", "part", "reason"),
    [
        ("landlock_create_ruleset", "landlock", "Function not implemented"),
        ("seccomp", "seccomp", "the kernel takes no filter"),
    ],
)
def test_a_part_that_is_missing_is_refused_where_it_was_asked_for(
    needs: Needs, call: str, part: str, reason: str
) -> None:
    result = run_sandboxed("", needs, before=WITHOUT.format(call=call))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"ccidd.errors.UserError: --sandbox=on: there is no {part}: {reason};"
        " --sandbox=auto does without"
    )


def test_capabilities_that_are_not_there_need_no_dropping(needs: Needs) -> None:
    """systemd's units forbid the call as well."""
    before = f"""
from ccidd.service.sandbox.privileges import drop_capabilities
drop_capabilities()
{WITHOUT.format(call="capset")}
"""
    result = run_sandboxed("print(confinement.missing)", needs, before=before)
    assert (result.stdout, result.stderr) == ("{}\n", "")


def test_without_a_sandbox_that_is_said_too(needs: Needs) -> None:
    result = run_sandboxed(
        "print(confinement.granted, confinement.in_force, confinement.missing)",
        needs,
        mode=Mode.OFF,
    )
    assert result.stdout == "None () {'sandbox': '--sandbox=off'}\n"
    assert 'level=warning event=not_confined reason="--sandbox=off"' in result.stderr


def test_all_is_in_force_here(needs: Needs) -> None:
    program = "print(*confinement.in_force, confinement.missing)"
    assert output_of(program, needs) == [
        *("no-dumps", "no-new-privileges", "landlock", "no-capabilities", "seccomp"),
        "{}",
    ]


def test_other_threads_come_after_it(needs: Needs) -> None:
    before = """
import threading
from ccidd.service.sandbox import parts
parts._LAST_THREAD = 0
threading.Thread(target=threading.Event().wait, name="early", daemon=True).start()
"""
    result = run_sandboxed("", needs, before=before)
    assert result.stderr.splitlines()[-1] == "RuntimeError: there is a thread already: early"


def test_what_is_needed_later_is_held_against_what_was_granted(tmp_path: Path) -> None:
    confined = Confinement(Mode.AUTO, granted=Needs({tmp_path: Access.READ}))
    confined.check(Needs({tmp_path / "file": Access.READ}))
    with pytest.raises(UserError, match=r"^/x is outside of the sandbox"):
        confined.check(Needs({Path("/x"): Access.READ}))
    NOT_CONFINED.check(Needs({Path("/x"): Access.READ}, programs=True))

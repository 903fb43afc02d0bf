# SPDX-License-Identifier: Apache-2.0
"""seccomp: the system calls that this process, and what it starts, can make from now on.

The filter is a list of what is allowed, made by libseccomp, the library that systemd, QEMU and
swtpm use. It knows the calls of each architecture by their names, and is there wherever systemd is.
Its own Python binding is not on PyPI; `pyseccomp` 0.1.2 (2021) wraps the same library with ctypes,
untyped and without a release since; `seccompy` 0.2 (2026) has tables of its own, which somebody
must keep. So the six functions that are needed are called here.

What is not on the list is answered with an error and told to the kernel's log, rather than with a
kill. A kill takes all guests' readers away for one call that a newer C library or a vendor's
PKCS#11 module makes, and a guest that can have a module make it could have it at any time. ENOSYS,
"no such call", has libraries take an older call; EPERM is for what programs do not do without.

Source: seccomp(2); seccomp_init(3), seccomp_rule_add(3), seccomp_attr_set(3), libseccomp 2.5.
"""

import contextlib
import ctypes
import errno
import os
import platform
import socket
from typing import Final

from ccidd.service.sandbox.needs import Needs

_LIBRARY: Final = "libseccomp.so.2"

ARCHITECTURES: Final = ("x86_64", "aarch64")
"""Where the list is known to be right, and the flags are clone's first argument."""

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000

_ACT_BADARCH: Final = 2
_CTL_TSYNC: Final = 4
_CTL_LOG: Final = 6

_CMP_MASKED_EQ: Final = 7

_BASE: Final = (
    # memory
    "brk madvise membarrier mmap mprotect mremap msync munmap",
    # files
    "access chdir chmod chown close close_range copy_file_range dup dup2 dup3 faccessat faccessat2",
    "fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync",
    "fgetxattr flistxattr flock fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64",
    "getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lgetxattr",
    "link linkat listxattr llistxattr lseek lstat mkdir mkdirat newfstatat open openat openat2",
    "pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readlink readlinkat readv rename",
    "renameat renameat2 rmdir sendfile splice stat statfs statx symlink symlinkat sync",
    "sync_file_range syncfs truncate umask unlink unlinkat utime utimensat utimes write writev",
    # events, pipes, sockets
    "accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2",
    "epoll_wait eventfd eventfd2 getpeername getsockname getsockopt listen pipe pipe2 poll ppoll",
    "pselect6 recvfrom recvmmsg recvmsg select sendmmsg sendmsg sendto setsockopt shutdown",
    "socketpair",
    # time
    "alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer",
    "time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create",
    "timerfd_gettime timerfd_settime times",
    # signals
    "kill pause pidfd_open pidfd_send_signal restart_syscall rt_sigaction rt_sigpending",
    "rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo",
    "sigaltstack signalfd signalfd4 tgkill tkill",
    # the process and its threads
    "arch_prctl capget clone3 exit exit_group futex futex_waitv get_robust_list getcpu getegid",
    "geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid",
    "getresuid getrlimit getrusage getsid gettid getuid prctl prlimit64 rseq",
    "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam",
    "sched_getscheduler sched_rr_get_interval sched_yield set_robust_list set_tid_address sysinfo",
    "uname wait4 waitid",
)
"""What Python, SQLite and OpenSSL make use of, and what is as harmless.

Of two verdicts the stricter counts (seccomp(2)), so `exceptions` has the last word on some.
"""

_OF_MODULES: Final = (
    "get_mempolicy memfd_create mlock mlock2 mlockall munlock munlockall process_madvise",
    "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv",
    "msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget",
    "name_to_handle_at readahead tee vmsplice",
    "sched_setaffinity sched_setattr sched_setparam sched_setscheduler setpriority setrlimit",
)
"""What the vendors' PKCS#11 modules need beside it."""

_OF_PROGRAMS: Final = (
    "execve execveat fork vfork setpgid setsid",
    "fremovexattr fsetxattr lremovexattr lsetxattr mknod mknodat removexattr setxattr",
    # Without privileges these change nothing, and some programs take it ill not to be let try.
    "capset ioprio_get ioprio_set setfsgid setfsuid setgid setgroups setregid setresgid setresuid",
    "setreuid setuid",
)
"""What it takes to start programs, and what pinentries need."""

_REFUSED: Final = ("execve", "execveat", "ptrace")
"""What is answered with EPERM unless it is allowed."""

_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
"""Requests of ioctl(2) that type on the terminal, on which whoever started ccidd is."""

_CLONE_THREAD: Final = 0x00010000
_CLONE_NEW: Final = 0x7E020000
"""clone(2): all flags that make namespaces, in which a process has privileges again."""

_WORD: Final = 0xFFFFFFFF


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def find_library() -> ctypes.CDLL:
    """Loads libseccomp.

    Raises:
        OSError: It is not installed, or the architecture is one that nobody has tried.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(f"no filter has been tried on {machine}")
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise OSError(f"{_LIBRARY} is not installed") from error
    library.seccomp_init.restype = ctypes.c_void_p
    return library


class Filter:
    """A filter that is being made.

    Args:
        library: libseccomp.
        default: what becomes of a call that no rule is about.
    """

    def __init__(self, library: ctypes.CDLL, default: int) -> None:
        self._library = library
        self._filter = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
        # Calls of another architecture are numbered otherwise.
        self._set(_ACT_BADARCH, _KILL_PROCESS)

    def rule(self, action: int, call: str, *conditions: tuple[int, int, int, int]) -> None:
        """Adds a rule.

        Args:
            action: what becomes of the call.
            call: its name; one that this architecture has not is left out.
            conditions: each an argument's index, an operator and its data, all of which hold.
        """
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        compare = (_Compare * len(conditions))(*(_Compare(*each) for each in conditions))
        if number == -1:
            # A newer call than the library, which cannot be made by what is older.
            return
        _check(
            self._library.seccomp_rule_add_array(
                self._filter, ctypes.c_uint32(action), number, len(conditions), compare
            )
        )

    def load(self, *, logged: bool) -> None:
        """Has the kernel use it, for all threads.

        Args:
            logged: whether it tells what it refuses.
        """
        self._set(_CTL_TSYNC, 1)
        if logged:
            self._set(_CTL_LOG, 1)
        if self._library.seccomp_load(self._filter) < 0:
            # Which error the kernel had, the library does not tell.
            raise OSError("the kernel takes no filter")

    def close(self) -> None:
        """Frees its memory; the kernel has a copy."""
        self._library.seccomp_release(self._filter)

    def _set(self, attribute: int, value: int) -> None:
        _check(self._library.seccomp_attr_set(self._filter, attribute, ctypes.c_uint32(value)))


def allow_calls(needs: Needs) -> None:
    """Restricts all threads, and what they start, to the system calls that are needed.

    Args:
        needs: what is needed.

    Raises:
        OSError: There is no libseccomp, or the kernel refuses.
    """
    library = find_library()
    with contextlib.closing(exceptions(library)) as first:
        first.load(logged=False)
    with contextlib.closing(list_of_calls(library, needs)) as second:
        second.load(logged=True)


def exceptions(library: ctypes.CDLL) -> Filter:
    """Makes a filter for what the list cannot tell apart, and what is refused without a word."""
    made = Filter(library, _ALLOW)
    # The C library asks for it with each thread, and takes clone where it is missing. What it asks
    # for is in memory, where no filter sees it.
    made.rule(_ERRNO | errno.ENOSYS, "clone3")
    for request in (_TIOCSTI, _TIOCLINUX):
        made.rule(_ERRNO | errno.EPERM, "ioctl", _is(1, request))
    return made


def list_of_calls(library: ctypes.CDLL, needs: Needs) -> Filter:
    """Makes the filter with the list; see `allow_calls`."""
    made = Filter(library, _ERRNO | errno.ENOSYS)
    calls = _calls(needs)
    for call in sorted(calls):
        made.rule(_ALLOW, call)
    for call in _REFUSED:
        if call not in calls:
            made.rule(_ERRNO | errno.EPERM, call)
    # Another program begins as a process; without any, there are only threads.
    bits, value = (_CLONE_NEW, 0) if needs.programs else (_CLONE_NEW | _CLONE_THREAD, _CLONE_THREAD)
    made.rule(_ALLOW, "clone", (0, _CMP_MASKED_EQ, bits, value))
    # A resolver of names asks the kernel for addresses, over AF_NETLINK.
    further = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK) if needs.internet else ()
    for family in (socket.AF_UNIX, *further):
        made.rule(_ALLOW, "socket", _is(0, family))
    return made


def _calls(needs: Needs) -> list[str]:
    groups = list(_BASE)
    if needs.modules or needs.programs:
        groups += _OF_MODULES
    if needs.programs:
        groups += _OF_PROGRAMS
    return " ".join(groups).split()


def _is(argument: int, value: int) -> tuple[int, int, int, int]:
    """A condition on an int; the kernel does not look at the upper half of the register."""
    return argument, _CMP_MASKED_EQ, _WORD, value


def _check(result: int) -> None:
    """Raises what libseccomp reports."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))

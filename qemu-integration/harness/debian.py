# SPDX-License-Identifier: Apache-2.0
"""Debian file systems from mmdebstrap, each made once and kept under `.cache/`.

What is kept lies in a directory named for a hash of everything that it was made from. It is made
under another name and renamed when it is complete, so a build that was killed leaves nothing that
could be taken for a result.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def cache_key(inputs: Iterable[bytes]) -> str:
    """Return the name of what is made from these inputs: 12 hexadecimal digits.

    Args:
        inputs: All that the result depends on; their order and their boundaries count.
    """
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(len(item).to_bytes(8, "big") + item)
    return digest.hexdigest()[:12]


def cached(
    kind: str,
    name: str,
    inputs: Iterable[bytes],
    build: Callable[[Path, Path], None],
    *,
    cache: Path = CACHE,
) -> Path:
    """Return the directory `.cache/<kind>/<name>-<key of inputs>`, building it where it is missing.

    A successful build removes what the same name was built from other inputs before.

    Args:
        kind: The directory under the cache.
        name: What is built, unique in its kind.
        inputs: All that the result depends on.
        build: Fills the (empty) directory given first; the second argument is a file for its log.
        cache: Where results are kept.

    Raises:
        HarnessError: The build failed.
    """
    place = cache / kind
    result = place / f"{name}-{cache_key(inputs)}"
    if result.is_dir():
        return result
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place / f"{name}.lock"):
        if result.is_dir():
            return result
        for left_behind in place.glob(f".{name}-*"):
            shutil.rmtree(left_behind)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place))
        unfinished.chmod(0o755)
        try:
            log = place / f"{name}.log"
            log.unlink(missing_ok=True)
            build(unfinished, log)
            unfinished.rename(result)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for outdated in place.glob(f"{name}-*"):
            if outdated != result:
                shutil.rmtree(outdated)
    return result


def mmdebstrap(release: str, tarball: Path, log: Path, options: Sequence[str]) -> None:
    """Make a tarball of a Debian file system; no root rights are needed.

    Args:
        release: Debian's name for it, such as "bookworm".
        tarball: The file to write.
        log: Where the output of mmdebstrap goes.
        options: More options for it: variant, packages, hooks.

    Raises:
        HarnessError: mmdebstrap is missing or failed.
    """
    argv = ["mmdebstrap", *options, f"--keyring={_KEYRING}", *_proxy_options()]
    argv += ["--format=tar", release, str(tarball)]
    mirror = _mirror()
    if mirror is not None:
        argv.append(mirror)
    run_logged(argv, log)


def run_logged(argv: Sequence[str], log: Path) -> None:
    """Run a build step to its end; it is told to stop where this process dies first.

    Args:
        argv: The command.
        log: The command's output is added to it.

    Raises:
        HarnessError: The program is missing or failed; the error shows the end of the log.
    """
    if shutil.which(argv[0]) is None:
        raise HarnessError(f"{argv[0]} is missing: ./dev installs it, on Debian")
    with log.open("ab") as output:
        finished = subprocess.run(
            ["setpriv", "--pdeathsig=TERM", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if finished.returncode != 0:
        raise HarnessError(f"{argv[0]} failed with status {finished.returncode}\n{tail(log)}")


def say(text: str) -> None:
    """Tell the person who waits what takes long now."""
    print(f"harness: {text}", file=sys.stderr, flush=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _mirror() -> str | None:
    """Return the Debian mirror of this host's apt; None leaves the choice to mmdebstrap."""
    if shutil.which("apt-get") is None:
        return None
    listed = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format=$(REPO_URI)|$(ORIGIN)|$(LABEL)",
            "Created-By: Packages",
        ],
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    for line in listed.stdout.splitlines():
        uri, origin, label = line.split("|")
        # Origin and label are empty before the first `apt-get update`.
        if (origin, label) == ("Debian", "Debian") or (
            not origin and re.fullmatch(r"https?://.*/debian/?", uri)
        ):
            return uri
    return None


def _proxy_options() -> list[str]:
    """Return options that hand apt's proxy of this host on to mmdebstrap's apt."""
    if shutil.which("apt-config") is None:
        return []
    dumped = subprocess.run(
        ["apt-config", "dump", "--no-empty", "Acquire"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    proxies = re.findall(r"(?m)^Acquire::https?::Proxy.*;$", dumped.stdout)
    return [f"--aptopt={proxy}" for proxy in proxies]

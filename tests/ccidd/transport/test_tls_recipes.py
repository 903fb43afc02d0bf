# SPDX-License-Identifier: Apache-2.0
"""The commands in docs/access.md, carried out."""

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
import trio
from structlog.typing import EventDict

from ccidd.service.allow import parse_allow
from ccidd.transport.endpoint import Connector, listen_at
from ccidd.transport.tls import Encrypted, Role, X509Credentials, peer_of

PAGE = Path(__file__).parents[3] / "docs/access.md"
ISSUING, USING, REVOKING = re.findall(
    r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE
)


def run(commands: str, directory: Path) -> None:
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=directory, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_revoked", [False, True])
async def test_certificates_are_made_and_revoked_as_the_page_says(
    tmp_path: Path, logs: list[EventDict], *, is_revoked: bool
) -> None:
    run(ISSUING, tmp_path)
    if is_revoked:
        run(REVOKING, tmp_path)
    found = re.search(r"--allow=(\S+)", USING)
    assert found is not None
    served: list[str | None] = []
    ended = trio.Event()

    async def serve(stream: trio.abc.Stream) -> bool:
        served.append(peer_of(stream))
        return True

    async def connect(stream: trio.abc.Stream) -> bool:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.receive_some(1)
        ended.set()
        return False

    ours = X509Credentials(tmp_path / "ccidd", Role.SERVER)
    theirs = X509Credentials(tmp_path / "qemu", Role.CLIENT)
    listener = listen_at("127.0.0.1", 0, Encrypted(ours, parse_allow([found[1]])))
    port = listener._listeners[0].socket.getsockname()[1]
    admission = Encrypted(theirs, None, "cards.example.org")
    connector = Connector(f"127.0.0.1:{port}", admission=admission)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.run, serve)
            await nursery.start(connector.run, connect)
            await ended.wait()
            nursery.cancel_scope.cancel()
    if is_revoked:
        assert not served
        assert "certificate revoked" in " ".join(entry.get("reason", "") for entry in logs)
    else:
        (name,) = served[:1]
        assert name is not None
        assert name.startswith("alice.example.org (127.0.0.1:")

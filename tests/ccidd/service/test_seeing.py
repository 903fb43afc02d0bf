# SPDX-License-Identifier: Apache-2.0
"""A service that is used, as its log and its metrics show it."""

from pathlib import Path

import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from programs import CCIDD, connect_when_ready, run_ccidd, started
from qemu_peer import QemuPeer

SELECT = bytes.fromhex("00A4040009A0000003080000100000")
WRONG = bytes.fromhex("00200080083638353339373134")


async def use(socket: Path) -> None:
    """Connects as a guest, and tries a PIN."""
    with trio.fail_after(30):
        async with await connect_when_ready(socket) as stream, trio.open_nursery() as nursery:
            peer = QemuPeer(stream)
            nursery.start_soon(peer.run)
            await peer.until(lambda: peer.atr)
            await peer.transmit(SELECT)
            assert await peer.transmit(WRONG) == bytes.fromhex("63C2")
            nursery.cancel_scope.cancel()


async def test_what_a_guest_does_is_seen(tmp_path: Path) -> None:
    log, metrics = tmp_path / "log", tmp_path / "ccidd.prom"
    options = ["--transport=vscard", f"--state-dir={tmp_path / 'state'}", "--log-level=debug"]
    files = [f"--socket-path={tmp_path / 'socket'}", f"--metrics-file={metrics}"]
    with started([*CCIDD, *options, *files], log=log) as process:
        await use(tmp_path / "socket")
        process.terminate()
        process.wait()
    logged = log.read_text()
    assert 'text="SELECT A00000030800001000 (PIV) Le=00 → ' in logged
    assert 'text="VERIFY 80 (application PIN) → 63C2 (2 tries left)"' in logged
    assert "event=pin_failed slot=0 pin=80 tries_left=2" in logged
    for secret in (WRONG[5:].decode(), WRONG[5:].hex()):
        assert secret not in logged
    # The last numbers are there, however short it was.
    families = text_string_to_metric_families(metrics.read_text())  # type: ignore[no-untyped-call]
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values["ccidd_connections_total"] == 1
    assert values["ccidd_pin_failures_total"] == 1
    assert values["ccidd_insertions_total"] == 1


@pytest.mark.parametrize("arguments", [["--metrics-file="], ["--log-format=xml"]])
def test_wrong_options_are_refused(arguments: list[str]) -> None:
    result = run_ccidd("--socket-path=x", *arguments)
    assert result.returncode == 2
    assert arguments[0].split("=")[0] in result.stderr

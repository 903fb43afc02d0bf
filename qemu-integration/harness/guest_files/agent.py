#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""The guest's agent: runs commands that the host sends over a virtio-serial port.

Each message is one line of JSON. The agent first says `{"hello": true}`. The host sends
`{"id", "argv", "input", "timeout"}`, with the input in base64 and the timeout in seconds or null,
and gets `{"id", "status", "stdout", "stderr", "timed_out"}`; the status is subprocess's. A command
that could not be started is answered with `{"id", "error"}`. `{"id", "cancel": true}` kills a
command that still runs. Commands run at the same time.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import threading

PORT = "/dev/virtio-ports/org.ccidd.agent"
_LEFT_BEHIND_SECONDS = 5.0
"""How long a killed command's children may hold its output open."""


class Agent:
    """Answers the host's requests until the host is gone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sending = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        self._send({"hello": True})
        with os.fdopen(os.dup(self._port), "rb") as requests:
            for line in requests:
                try:
                    request = json.loads(line)
                except ValueError:
                    # The rest of a message that the host gave up on.
                    continue
                if "cancel" in request:
                    self._kill(request["id"])
                else:
                    threading.Thread(target=self._run, args=[request], daemon=True).start()

    def _run(self, request: dict[str, object]) -> None:
        number, argv, timeout = request["id"], request["argv"], request["timeout"]
        assert isinstance(number, int)
        assert isinstance(argv, list)
        assert timeout is None or isinstance(timeout, int | float)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._send({"id": number, "error": f"{argv[0]}: {error.strerror}"})
            return
        self._running[number] = process
        timed_out = False
        given = base64.b64decode(str(request["input"]))
        try:
            stdout, stderr = process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            self._kill(number)
            stdout, stderr = self._rest(process)
        del self._running[number]
        self._send(
            {
                "id": number,
                "status": process.returncode,
                "stdout": base64.b64encode(stdout).decode(),
                "stderr": base64.b64encode(stderr).decode(),
                "timed_out": timed_out,
            }
        )

    @staticmethod
    def _rest(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        try:
            return process.communicate(timeout=_LEFT_BEHIND_SECONDS)
        except subprocess.TimeoutExpired as expired:
            process.wait()
            return expired.output or b"", expired.stderr or b""

    def _kill(self, number: int) -> None:
        process = self._running.get(number)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _send(self, message: dict[str, object]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._sending:
            while data:
                data = data[os.write(self._port, data) :]


if __name__ == "__main__":
    Agent(os.open(PORT, os.O_RDWR)).serve()

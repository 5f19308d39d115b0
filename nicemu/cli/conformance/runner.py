"""Runs tests through a fork server, some at once."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nicemu
from nicemu.cli.conformance.child import OUTPUT, RESULT
from nicemu.cli.conformance.outcome import Outcome, one_line

WARM_UP_LIMIT = 900.0  # seconds, for a cold compile of the engine on a slow machine
TICK = 0.5  # seconds between two looks at the clock


class ServerError(Exception):
    """The server did not start, or died. `str()` is one line; `detail` a traceback, if there is one."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


@dataclass(frozen=True)
class Job:
    """What the tests of a run have in common. `config`: a file or a shipped lab; `overrides`: fields on top of it."""

    folder: Path
    limit: float = 60.0
    config: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    hash_seed: int = 0


class Runner:
    """Starts the server and ends what is left of it when it is closed. `running`: since when each test runs."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.running: dict[str, float] = {}
        self.facts: dict[str, Any] = {}
        """What the server told of itself: `runs_as`, `device`."""
        self._root = Path(tempfile.mkdtemp(prefix="nicemu-conformance-"))
        self._numbers: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._received = b""

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until the engine is loaded. Raises ServerError."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                self._command(theirs.fileno()),
                cwd=self._root,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._channel, self._received = ours, b""
        facts = self._receive(WARM_UP_LIMIT)
        if facts is None:
            raise ServerError(f"the engine was not ready after {WARM_UP_LIMIT:g} s")
        if "error" in facts:
            raise ServerError(one_line(facts["error"]), facts["detail"])
        self.facts = facts

    def run_all(self, tests: list[str], jobs: int, tick: Callable[[], None] = lambda: None) -> Iterator[Outcome]:
        """The outcomes, in the order in which the tests end. `tick` is called about each half second."""
        waiting = deque(tests)
        while waiting or self.running:
            if self._process is None:
                self.start()
            while waiting and len(self.running) < jobs:
                self._request(waiting.popleft())
            tick()
            try:
                answer = self._receive(TICK)
            except ServerError as error:
                dead = [self._outcome_without_result(test, str(error)) for test in self.running]
                self._stop_server()
                self.running.clear()
                yield from dead
                continue
            if answer is not None:
                del self.running[answer["test"]]
                yield self._outcome(**answer)

    def close(self) -> None:
        """Kill what is still running and remove the scratch folders."""
        self._stop_server()
        shutil.rmtree(self._root, ignore_errors=True)

    def _stop_server(self) -> None:
        if self._channel is not None:
            self._channel.close()  # the server kills its tests and ends
            self._channel = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=2)
            self._process.kill()  # and takes its tests along (PR_SET_PDEATHSIG)
            self._process.wait()
            self._process = None

    def _command(self, channel: int) -> list[str]:
        config = self.job.config
        job = {
            "folder": str(self.job.folder),
            "programs": str(self._root / "bin"),
            "config": str(Path(config).resolve()) if config and Path(config).is_file() else config,
            "overrides": self.job.overrides,
            "seed": self.job.hash_seed,
        }
        return [sys.executable, "-m", "nicemu.cli.conformance.server", str(channel), json.dumps(job)]

    def _environment(self) -> dict[str, str]:
        package = str(Path(nicemu.__file__).parent.parent)
        path = os.environ.get("PYTHONPATH")
        return dict(
            os.environ,
            PYTHONPATH=f"{package}{os.pathsep}{path}" if path else package,
            PYTHONHASHSEED=str(self.job.hash_seed),
        )

    def _scratch(self, test: str) -> Path:
        number = self._numbers.setdefault(test, len(self._numbers) + 1)
        return self._root / str(number)

    def _request(self, test: str) -> None:
        scratch = self._scratch(test)
        scratch.mkdir()
        message = {"test": test, "scratch": str(scratch), "limit": self.job.limit}
        self.running[test] = time.monotonic()
        assert self._channel is not None
        with contextlib.suppress(OSError):  # a dead server is noticed where its answers are read
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        """The next message, None after `timeout` seconds. Raises ServerError if the server is gone."""
        assert self._channel is not None and self._process is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._received:
            self._channel.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = self._channel.recv(65536)
            except TimeoutError:
                return None
            except ConnectionError:
                data = b""
            if not data:
                raise ServerError(f"the test server: {death(self._process.wait())}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _outcome(self, test: str, seconds: float, code: int | None) -> Outcome:
        scratch = self._scratch(test)
        text = _tail(scratch / OUTPUT)
        try:
            if code is None:
                return Outcome(test, "TIMEOUT", f"killed after {self.job.limit:g} s", seconds, text)
            result = json.loads((scratch / RESULT).read_text())
            if code != 0:
                return Outcome(test, "ERROR", f"{death(code)} after its result", seconds, text)
        except (OSError, ValueError):
            return Outcome(test, "ERROR", f"{death(code or 0)}", seconds, text)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return Outcome(test, result["status"], one_line(result["reason"]), seconds, result["detail"])

    def _outcome_without_result(self, test: str, reason: str) -> Outcome:
        return Outcome(
            test, "ERROR", reason, time.monotonic() - self.running[test], _tail(self._scratch(test) / OUTPUT)
        )


def _tail(file: Path) -> str:
    try:
        return file.read_bytes()[-20_000:].decode(errors="replace")
    except OSError:
        return ""


def death(code: int) -> str:
    """How a process ended that ought not to have."""
    if code < 0:
        return f"the process was killed by {signal.Signals(-code).name}"
    return f"the process ended with status {code} and no result"

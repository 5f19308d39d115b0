"""Runs tests, each in a process of its own with a time limit, some at once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nicemu
from nicemu.cli.conformance.child import RESULT

WARM_UP_LIMIT = 900.0  # seconds, for a cold compile of the engine on a slow machine


@dataclass(frozen=True)
class Outcome:
    """What became of one test. `status` is PASS, FAIL, ERROR, TIMEOUT or SKIP."""

    test: str
    status: str
    reason: str
    seconds: float
    detail: str = ""  # a traceback, or what the process said before it died

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Runner:
    """Starts the processes and ends those that are left when it is closed."""

    def __init__(self, folder: Path, limit: float, config: str | None = None) -> None:
        self.folder = folder
        self.limit = limit
        self.config = config
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def run_all(self, tests: list[str], jobs: int) -> Iterator[Outcome]:
        """The outcomes, in the order in which the tests end."""
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            waiting = [pool.submit(self.run, test, self.limit) for test in tests]
            try:
                for done in as_completed(waiting):
                    yield done.result()
            finally:
                for each in waiting:
                    each.cancel()
                self.close()

    def warm_up(self) -> Outcome:
        """Open a device once, so that compiled code is in the cache before the first test's clock runs."""
        return self.run("", WARM_UP_LIMIT)

    def run(self, test: str, limit: float) -> Outcome:
        """Run one test in a new process group, which is killed at the end whatever is left in it."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="nicemu-conformance-") as name:
            scratch = Path(name)
            said = scratch / "output.txt"
            status = self._run_process(self._command(scratch, test), scratch, said, limit)
            seconds = time.monotonic() - began
            text = said.read_bytes()[-20_000:].decode(errors="replace")
            if status is None:
                return Outcome(test, "TIMEOUT", f"killed after {limit:g} s", seconds, text)
            try:
                result = json.loads((scratch / RESULT).read_text())
            except (OSError, ValueError):
                return Outcome(test, "ERROR", _death(status), seconds, text)
            return Outcome(test, result["status"], _one_line(result["reason"]), seconds, result["detail"])

    def close(self) -> None:
        """Kill what is still running and start nothing more."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _kill_group(process)

    def _command(self, scratch: Path, test: str) -> list[str]:
        command = [sys.executable, "-m", "nicemu.cli.conformance.child", str(scratch), str(self.folder)]
        return [*command, test] if test else command

    def _environment(self) -> dict[str, str]:
        package = str(Path(nicemu.__file__).parent.parent)
        path = os.environ.get("PYTHONPATH")
        values = dict(os.environ, PYTHONPATH=f"{package}{os.pathsep}{path}" if path else package)
        if self.config:
            path_or_name = str(Path(self.config).resolve()) if Path(self.config).is_file() else self.config
            values["NICEMU_CONFORMANCE_CONFIG"] = path_or_name
        return values

    def _run_process(self, command: list[str], scratch: Path, said: Path, limit: float) -> int | None:
        """The exit status, or None after `limit` seconds."""
        with said.open("wb") as output:
            with self._lock:
                if self._closed:
                    return -signal.SIGTERM
                process = subprocess.Popen(
                    command,
                    cwd=scratch,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                return process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _kill_group(process)
                process.wait()
                with self._lock:
                    self._running.discard(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _death(status: int) -> str:
    if status < 0:
        return f"the process was killed by {signal.Signals(-status).name}"
    return f"the process ended with status {status} and no result"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."

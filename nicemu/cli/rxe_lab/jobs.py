"""The jobs of the comparison: the two groups of tests on nicemu, on nicemu with the profile `rxe`, and on rxe."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicemu.cli.conformance import runner as conformance
from nicemu.cli.rxe_lab.records import JobResult, Record
from nicemu.cli.rxe_lab.schedule import Listener
from nicemu.cli.rxe_lab.tail import Tail

TICK = 0.3  # seconds between two looks at a process
SHOWN = 6
"""Lines of a process that died which are told."""
PROFILE = "rxe"


@dataclass(frozen=True)
class Tests:
    """What is to be run: ids of both groups, and the folders with them. `limit`: seconds a test of the suite may take.

    `all_verbs`: the ids of tests/verbs are all there are, so that its folder may be named instead.
    """

    suite: tuple[str, ...]
    suite_folder: Path | None
    verbs: tuple[str, ...]
    verbs_folder: Path | None
    all_verbs: bool = True
    limit: float = 60.0


def suite_here(tests: Tests, profile: str | None, listener: Listener) -> JobResult:
    """rdma-core's suite on nicemu, by the means of `nicemu conformance`."""
    result = JobResult(listener.name)
    assert tests.suite_folder is not None
    listener.start(len(tests.suite))
    try:
        with conformance.Runner(conformance.Job(tests.suite_folder, tests.limit, profile)) as runner:
            listener.note("prepares the engine")
            runner.start()
            result.facts = dict(runner.facts)
            for outcome in runner.run_all(list(tests.suite), 1):
                record = Record(outcome.test, outcome.status, outcome.reason, outcome.seconds, outcome.detail)
                result.add(record)
                listener.add(record)
                if listener.stop.is_set():
                    break
    except conformance.ServerError as error:
        result.trouble = f"the engine did not start: {error}"
    result.lose(tests.suite)
    return result


def verbs_here(tests: Tests, profile: str | None, listener: Listener) -> JobResult:
    """tests/verbs on nicemu, in a process of pytest."""
    assert tests.verbs_folder is not None
    listener.start(len(tests.verbs))
    with tempfile.TemporaryDirectory(prefix="nicemu-verbs-") as scratch:
        observed = Path(scratch) / "observations.jsonl"
        command = [*pytest_command(sys.executable, tests, str(tests.verbs_folder), str(observed)), "--verbs", "nicemu"]
        if profile is not None:
            command += ["--profile", profile]
        return watch(Process(command, Path(scratch)), observed, tests.verbs, listener)


def pytest_command(python: str, tests: Tests, folder: str, observed: str) -> list[str]:
    """The call of pytest for tests/verbs in `folder`."""
    chosen = [folder] if tests.all_verbs else [f"{folder}/{test}" for test in tests.verbs]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--color", "no", "--observations", observed]
    return [python, "-m", "pytest", *options, *chosen]


class Process:
    """A process with its output in a file. `status` is None while it runs."""

    def __init__(self, command: Sequence[str], scratch: Path) -> None:
        self.output = scratch / "output.txt"
        with self.output.open("wb") as file:
            environment = {**os.environ, "PYTHONHASHSEED": "0"}
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment
            )

    def wait(self, seconds: float) -> int | None:
        """Its exit status, if it ends within so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Ask it to end, and make sure."""
        self._process.terminate()
        if self.wait(10) is None:
            self._process.kill()
            self._process.wait()


def watch(process: Process, results: Path, expected: Sequence[str], listener: Listener) -> JobResult:
    """Follow what a process of pytest, or a guest, writes until it ends; what left no result is lost."""
    result = JobResult(listener.name)
    tail = Tail(results)
    status = None
    try:
        while status is None and not listener.stop.is_set():
            status = process.wait(TICK)
            for line in tail.read():
                _take(line, result, listener)
    finally:
        if status is None:
            process.end()
    result.trouble = _trouble(status, process.output)
    result.lose(expected)
    return result


def _take(line: dict[str, Any], result: JobResult, listener: Listener) -> None:
    """A line of results: facts of the machine, a test of tests/verbs, or one of the suite."""
    if "facts" in line:
        result.facts.update(line["facts"])
        return
    record = Record.of_verbs(line) if "outcome" in line else Record.from_dict(line)
    result.add(record)
    listener.add(record)


def _trouble(status: int | None, output: Path) -> str:
    """pytest ends with 1 if a test failed, which is no trouble; 5 if there was none to run."""
    if status in (0, 1):
        return ""
    if status is None:
        return "interrupted"
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    return f"ended with status {status}: " + " | ".join(line.strip()[:200] for line in lines[-SHOWN:])

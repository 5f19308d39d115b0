"""The jobs of the comparison: the two groups of tests on nicemu, on nicemu with the profile `rxe`, and on rxe."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nicemu.cli.conformance import runner as conformance
from nicemu.cli.rxe_lab import guest_suite, guest_verbs
from nicemu.cli.rxe_lab.differential import SUITE, VERBS
from nicemu.cli.rxe_lab.records import JobResult, Record
from nicemu.cli.rxe_lab.schedule import Listener
from nicemu.cli.rxe_lab.tail import Tail

TICK = 0.3  # seconds between two looks at a process
ENDING = 5.0  # seconds that a process has to end by itself
SHOWN, SHOWN_BYTES = 6, 1 << 16
"""Lines of a process that died which are told."""
TRIES = 3
"""Of a test that fails on rxe; one that fails on nicemu has failed."""
SILENCE = 120.0
"""Seconds without a result of tests/verbs after which pytest is taken to hang; a test has a limit of its own, 30 s."""
DEVICE, ADDRESS = "rxe0", "10.0.0.2"
RESULTS = "results"
PROFILE = "rxe_9000"
"""The lab that makes nicemu behave as rxe does in the guest, whose network device has an MTU of 9000."""


@dataclass(frozen=True)
class Selection:
    """What is to be run: ids of both groups, and the folders with them. `limit`: seconds a test of the suite may take.

    `all_verbs`: the ids of tests/verbs are all there are.
    """

    suite: tuple[str, ...] = ()
    suite_folder: Path = Path()
    verbs: tuple[str, ...] = ()
    verbs_folder: Path = Path()
    all_verbs: bool = True
    limit: float = 60.0


class Running(Protocol):
    """A process, or a guest that runs one; `output`: a file with what it said."""

    output: Path

    def wait(self, seconds: float) -> int | None:
        """Its exit status, if it ends within so many seconds."""

    def end(self) -> None:
        """End it now."""


StartGuest = Callable[[list[str], Path], Running]
"""Boots a guest with a folder as its share, and runs a command there."""


def boot(machine: dict[str, Any], timeout: float, command: list[str], share: Path) -> Running:
    """Start a guest, for so many seconds at most; `machine`: fields of qemu.Machine."""
    paths = {"share": str(share), "lock": str(machine["lock"]) if machine.get("lock") else None}
    job = {"command": command, "machine": {**machine, **paths}, "timeout": timeout}
    (share / "guest.json").write_text(json.dumps({**job, "facts": str(share / RESULTS / "guest.jsonl")}))
    words = [sys.executable, "-m", "nicemu.cli.rxe_lab.guest_process", str(share / "guest.json")]
    return Process(words, share / "guest.txt")


def suite_here(tests: Selection, profile: str | None, listener: Listener) -> JobResult:
    """rdma-core's suite on nicemu, by the means of `nicemu conformance`."""
    result = JobResult(listener.name)
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


def verbs_here(tests: Selection, profile: str | None, listener: Listener) -> JobResult:
    """tests/verbs on nicemu."""
    listener.start(len(tests.verbs))
    with tempfile.TemporaryDirectory(prefix="nicemu-verbs-") as name:
        scratch = Path(name)
        options = ["-p", "no:xdist", "--verbs", "nicemu", *(["--profile", profile] if profile else [])]
        job = _verbs_job(tests, str(tests.verbs_folder), options, str(scratch / RESULTS), 1)
        (scratch / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-P", guest_verbs.__file__, str(scratch / "job.json")]
        return watch(Process(command, scratch / "output.txt"), scratch / RESULTS, tests.verbs, listener)


def suite_there(tests: Selection, start: StartGuest, listener: Listener) -> JobResult:
    """rdma-core's suite on rxe."""
    job: dict[str, Any] = {"folder": f"/share/{SUITE}", "ids": tests.suite, "device": DEVICE, "address": ADDRESS}
    job |= {"limit": tests.limit, "tries": TRIES, "seed": 0, "results": f"/share/{RESULTS}/{SUITE}.jsonl"}
    return _in_guest(start, (guest_suite.__file__, tests.suite_folder, SUITE), job, tests.suite, listener)


def verbs_there(tests: Selection, start: StartGuest, listener: Listener) -> JobResult:
    """tests/verbs on rxe."""
    options = ["--verbs", "rxe", "--device", DEVICE]
    job = _verbs_job(tests, f"/share/{VERBS}", options, f"/share/{RESULTS}", TRIES)
    return _in_guest(start, (guest_verbs.__file__, tests.verbs_folder, VERBS), job, tests.verbs, listener)


def _verbs_job(tests: Selection, folder: str, options: list[str], results: str, tries: int) -> dict[str, Any]:
    job = {"folder": folder, "ids": tests.verbs, "all": tests.all_verbs, "options": options, "results": results}
    return {**job, "silence": SILENCE, "tries": tries}


def _in_guest(
    start: StartGuest,
    needs: tuple[str, Path, str],
    job: dict[str, Any],
    expected: Sequence[str],
    listener: Listener,
) -> JobResult:
    """Put a program, a folder with tests under the name it gets, and the job into a share, and run that in a guest."""
    program, folder, name = needs
    listener.start(len(expected))
    with tempfile.TemporaryDirectory(prefix="nicemu-rxe-") as share_name:
        share = Path(share_name)
        shutil.copy(program, share)
        shutil.copytree(folder, share / name, ignore=shutil.ignore_patterns("__pycache__"))
        (share / "job.json").write_text(json.dumps(job))
        (share / RESULTS).mkdir()
        environment = ["env", "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1"]
        command = [*environment, "python3", f"/share/{Path(program).name}", "/share/job.json"]
        return watch(start(command, share), share / RESULTS, expected, listener)


class Process:
    """A process on this machine with its output in a file."""

    def __init__(self, command: Sequence[str], output: Path) -> None:
        self.output = output
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> int | None:
        """Its exit status, if it ends within so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """End it with all that it started: a guest gets a moment to remove its files."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, kind)
            if self.wait(ENDING) is not None:
                return


def watch(process: Running, results: Path, expected: Sequence[str], listener: Listener) -> JobResult:
    """Follow what a process writes into the folder `results` until it ends; what left no result is lost."""
    result = JobResult(listener.name)
    unread = 0
    tail = Tail(results)
    status = None
    try:
        while status is None and not listener.stop.is_set():
            status = process.wait(TICK)
            for line in tail.read():
                unread += not _take(line, result, listener)
    finally:
        if status is None:
            process.end()
    result.retries = result.facts.pop("retries", 0)
    result.trouble = _trouble(status, process.output)
    if unread and not result.trouble:
        result.trouble = f"{unread} lines of its results are none"
    result.lose(expected)
    return result


def _take(line: dict[str, Any], result: JobResult, listener: Listener) -> bool:
    """A line of results: facts of the machine, a test of tests/verbs, or one of the suite. False if it is neither."""
    try:
        if "facts" in line:
            result.facts.update(line["facts"])
            return True
        record = Record.of_verbs(line) if "outcome" in line else Record.from_dict(line)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    listener.add(result.add(record))
    return True


def _trouble(status: int | None, output: Path) -> str:
    if status == 0:
        return ""
    if status is None:
        return "interrupted"
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - SHOWN_BYTES))
        text = file.read().decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return f"ended with status {status}: " + " | ".join(line.strip()[:200] for line in lines[-SHOWN:])

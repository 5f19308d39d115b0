"""Runs jobs, some at once, and stops what runs when it is interrupted."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass

from nicemu.cli.rxe_lab.progress import Progress
from nicemu.cli.rxe_lab.records import JobResult, Record

TICK = 0.1  # seconds


@dataclass(frozen=True)
class Listener:
    """What a job tells while it runs, and how it learns that it has to end."""

    name: str
    progress: Progress
    stop: threading.Event

    def start(self, total: int) -> None:
        """The job begins and has `total` tests, 0 if it does not know."""
        self.progress.start(self.name, total)

    def note(self, text: str, total: int = 0) -> None:
        """Something happened that is no test."""
        self.progress.note(self.name, text, total)

    def add(self, record: Record) -> None:
        """A test has ended."""
        self.progress.add(self.name, record)


@dataclass(frozen=True)
class Job:
    """Many tests on one device: `name` is `suite/rxe` or the like."""

    name: str
    run: Callable[[Listener], JobResult]


def run_all(jobs: Sequence[Job], progress: Progress, at_once: int) -> dict[str, JobResult]:
    """Run the jobs in their order, `at_once` of them at a time, and return their results by name.

    What a job raises ends the others and is raised again; so does an interrupt from the keyboard.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        running = {pool.submit(_run, job, Listener(job.name, progress, stop)): job for job in jobs}
        try:
            _watch(list(running), progress)
        except BaseException:
            stop.set()
            for future in running:
                future.cancel()
            raise
        finally:
            progress.close()
    return {job.name: future.result() for future, job in running.items()}


def _run(job: Job, listener: Listener) -> JobResult:
    if listener.stop.is_set():
        return JobResult(job.name, trouble="not started")
    began = time.monotonic()
    result = job.run(listener)
    result.seconds = time.monotonic() - began
    listener.progress.end(result)
    return result


def _watch(running: list["Future[JobResult]"], progress: Progress) -> None:
    waiting = set(running)
    while waiting:
        done, waiting = wait_for(waiting, timeout=TICK, return_when="FIRST_COMPLETED")
        for future in done:
            future.result()
        progress.tick()

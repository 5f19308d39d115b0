"""What is said while jobs run: one live line a job on a terminal, plain lines elsewhere."""

import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from nicemu.cli.rxe_lab.records import FAILED, FLAKY, LOST, PASS, SKIP, JobResult, Record

EVERY = 20.0  # seconds between two plain lines of a job
REDRAW = 0.1  # seconds


@dataclass
class _Line:
    """One job's state. `tests`: their statuses by name; `last`: the one that ended last."""

    began: float = 0.0
    total: int = 0
    tests: dict[str, str] = field(default_factory=dict)
    last: str = ""
    note: str = "waits"
    said: float = 0.0


class Progress:
    """Told of by the jobs, from their threads."""

    def __init__(self, jobs: Sequence[str], stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._lines = {job: _Line() for job in jobs}
        self._drawn = 0
        self._drawn_at = 0.0
        self._lock = threading.Lock()

    def start(self, job: str, total: int) -> None:
        """A job begins; it has `total` tests, 0 if that is not known yet."""
        with self._lock:
            line = self._lines[job]
            line.began = line.said = time.monotonic()
            line.total, line.note = total, "starts"
            self._say(job)

    def note(self, job: str, text: str, total: int = 0) -> None:
        """Something happened that is no test."""
        with self._lock:
            line = self._lines[job]
            line.note, line.total = text, total or line.total
            self._say(job)

    def add(self, job: str, record: Record) -> None:
        """A test has ended. What did not pass is said at once."""
        with self._lock:
            line = self._lines[job]
            line.tests[record.test] = record.status
            line.last, line.note = record.test, ""
            if record.status in (*FAILED, FLAKY):
                self._print(f"{job}: {record.status} {record.test}: {record.reason}")
            if not self.live and time.monotonic() - line.said >= EVERY:
                self._say(job)

    def end(self, result: JobResult) -> None:
        """A job is over."""
        with self._lock:
            line = self._lines[result.name]
            line.last = ""
            line.note = result.trouble or "done"
            lost = result.count(LOST)
            if lost:
                line.note += f", {lost} tests lost"
            self._say(result.name)

    def tick(self) -> None:
        """Draw again, if it is time."""
        with self._lock:
            if self.live and time.monotonic() - self._drawn_at >= REDRAW:
                self._draw()

    def close(self) -> None:
        """Leave the last state standing."""
        with self._lock:
            if self.live:
                self._draw()
                self._drawn = 0

    def _say(self, job: str) -> None:
        self._lines[job].said = time.monotonic()
        if self.live:
            self._draw()
        else:
            self._print(self._text(job))

    def _text(self, job: str) -> str:
        line = self._lines[job]
        if not line.began:
            return f"{job:18} {line.note}"
        counts = Counter(line.tests.values())
        failed = sum(counts[status] for status in FAILED)
        done = len(line.tests)
        head = f"{job:18} {time.monotonic() - line.began:4.0f} s  {done}/{line.total or '?'}: "
        head += f"{counts[PASS]} passed, {failed} failed, {counts[SKIP]} skipped"
        if counts[FLAKY]:
            head += f", {counts[FLAKY]} flaky"
        return f"{head}; {line.note or line.last}"

    def _print(self, text: str) -> None:
        if self.live:
            self._erase()
        self.stream.write(f"{text}\n")
        self.stream.flush()
        if self.live:
            self._draw()

    def _erase(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")
        self._drawn = 0

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._erase()
        self.stream.write("".join(f"{self._text(job)[:width]}\n" for job in self._lines))
        self.stream.flush()
        self._drawn, self._drawn_at = len(self._lines), time.monotonic()

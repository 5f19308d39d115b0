"""What `nicemu conformance` prints: a line that lives while tests run, the table, and what differs from another run."""

import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import typer

from nicemu.cli.conformance.outcome import EXPECTED, FAILED, STATUSES, Outcome, summary
from nicemu.cli.conformance.stored import KINDS, Difference, Stored

SLOWEST = 5


class Progress:
    """On a terminal one line that is written over, and a line for each failure; elsewhere a line for each test."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done: list[Outcome] = []
        self.began = time.monotonic()
        self.live = sys.stdout.isatty()

    def add(self, outcome: Outcome) -> None:
        """A test has ended."""
        self.done.append(outcome)
        line = f"[{len(self.done):3d}/{self.total}] {outcome.status:8} {outcome.test}  {outcome.seconds:.2f} s"
        if not self.live:
            typer.echo(line)
        elif outcome.status in FAILED:
            self.clear()
            typer.echo(f"{line}: {outcome.reason}")

    def show(self, running: Mapping[str, float]) -> None:
        """Write the line over: how many are done, how they came out, what runs since when."""
        if not self.live:
            return
        now = time.monotonic()
        names = ", ".join(f"{test.partition('.')[2]} {now - since:.0f} s" for test, since in running.items())
        head = f"[{len(self.done)}/{self.total}] {summary(self.done)}, {now - self.began:.0f} s"
        width = shutil.get_terminal_size().columns - 1
        self._write(f"{head}: {names}"[:width])

    def clear(self) -> None:
        """Take the line away."""
        if self.live:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stdout.write(f"\r\x1b[K{text}")
        sys.stdout.flush()


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Every test with its time and reason, by outcome; then the slowest ones."""
    for status in STATUSES:
        group = [outcome for outcome in outcomes if outcome.status == status]
        if group:
            typer.echo(f"\n{status} ({len(group)})")
        for outcome in group:
            typer.echo(
                f"  {outcome.seconds:6.2f} s  {outcome.test}" + (f": {outcome.reason}" if outcome.reason else "")
            )
    slowest = sorted(outcomes, key=lambda outcome: -outcome.seconds)[:SLOWEST]
    typer.echo("\nslowest: " + ", ".join(f"{each.test} {each.seconds:.1f} s" for each in slowest))


def print_differences(differences: Iterable[Difference], then: Stored) -> None:
    """What differs from a stored run, by kind."""
    differences = list(differences)
    typer.echo(f"\nagainst {then.title}: {len(differences)} differences" if differences else
               f"\nagainst {then.title}: no difference")  # fmt: skip
    for kind in KINDS:
        group = [each for each in differences if each.kind == kind]
        if group:
            typer.echo(f"{kind} ({len(group)})")
        for each in group:
            change = f"{each.then} -> {each.now}" if each.now and each.then else each.now or each.then
            typer.echo(f"  {change:16} {each.test}")


def print_end(outcomes: Sequence[Outcome], seconds: float, how: str) -> None:
    """How the run was made, and as the last line `N passed, N failed, N skipped`."""
    typer.echo(f"\n{len(outcomes)} tests in {seconds:.1f} s; {how}")
    expected = sum(outcome.status == EXPECTED for outcome in outcomes)
    if expected:
        typer.echo(f"{expected} did not pass, as expected (EXPECTED above, with reasons)")
    typer.echo(summary(outcomes))


def read_expected(file: Path) -> dict[str, str]:
    """Tests that have to fail, with the reason: lines `TEST: REASON`; `#` starts a comment."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        test, colon, reason = line.partition(": ")
        if colon and not line.startswith("#"):
            found[test.strip()] = reason.strip()
    return found

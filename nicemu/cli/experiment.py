"""`nicemu experiment`: one file, one command, a folder with all that came out."""

import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.experiment.conduct import Outcome, Wish

EVERY = 10.0  # seconds between two lines of progress that is no terminal's


def experiment(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped experiment (--list).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where to; default: experiments/NAME.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the file's: one seed, one result.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default: one per core.")] = None,
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Run on a Dask cluster: tcp://HOST:PORT; local: on one of its own.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Keep runs that are done already, or do all again.")
    ] = True,
    only: Annotated[
        list[str] | None, typer.Option(metavar="AXIS=VALUE", help="Only points with this value; repetition=N as well.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few iterations of everything, to see that it works: nothing is gated.")
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="List shipped experiments and workloads, and stop.")] = False,
) -> None:
    """Run an experiment: every point of a sweep, compared with what was expected.

    The folder has summary.md, index.html, plots, results.parquet, runs.parquet, the exact inputs, and of one run the
    trace, capture and counters (for nicemu why, diff and stats). A second call does only what is missing. Exit status:
    0 all gated expectations hold, 1 one does not or a run failed, 2 bad input.

    Example: nicemu experiment npf_latency -o /tmp/npf
    """
    if listing:
        _list()
        return
    if file is None:
        raise ConfigError("expected FILE or --list, given neither")
    from nicemu.experiment import conduct

    document = conduct.load(file)
    wish = conduct.Wish(output or Path("experiments") / document.experiment.name, seed, processes, scheduler,
                        not resume, quick, _pairs(only or []))  # fmt: skip
    try:
        outcome = conduct.conduct(document, wish, Progress().say)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one has nothing to add: we are ending
        print("\nnicemu: interrupted; runs that are done are kept: the same command does the others", file=sys.stderr)
        raise
    if outcome.measured:
        _write(outcome, wish)
    raise typer.Exit(_end(outcome, wish, file))


def _pairs(words: list[str]) -> dict[str, str]:
    for word in words:
        if not word.partition("=")[1]:
            raise ConfigError(f"command line: field --only: expected AXIS=VALUE, given {word!r}")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _write(outcome: "Outcome", wish: "Wish") -> None:
    from nicemu.experiment import folder

    try:
        folder.write(outcome, wish)
    except OSError as error:
        text = f"expected a folder that can be written, given {error.filename!r}: {error.strerror}"
        raise ConfigError(f"command line: field --output: {text}") from error


def _list() -> None:
    from nicemu import workloads
    from nicemu.config import paths
    from nicemu.experiment.conduct import FOLDER, load

    typer.echo("experiments:")
    for name in paths.shipped_names(FOLDER, ".yaml"):
        typer.echo(f"  {name:<24} {load(name).experiment.title}")
    typer.echo("workloads:")
    for name, workload in workloads.shipped().items():
        parameters = ", ".join(f"{key}={value!r}" for key, value in workload.parameters.items())
        typer.echo(f"  {name:<24} {workload.summary}\n{'':27}{parameters}")


def _end(outcome: "Outcome", wish: "Wish", file: str) -> int:
    """Say how it went; the exit status."""
    from nicemu.experiment import folder, summary

    for failure in outcome.failures:
        print(f"nicemu: a run failed at {failure.point}, repetition {failure.task.repetition}, seed "
              f"{failure.task.seed}: {failure.error}", file=sys.stderr)  # fmt: skip
        print(f"nicemu:   again: {_again(failure.point.labels, failure.task.repetition, wish, file)}", file=sys.stderr)
    if not outcome.measured:
        return 1
    for verdict in outcome.verdicts:
        mark = {True: "holds", False: "FAILS" if verdict.expectation.gate else "no", None: "shown"}[verdict.ok]
        found = f"{verdict.model} {verdict.deviation}".rstrip()
        typer.echo(f"{mark:<6} {verdict.what}: {found}, expected {verdict.expected} ({verdict.expectation.kind})")
    words = summary.answer(outcome.document, outcome.measured, outcome.verdicts)
    for line in (words, folder.QUICK if wish.quick else ""):
        if line:
            typer.echo(line)
    typer.echo(f"{wish.folder / 'summary.md'}, {wish.folder / 'index.html'}")
    return 1 if outcome.failures or any(verdict.failed for verdict in outcome.verdicts) else 0


def _again(labels: Mapping[str, object], repetition: int, wish: "Wish", file: str) -> str:
    words = ["nicemu", "experiment", file, "-o", str(wish.folder), "--processes", "1"]
    words += [] if wish.seed is None else ["--seed", str(wish.seed)]
    words += ["--quick"] if wish.quick else []
    for name, label in {**labels, "repetition": repetition}.items():
        words += ["--only", f"{name}={label}"]
    return shlex.join(words)


class Progress:
    """Runs done, rate and time left: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.began = self.said = time.monotonic()
        self.first: int | None = None
        self.bar: Callable[[int, int], None] | None = None

    def say(self, done: int, total: int) -> None:
        """So many of the runs are done."""
        if self.first is None:
            self.first = done
            if done:
                print(f"nicemu experiment: {done} of {total} runs are done already", file=sys.stderr)
        if self.live:
            self._draw(done, total)
        elif time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            print(f"nicemu experiment: {self._text(done, total)}", file=sys.stderr, flush=True)

    def _text(self, done: int, total: int) -> str:
        passed = time.monotonic() - self.began
        new = done - (self.first or 0)
        left = f", {(total - done) * passed / new:.0f} s left" if new else ""
        return f"{done} of {total} runs, {new / max(passed, 1e-9):.1f} runs/s, {passed:.0f} s{left}"

    def _draw(self, done: int, total: int) -> None:
        if self.bar is None:
            self.bar = _bar(total)
        self.bar(done, total)


def _bar(total: int) -> Callable[[int, int], None]:
    """A bar of rich's."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    bars = Bars(*columns, console=Console(stderr=True))
    task = bars.add_task("runs", total=total, rate="")
    bars.start()
    began, first = time.monotonic(), [-1]

    def draw(done: int, total: int) -> None:
        if first[0] < 0:
            first[0] = done
        rate = (done - first[0]) / max(time.monotonic() - began, 1e-9)
        bars.update(task, completed=done, rate=f"{rate:.1f} runs/s")
        if done == total:
            bars.stop()

    return draw

"""`nicemu top`: a running lab, watched from another terminal."""

import contextlib
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from nicemu.config.errors import ConfigError

ROWS = 20
"""QPs and MRs shown: the busiest."""
PATIENCE_S = 10.0
"""How long the program may take to its first verbs call (a cold start compiles before it)."""


def top(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="What nicemu run --record was given.")],
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end: for pipes.")] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Time between frames.")] = 1.0,
) -> None:
    """Watch a running program: rates of NICs, queue pairs and MRs.

    The program runs under nicemu run --record DIR, which writes its counters into DIR twice a second. Ends with the
    program, at q and at Ctrl-C. Packet rates are by virtual time; + is what came since the frame before.

    Example: nicemu run --record out PROGRAM.py & nicemu top out
    """
    from nicemu.observe.run_folder import NoRun

    try:
        if once or not sys.stdout.isatty():
            _print_one(run)
        else:
            _show(run, interval)
    except NoRun as error:
        raise ConfigError(str(error)) from error


def _print_one(run: Path) -> None:
    from rich.console import Console

    from nicemu.observe.run_folder import counters_of

    now = counters_of(run)
    width = None if sys.stdout.isatty() else 120
    Console(width=width, highlight=False).print(_frame(_nothing(now), now))


def _show(run: Path, interval: float) -> None:
    from rich.live import Live

    from nicemu.observe.run_folder import counters_of, is_running

    _await(run)
    before = shown = counters_of(run)
    with contextlib.suppress(KeyboardInterrupt), _keys() as key, Live(_frame(before, shown), screen=False) as live:
        while is_running(run) and key(interval) != "q":
            now = counters_of(run)
            if now != shown:
                before, shown = shown, now
            live.update(_frame(before, shown))
        shown = counters_of(run)
        live.update(_frame(_nothing(shown), shown))


def _await(run: Path) -> None:
    """The program may not have made its first call yet."""
    from nicemu.observe.run_folder import COUNTERS, is_running

    end = time.monotonic() + PATIENCE_S
    while not is_running(run) and not (run / COUNTERS).is_file() and run.is_dir() and time.monotonic() < end:
        time.sleep(0.1)


def _nothing(now: dict[str, Any]) -> dict[str, Any]:
    """The snapshot before everything: what grew since it is the whole run."""
    return now | {"virtual_ns": 0, "device_events": 0, "nic": {}, "qp": {}, "mr": {}}


def _frame(before: dict[str, Any], now: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    from nicemu.observe import top as rates

    parts: list[Any] = [rates.headline(before, now)]
    for content in rates.tables(before, now):
        table = Table(title=None, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, column in enumerate(content.columns):
            table.add_column(column or content.title, justify="right" if i else "left", no_wrap=True)
        for row in content.rows[:ROWS]:
            table.add_row(*row)
        if len(content.rows) > ROWS:
            table.add_row(f"and {len(content.rows) - ROWS} more")
        if content.rows:
            parts += ["", table]
    return Group(*parts)


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key and gives it, "" if none came."""
    if not sys.stdin.isatty():
        yield _pause
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield lambda seconds: sys.stdin.read(1) if select.select([sys.stdin], [], [], seconds)[0] else ""
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pause(seconds: float) -> str:
    time.sleep(seconds)
    return ""

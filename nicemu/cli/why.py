"""`nicemu why`: what the work requests of a run waited for."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from nicemu.cli.reading import reading
from nicemu.config.errors import ConfigError

SHOWN = 5


def why(
    trace: Annotated[
        Path, typer.Argument(metavar="TRACE", help="A trace of nicemu run --trace, or a folder of --record.")
    ],
    request: Annotated[
        list[str] | None, typer.Argument(metavar="[WR]", help="One work request: 5:12, or QP 5 #12, or nic1 QP 5 #12.")
    ] = None,
    slowest: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Print the critical paths of the N slowest work requests.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same in JSON; times in ns.")] = False,
) -> None:
    """Say what work requests waited for.

    Without WR: what is wrong at a glance, the top causes over all send work requests of the run, and the slowest of
    them. With WR, the critical path of that one: consecutive intervals from its post to its completion, each with its
    cause; they follow the request to the other NIC, and through page faults there. WR 12 of a QP is the thirteenth that
    was posted to it (from 0).

    Example: nicemu run --trace run.pftrace examples/odp_pingpong.py && nicemu why run.pftrace && nicemu why
    run.pftrace 2:4
    """
    from nicemu.observe import why as analysis
    from nicemu.observe import why_text
    from nicemu.observe.run_folder import NoRun, trace_of

    words = " ".join(request or [])
    asked = analysis.parse(words) if words else None
    if words and asked is None:
        raise ConfigError(f"expected a work request as 5:12 or 'QP 5 #12' (QP, number of the WR), given {words!r}")
    try:
        found = analysis.analyse(reading(trace_of(trace)), slowest or SHOWN, asked)
    except NoRun as error:
        raise ConfigError(str(error)) from error
    if asked is not None and found.asked is None:
        raise ConfigError(f"{trace}: expected a work request of this run, given {words!r} (without: the slowest)")
    shown = [found.asked] if found.asked is not None else found.slowest if slowest else []
    if as_json:
        value = [analysis.as_dict(each) for each in shown] if shown else analysis.analysis_dict(found)
        typer.echo(json.dumps(value, indent=1))
        return
    if not shown:
        _print(why_text.report(found, str(trace)))
    for i, each in enumerate(shown):
        if i:
            typer.echo()
        _print(why_text.path(each))


def _print(lines: Iterable[Any]) -> None:
    from nicemu.observe import why_text

    if not sys.stdout.isatty():
        for line in lines:
            typer.echo(why_text.plain(line))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(_coloured(line))


def _coloured(line: Any) -> Any:
    from rich.text import Text

    from nicemu.observe.why_text import BAR, bar

    if line.share is None:
        return Text(line.text, style="bold" if line.is_title else "")
    colour = "red" if line.share >= 0.3 else "yellow" if line.share >= 0.1 else "green"
    return Text.assemble(line.text, "  ", (f"{bar(line.share, chr(0x2588)):<{BAR}}", colour), "  ", line.rest)

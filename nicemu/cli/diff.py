"""`nicemu diff`: where two runs part, and what it did to them."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from nicemu.cli.reading import reading
from nicemu.config.errors import ConfigError

DIFFERENT = 1


def diff(
    left: Annotated[Path, typer.Argument(metavar="RUN", help="A folder of nicemu run --record, or a trace.")],
    right: Annotated[Path, typer.Argument(metavar="RUN", help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="The same in JSON; latencies in ns.")] = False,
) -> None:
    """Compare two runs: two firmware images, two seeds, two versions of a program.

    Prints the first event that differs with what was before it, the counters that differ (of folders), and the
    latencies of work requests by opcode. Exit status 0: one history; 1: two; 2: trouble.

    Example: nicemu run --record a X.py && nicemu run --firmware npf --record b X.py && nicemu diff a b
    """
    from nicemu.observe import diff as comparison
    from nicemu.observe.counters_text import flat
    from nicemu.observe.run_folder import NoRun, counters_of, has_counters, trace_of

    found = comparison.Difference()
    try:
        traces = trace_of(left), trace_of(right)
        found.divergence = comparison.first_difference(reading(traces[0]), reading(traces[1]))
        if has_counters(left) and has_counters(right):
            counters = counters_of(left), counters_of(right)
            found.counters = comparison.changed(flat(counters[0]), flat(counters[1]))
            found.runs = {"left": comparison.given(counters[0]), "right": comparison.given(counters[1])}
        if not found.is_same:
            found.left, found.right = (comparison.latencies(reading(each)) for each in traces)
    except NoRun as error:
        raise ConfigError(str(error)) from error
    if as_json:
        typer.echo(json.dumps(comparison.as_dict(found), indent=1))
    else:
        for line in comparison.text(found):
            typer.echo(line)
    sys.exit(0 if found.is_same else DIFFERENT)

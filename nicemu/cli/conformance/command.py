"""`nicemu conformance`: choose, run, report."""

import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.cli.conformance.runner import Outcome, Runner

FAILED = ("FAIL", "ERROR", "TIMEOUT")


def conformance(
    pattern: Annotated[str, typer.Argument(help="A regular expression that the test's id has to contain.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the outcomes.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Tests at once.")] = 2,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds a test may take.")] = 60,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="A YAML file, or a shipped lab's name.")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Print the ids and run nothing.")] = False,
) -> None:
    """Run rdma-core's Python tests, or those PATTERN finds.

    An id is test_odp.OdpTestCase.test_odp_rc_traffic. Each test runs in its own process with a time limit. The last
    line is `N passed, N failed, N skipped`; errors and time-outs count as failed. Status 1 if any failed.
    """
    from nicemu.cli.conformance.runner import Runner

    tests, folder = _choose(pattern)
    if list_only:
        typer.echo("\n".join(tests))
        return
    began = time.monotonic()
    runner = Runner(folder, timeout, _checked(config))
    outcomes = _run(runner, tests, jobs)
    _print_groups(outcomes)
    if json_file is not None:
        _write_json(json_file, outcomes)
    failed = sum(outcome.status in FAILED for outcome in outcomes)
    typer.echo(f"\n{len(outcomes)} tests in {time.monotonic() - began:.1f} s")
    typer.echo(summary(outcomes))
    sys.exit(1 if failed else 0)


def summary(outcomes: "Iterable[Outcome]") -> str:
    """`N passed, N failed, N skipped`."""
    statuses = [outcome.status for outcome in outcomes]
    failed = sum(statuses.count(status) for status in FAILED)
    return f"{statuses.count('PASS')} passed, {failed} failed, {statuses.count('SKIP')} skipped"


def _choose(pattern: str) -> tuple[list[str], Path]:
    from nicemu.cli.conformance import fetch, ids

    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"expected a regular expression, given {pattern!r}: {error}") from None
    try:
        folder = fetch.tests_folder()
    except fetch.FetchError as error:
        raise ConfigError(str(error)) from None
    tests = ids.list_ids(folder, pattern)
    if not tests:
        raise ConfigError(f"expected a pattern that finds a test, given {pattern!r} (--list prints all ids)")
    return tests, folder


def _checked(config: str | None) -> str | None:
    from nicemu.config import load_config

    load_config(config)
    return config


def _run(runner: "Runner", tests: list[str], jobs: int) -> "list[Outcome]":
    typer.echo(f"{len(tests)} tests, {jobs} at once; preparing the engine ...")
    warm = runner.warm_up()
    if warm.status != "PASS":
        typer.echo(f"the engine did not start: {warm.status} {warm.reason}\n{warm.detail}", err=True)
    typer.echo(f"engine ready after {warm.seconds:.1f} s")
    outcomes = []
    for number, outcome in enumerate(runner.run_all(tests, jobs), start=1):
        outcomes.append(outcome)
        line = f"[{number:3d}/{len(tests)}] {outcome.status:7} {outcome.test}  {outcome.seconds:.1f} s"
        typer.echo(line)
    order = {test: position for position, test in enumerate(tests)}
    return sorted(outcomes, key=lambda outcome: order[outcome.test])


def _print_groups(outcomes: "list[Outcome]") -> None:
    for status in ("PASS", "SKIP", *FAILED):
        group = [outcome for outcome in outcomes if outcome.status == status]
        if group:
            typer.echo(f"\n{status} ({len(group)})")
        for outcome in group:
            typer.echo(f"  {outcome.test}" + (f": {outcome.reason}" if outcome.reason else ""))


def _write_json(path: Path, outcomes: "list[Outcome]") -> None:
    import json

    document = {"summary": summary(outcomes), "tests": [outcome.to_dict() for outcome in outcomes]}
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"expected a file that can be written, given {str(path)!r}: {error.strerror}") from None

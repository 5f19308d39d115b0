"""`nicemu conformance`: choose, run, report."""

import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.cli.conformance.outcome import Outcome
    from nicemu.cli.conformance.releases import Release
    from nicemu.cli.conformance.runner import Runner
    from nicemu.cli.conformance.stored import Stored

EXPECTED_FORCE_ODP = Path(__file__).parent / "expected" / "force_odp.txt"


def conformance(
    pattern: Annotated[str, typer.Argument(help="A regular expression that the test's id has to contain.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Store the run.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="FILE", help="Print what differs from a stored run, or from rxe.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Tests at once.")] = 2,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds a test may take.")] = 60,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="A YAML file, or a shipped lab's name.")] = None,
    release: Annotated[str, typer.Option(metavar="N", help="rdma-core's tests: 44, 56, 57, 59 or newest.")] = "59",
    force_odp: Annotated[bool, typer.Option("--force-odp", help="Register every MR with on-demand paging.")] = False,
    hash_seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of Python's hashes and of `random` in each test.")
    ] = 0,
    list_only: Annotated[bool, typer.Option("--list", help="Print the ids and run nothing.")] = False,
) -> None:
    """Run rdma-core's Python tests, or those PATTERN finds.

    Without PATTERN the tests that ask for a vendor's device are left out; `.` finds them all, and they skip. An id is
    test_odp.OdpTestCase.test_odp_rc_traffic. Each test runs in its own process with a time limit. The last line is
    `N passed, N failed, N skipped`; errors and time-outs count as failed. Status 1 if any failed, or came out worse
    than in the run of ours that it was compared with.
    """
    from nicemu.cli.conformance import ids, report, stored
    from nicemu.cli.conformance.outcome import FAILED
    from nicemu.cli.conformance.runner import Job, Runner, ServerError

    pattern = pattern or ids.ANY_DEVICE
    found, folder, tests = _choose(release, pattern)
    if list_only:
        typer.echo("\n".join(tests))
        return
    then = stored.read(against, found.name) if against is not None else None
    if json_file is not None:
        stored.check(json_file)
    overrides, checked = _checked(config, force_odp)
    with Runner(Job(folder, timeout, config, overrides, hash_seed)) as runner:
        try:
            _start(runner, len(tests), jobs)
            began = time.monotonic()
            outcomes = _run(runner, tests, jobs, report.read_expected(EXPECTED_FORCE_ODP) if force_odp else {})
            seconds = time.monotonic() - began
        except ServerError as error:
            typer.echo(error.detail, err=True)
            raise ConfigError(f"the engine did not start: {error}") from None
        facts = runner.facts
    report.print_table(outcomes)
    if json_file is not None:
        about = {"release": found.version, "tests_sha256": found.sha256, "pattern": pattern, "hash_seed": hash_seed}
        about |= {"seed": checked["seed"], "jobs": jobs, "timeout": timeout, "seconds": seconds, "config": checked}
        stored.write(json_file, outcomes, about | facts)
    worse = then is not None and _is_worse(outcomes, then, pattern)
    how = f"rdma-core {found.version}, lab seed {checked['seed']}, hash seed {hash_seed}, as {facts['runs_as']}"
    report.print_end(outcomes, seconds, how)
    sys.exit(1 if worse or any(outcome.status in FAILED for outcome in outcomes) else 0)


def _choose(release: str, pattern: str) -> "tuple[Release, Path, list[str]]":
    """The release, the folder with its tests, and the ids that `pattern` finds."""
    from nicemu.cli.conformance import fetch, ids, releases

    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"expected a regular expression, given {pattern!r}: {error}") from None
    try:
        found = fetch.newest() if release == releases.NEWEST else releases.find(release)
        folder = fetch.tests_folder(found)
    except fetch.FetchError as error:
        raise ConfigError(str(error)) from None
    tests = ids.list_ids(folder, pattern)
    if not tests:
        raise ConfigError(f"expected a pattern that finds a test, given {pattern!r} (--list prints all ids)")
    return found, folder, tests


def _checked(config: str | None, force_odp: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command line puts on top of the configuration, and the whole as plain values."""
    from nicemu.config.load import FORCE_ODP, load_config

    overrides = FORCE_ODP if force_odp else {}
    return overrides, load_config(config, overrides).to_dict()


def _start(runner: "Runner", total: int, jobs: int) -> None:
    """Load the engine, which may have to be compiled; not part of the run's time."""
    typer.echo(f"{total} tests, {jobs} at once; preparing the engine ...")
    began = time.monotonic()
    runner.start()
    typer.echo(f"engine ready after {time.monotonic() - began:.1f} s, as {runner.facts['runs_as']}")


def _run(runner: "Runner", tests: list[str], jobs: int, expected: dict[str, str]) -> "list[Outcome]":
    from nicemu.cli.conformance.outcome import EXPECTED, FAILED, SKIP
    from nicemu.cli.conformance.report import Progress

    progress = Progress(len(tests))
    for outcome in runner.run_all(tests, jobs, lambda: progress.show(runner.running)):
        if outcome.status in (*FAILED, SKIP) and outcome.test in expected:
            outcome = replace(outcome, status=EXPECTED, reason=f"{expected[outcome.test]} ({outcome.reason})")
        progress.add(outcome)
    progress.clear()
    order = {test: position for position, test in enumerate(tests)}
    return sorted(progress.done, key=lambda outcome: order[outcome.test])


def _is_worse(outcomes: "list[Outcome]", then: "Stored", pattern: str) -> bool:
    """Print what differs from a stored run; True if that is one of ours and something has become worse."""
    from nicemu.cli.conformance import report, stored

    differences = stored.compare({each.test: each.status for each in outcomes}, then.statuses, pattern)
    report.print_differences(differences, then)
    return then.own and any(each.kind in stored.REGRESSIONS for each in differences)

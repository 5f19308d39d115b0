"""`nicemu lab rxe test`: choose, run, compare, report."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import nicemu
from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.cli.rxe_lab.jobs import Selection
    from nicemu.cli.rxe_lab.qemu import Machine
    from nicemu.cli.rxe_lab.records import JobResult
    from nicemu.cli.rxe_lab.schedule import Job

CHECKOUT = Path(nicemu.__file__).parents[1]
RELEASE = "56"
"""Of rdma-core's suite: that of the guest's pyverbs."""
GUEST_SECONDS = 1800.0
"""Limit of a guest's run, which takes a few minutes on a machine that does nothing else."""


def test(
    ctx: typer.Context,
    pattern: Annotated[str, typer.Argument(help="A regular expression that the test's id has to contain.")] = "",
    only: Annotated[str | None, typer.Option(metavar="verbs|suite", help="One of the two groups of tests.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Boot nothing: rxe's results come from a stored run, of --json or ours, rxe-7.3."
        ),
    ] = None,
    model: Annotated[bool, typer.Option(help="Run nicemu with the profile rxe as well.")] = True,
    kernel: Annotated[str, typer.Option(metavar="N", help="The guest's: 7.3, 6.12 or 6.1.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Store the run.")] = None,
    docs: Annotated[
        bool,
        typer.Option("--docs", help="Maintainers: write the tables of docs/rxe.md, and the stored run of rxe."),
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, max=6, help="Jobs at once; a guest takes a processor.")] = 2,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds a test of rdma-core's suite may take.")] = 60,
    tests: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where tests/verbs is, if not in this checkout.")
    ] = None,
) -> None:
    """Run the same tests on nicemu and on Linux's soft RoCE, and say what differs and who is right.

    Runs tests/verbs and rdma-core's suite (release 56) on nicemu, on rxe in two guests, and on nicemu with the profile
    rxe. Every difference needs an explanation: the test's own, or one of the list behind docs/rxe.md. Without QEMU,
    `--against rxe-7.3` compares with our stored run of rxe. Status 1 if a test fails on nicemu, if a test was lost,
    if a difference is not explained, or if rxe passes fewer tests of the suite than it did.
    """
    from nicemu.cli.conformance.stored import check
    from nicemu.cli.ending import raise_on_sigterm
    from nicemu.cli.rxe_lab import differential, explanations, page, progress, schedule, stored_run, table

    raise_on_sigterm()
    _check_options(ctx)
    chosen = _choose(pattern, only, tests, timeout)
    then, versions = stored_run.read(against) if against is not None else ({}, {})
    known = explanations.read()
    if json_file is not None:
        check(json_file)
    if docs:
        page.check(CHECKOUT)
    machine = replace(ctx.obj, kernel=kernel) if kernel else ctx.obj
    guest = versions.get("guest", {}) if against is not None else _prepare(machine)
    work = _jobs(chosen, None if against is not None else machine, model)
    _prepare_engine()
    said = progress.Progress([job.name for job in work])
    results = schedule.run_all(work, said, jobs)
    if against is not None:
        results.update(_chosen_of(then, chosen))
    whole = not pattern and only is None
    found = differential.build(results, known, whole)
    found.versions = stored_run.versions(guest | _facts(results))
    print("\n".join(table.lines(found)))
    if json_file is not None:
        stored_run.write(json_file, found)
    if docs:
        page.write(CHECKOUT, found)
        if against is None and whole and not differential.problems(found):
            stored_run.write_reference(stored_run.SHIPPED, found)
    sys.exit(1 if differential.problems(found) else 0)


def _check_options(ctx: typer.Context) -> None:
    """Raises ConfigError for options of `nicemu lab rxe` that the guests of this command have of their own."""
    assert ctx.parent is not None
    for name in ("share", "mtu", "timeout", "dmesg", "console"):
        source = ctx.parent.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name} before `test`: expected none, its guests have their own")


def _choose(pattern: str, only: str | None, folder: Path | None, limit: float) -> "Selection":
    """The ids of both groups that `pattern` finds. Raises ConfigError."""
    from nicemu.cli.conformance import fetch, ids, releases
    from nicemu.cli.rxe_lab.jobs import Selection

    if only not in (None, "verbs", "suite"):
        raise ConfigError(f"--only: expected verbs or suite, given {only!r}")
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"expected a regular expression, given {pattern!r}: {error}") from None
    suite: list[str] = []
    suite_folder = verbs_folder = Path()
    every: list[str] = []
    if only != "verbs":
        try:
            suite_folder = fetch.tests_folder(releases.find(RELEASE))
        except fetch.FetchError as error:
            raise ConfigError(str(error)) from None
        suite = ids.list_ids(suite_folder, ids.ANY_DEVICE)
        if not suite:  # without it nothing would differ
            raise ConfigError(f"expected rdma-core's tests in {str(suite_folder)!r}, found none")
        suite = [test for test in suite if wanted.search(test)]
    if only != "suite":
        verbs_folder = (folder or CHECKOUT / "tests" / "verbs").resolve()
        every = list_verbs(verbs_folder)
    verbs = [test for test in every if wanted.search(test)]
    if not suite and not verbs:
        raise ConfigError(f"expected a pattern that finds a test, given {pattern!r}")
    return Selection(tuple(suite), suite_folder, tuple(verbs), verbs_folder, len(verbs) == len(every), limit)


def list_verbs(folder: Path) -> list[str]:
    """The ids of tests/verbs as pytest collects them, `FILE::TEST[PARAMETERS]`. Raises ConfigError."""
    if not (folder / "conftest.py").is_file():
        raise ConfigError(
            f"expected tests/verbs in {str(folder)!r}: they come with nicemu's sources (--tests DIR), not with the "
            "package; --only suite needs none"
        )
    words = [sys.executable, "-m", "pytest", str(folder), "--collect-only", "-q", "--verbs", "nicemu"]
    done = subprocess.run(
        [*words, "-p", "no:cacheprovider", "--color", "no"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    lines = takewhile(bool, done.stdout.splitlines())  # the ids come first, then a blank line
    found = [line.rpartition("/")[2] for line in lines if "::" in line]
    if done.returncode != 0 or not found:
        said = (done.stderr.strip() or done.stdout.strip() or "no test").splitlines()
        raise ConfigError(f"pytest could not collect {str(folder)!r}: {' | '.join(said[-3:])}")
    return found


def _prepare(machine: "Machine") -> dict[str, Any]:
    """Build the guest's image if it is not there; versions of what is in it. Raises ConfigError."""
    from nicemu.cli.rxe_lab import image, lock, qemu

    try:
        qemu.find()
        qemu.check(machine)
    except ConfigError as error:
        raise ConfigError(f"{error} (--against rxe-7.3 compares with a stored run of rxe instead)") from None
    locked = lock.read(machine.lock or lock.FILE)
    series = machine.kernel or locked.default_kernel
    image.ready(locked, series, machine.mirror)
    versions = {each.name: each.version for each in locked.userspace.packages}
    return {
        "qemu": qemu.version(),
        "kernel_series": series,
        "rdma_core": locked.rdma_core(),
        "pyverbs": versions["python3-pyverbs"],
        "image": image.digest(locked, series),
    }


def _prepare_engine() -> None:
    """Compile the engine, once a release, before the clock of any test runs."""
    words = [sys.executable, "-c", "from nicemu.uverbs import session; session.endpoint()"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        raise ConfigError("the engine could not be prepared")


def _jobs(tests: "Selection", machine: "Machine | None", model: bool) -> "list[Job]":
    """The guests first, since they take longest. `machine` is None if none is to be booted."""
    from nicemu.cli.rxe_lab import jobs
    from nicemu.cli.rxe_lab.differential import HERE, MODEL, SUITE, THERE, VERBS, job_name
    from nicemu.cli.rxe_lab.schedule import Job

    runs: list[tuple[str, str, Callable[..., JobResult]]] = []
    if machine is not None:
        start = partial(jobs.boot, asdict(machine), GUEST_SECONDS)
        runs += [(VERBS, THERE, partial(jobs.verbs_there, tests, start))]
        runs += [(SUITE, THERE, partial(jobs.suite_there, tests, start))]
    for side, profile in ((HERE, None), (MODEL, jobs.PROFILE)):
        if side == HERE or model:
            runs += [(VERBS, side, partial(jobs.verbs_here, tests, profile))]
            runs += [(SUITE, side, partial(jobs.suite_here, tests, profile))]
    has = {VERBS: bool(tests.verbs), SUITE: bool(tests.suite)}
    return [Job(job_name(group, side), run) for group, side, run in runs if has[group]]


def _chosen_of(then: "dict[str, JobResult]", tests: "Selection") -> "dict[str, JobResult]":
    """Of a stored run, the groups and tests that are chosen now; a group that it lacks is a trouble, not the same."""
    from nicemu.cli.rxe_lab.differential import THERE, job_name
    from nicemu.cli.rxe_lab.records import JobResult

    chosen = {"suite": set(tests.suite), "verbs": set(tests.verbs)}
    found = {}
    for group, wanted in chosen.items():
        if wanted:
            name = job_name(group, THERE)
            job = then.get(name, JobResult(name))
            job.records = {test: record for test, record in job.records.items() if test in wanted}
            if not job.records:
                job.trouble = "the stored run has none of these tests"
            found[name] = job
    return found


def _facts(results: "dict[str, JobResult]") -> dict[str, Any]:
    """What the guests told of themselves."""
    told = [job.facts for name, job in results.items() if name.endswith("/rxe")]
    return {name: value for facts in told for name, value in facts.items() if name != "pyverbs"}

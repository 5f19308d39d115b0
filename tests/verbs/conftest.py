"""Which device the tests run on, the fixtures, the time limit of a test, and the record of what was observed.

`--verbs nicemu` (the default) makes `import pyverbs` the emulated NIC and gives each test a lab of its own.
`--verbs rxe` is the pyverbs that is installed, and the device rxe0 (`--device NAME`: another). Only this file may
import nicemu.

`--observations FILE` writes one JSON object a line and test, as each one ends: `id` (file::test[parameters], without
the folder), `outcome` (passed, failed, skipped), `seconds`, `reason` (of a failure or skip), and `observations`, a list
of {what, observed, spec, rxe, why, verdict}: what the test asked of `accept`.
"""

from __future__ import annotations

import faulthandler
import json
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 30
"""Time limit of a test."""
RECORDS = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("verbs", "the device of tests/verbs")
    group.addoption("--verbs", choices=("nicemu", "rxe"), default="nicemu", help="emulated NIC, or the real pyverbs")
    group.addoption("--device", metavar="NAME", help="name of the device (rxe0; nicemu: its first)")
    group.addoption("--profile", metavar="NAME", help="nicemu only: the shipped lab to use, for instance rxe")
    group.addoption("--observations", metavar="FILE", help="write what was observed, one JSON object a line and test")


def side_of(config: pytest.Config) -> str:
    """`nicemu` or `rxe`. The options are unknown when these tests are only a part of the run: then nicemu."""
    return str(config.getoption("verbs", "nicemu"))


def is_rxe(config: pytest.Config) -> bool:
    """The device behaves as rxe where rxe departs from the specification: it is rxe, or nicemu in its place."""
    return side_of(config) == "rxe" or str(config.getoption("profile", "")).startswith("rxe")


def pytest_configure(config: pytest.Config) -> None:
    """Make `import pyverbs` work before the test files are imported."""
    if side_of(config) == "nicemu":
        from nicemu import _alias
        from nicemu.config import ConfigError

        try:
            _alias.install()
            lab_configuration(config)
        except (RuntimeError, ConfigError) as error:
            raise pytest.UsageError(str(error)) from None
    else:
        check_device(config.getoption("device", None) or "rxe0")
    config.addinivalue_line("markers", "unsafe_on_rxe(reason): rxe's kernel crashes or hangs: skipped on that device")
    config.addinivalue_line("markers", "nicemu_is_wrong(reason): expected to fail on nicemu, and on nothing else")
    config.stash[RECORDS] = {}
    path = config.getoption("observations", None)
    if path and not hasattr(config, "workerinput"):
        try:
            Path(path).write_text("")
        except OSError as error:
            raise pytest.UsageError(
                f"--observations: expected a file that can be written, given {path!r}: {error.strerror}"
            ) from None


def check_device(name: str) -> None:
    """Raises pytest.UsageError, with what to do, unless the real pyverbs and the device are here."""
    otherwise = "; without RDMA on this machine: nicemu lab rxe test --only verbs"
    try:
        from pyverbs.device import get_device_list
        from pyverbs.pyverbs_error import PyverbsError
    except ImportError as error:
        raise pytest.UsageError(f"--verbs rxe: expected rdma-core's pyverbs ({error}){otherwise}") from None
    try:
        names = [each.name.decode() for each in get_device_list()]
    except PyverbsError as error:
        raise pytest.UsageError(f"--verbs rxe: expected RDMA devices ({error}){otherwise}") from None
    if name not in names:
        found = ", ".join(names) or "none"
        raise pytest.UsageError(f"--verbs rxe: expected the device {name!r} (--device NAME), found {found}{otherwise}")


def lab_configuration(config: pytest.Config) -> Any:
    from nicemu.config import load_config

    return load_config(config.getoption("profile", None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that takes the whole machine down shows nothing: it is left out on the real rxe, with its reason. What
    nicemu is known to do wrong is skipped there for the table, until it does it right: then the mark has to go."""
    if side_of(config) == "nicemu":
        for item in items:
            if mark := item.get_closest_marker("nicemu_is_wrong"):
                item.add_marker(pytest.mark.xfail(reason=mark.args[0], strict=True))
    if side_of(config) == "rxe" and (config.getoption("device", None) or "rxe0").startswith("rxe"):
        for item in items:
            if mark := item.get_closest_marker("unsafe_on_rxe"):
                item.add_marker(pytest.mark.skip(reason=f"rxe is wrong: {mark.args[0]}"))


# -- the record


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Reports of all processes arrive in the one that writes."""
    if _config is None or hasattr(_config, "workerinput"):
        return
    path = _config.getoption("observations", None)
    if not path:
        return
    name = report.nodeid.rpartition("/")[2]
    record = _config.stash[RECORDS].setdefault(name, {"id": name, "outcome": "passed", "seconds": 0.0, "reason": ""})
    record["seconds"] = round(record["seconds"] + report.duration, 3)
    if report.outcome != "passed" and record["outcome"] != "failed":
        record["outcome"], record["reason"] = report.outcome, _reason(report)
    if report.when == "teardown":
        record["observations"] = [value for key, value in report.user_properties if key == "observation"]
        with Path(path).open("a") as file:
            file.write(json.dumps(record) + "\n")


_config: pytest.Config | None = None


def pytest_sessionstart(session: pytest.Session) -> None:
    global _config
    _config = session.config


def _reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):  # the mark nicemu_is_wrong
        return str(report.wasxfail)
    if isinstance(report.longrepr, tuple):  # a skip
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).partition("\n")[0]


# -- the time limit


def _expire(_signal: int, _frame: object) -> None:
    pytest.fail(f"the test took longer than {SECONDS} s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if side_of(item.config) == "rxe":  # a call that no signal interrupts would hang the machine
        faulthandler.dump_traceback_later(SECONDS + 15, exit=True)
    before = signal.signal(signal.SIGALRM, _expire)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish() -> None:
    faulthandler.cancel_dump_traceback_later()


# -- fixtures


@pytest.fixture(scope="session")
def _engine(pytestconfig: pytest.Config) -> None:
    """The engine is loaded, and compiled if need be, before the first test's clock runs."""
    if side_of(pytestconfig) == "nicemu":
        from nicemu.uverbs import session

        session.reset()
        session.endpoint()
        session.reset()


@pytest.fixture
def device(request: pytest.FixtureRequest, _engine: None) -> Iterator[str]:
    """Name of the device. On nicemu the lab is this test's own, and neither its DMA sanitizer nor its lock validator
    may have anything to say afterwards."""
    name = request.config.getoption("device", None)
    if side_of(request.config) == "rxe":
        yield name or "rxe0"
        return
    from nicemu.lab.violations import violation_lines
    from nicemu.timeline.loop import Quiescent
    from nicemu.uverbs import session

    from . import memory, waiting

    session.reset()
    session.configure(lab_configuration(request.config))
    calls = session.endpoint().process
    memory.CALLS, waiting.NOTHING_COMES = calls, (Quiescent,)
    lab = session.current()
    yield name or lab.devices[0].name
    found = [*violation_lines(lab, 5), *map(str, lab.host.reports)]
    session.reset()
    assert not found, "\n".join(["the emulated host found:", *found])


@pytest.fixture
def side(device: str) -> Iterator[Callable[[], Any]]:
    """Makes sides (sides.Side) of the device; they are closed, and their guards checked, after the test."""
    from .sides import Side

    made: list[Side] = []

    def make() -> Side:
        made.append(Side(device))
        return made[-1]

    yield make
    for each in made:
        each.context.close()
    for each in made:
        each.check_guards()
        each.release_memory()


@pytest.fixture
def near(side: Callable[[], Any]) -> Any:
    """The side that usually asks."""
    return side()


@pytest.fixture
def far(side: Callable[[], Any]) -> Any:
    """The side that usually answers: another context on the same device."""
    return side()


@pytest.fixture
def paged_out(request: pytest.FixtureRequest, device: str) -> Callable[[], int]:
    """Counts the pages that went to swap since the machine began. Without swap none can: the test is skipped."""
    if side_of(request.config) == "nicemu":
        from nicemu.uverbs import session

        counters = session.current().host.counters
        return lambda: int(counters["pswpout"])
    if len(Path("/proc/swaps").read_text().splitlines()) < 2:
        pytest.skip("the machine has no swap: no page can be paged out")
    return lambda: next(int(line.split()[1]) for line in Path("/proc/vmstat").open() if line.startswith("pswpout "))


@pytest.fixture
def accept(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`accept(what, observed, spec=..., rxe=..., why=...)`: see accept.py."""
    from .accept import accept as check

    return lambda what, observed, **expected: check(request.node, is_rxe(request.config), what, observed, **expected)

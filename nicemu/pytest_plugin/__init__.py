"""pytest plug-in: `pytest --nicemu` runs a pyverbs test suite on the emulated NIC (docs/pytest.md).

Options choose the lab and a time limit, the marker `nicemu` gives a test a lab of its own, and fixtures give it two
NICs, faults on purpose and counters. Nothing is imported, and nothing changes, before something of this is used.
"""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicemu import _alias
from nicemu._tracebacks import is_meant_for_programs
from nicemu.pytest_plugin import labs, rdma_core
from nicemu.pytest_plugin.counters import Counters
from nicemu.pytest_plugin.time_limit import TimeLimit

MARKER = """nicemu(**fields): run this test in a lab of its own, with these fields of the configuration: \
@pytest.mark.nicemu(nics=2, impairments=[{"kind": "loss", "every": 3}])"""
LIMIT = pytest.StashKey[TimeLimit]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nicemu", "emulated RDMA NIC")
    group.addoption("--nicemu", action="store_true", help="make `import pyverbs` mean the emulated NIC")
    group.addoption("--nicemu-config", metavar="FILE", help="a YAML file, or the name of a shipped lab")
    group.addoption("--nicemu-seed", metavar="N", type=int, help="seed of the labs; a failure prints it")
    group.addoption("--nicemu-force-odp", action="store_true", help="register every MR with on-demand paging")
    group.addoption(
        "--nicemu-timeout", metavar="SECONDS", type=float, default=60.0, help="time limit of a test (60); 0: none"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    if not config.getoption("--nicemu"):
        return
    from nicemu.config import ConfigError

    try:
        checked = labs.configuration(config)
        _alias.install()
        rdma_core.install(config, checked)
    except (ConfigError, RuntimeError) as error:
        raise pytest.UsageError(f"nicemu: {error}") from None
    from nicemu.uverbs import session

    session.configure(checked)


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A folder of rdma-core's tests is no package to pytest: its `__init__` would import the tests of every vendor."""
    is_ours = parent.config.getoption("--nicemu") and rdma_core.is_suite(path)
    return pytest.Dir.from_parent(parent, path=path) if is_ours else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Load the engine, which may have to be compiled, before the clock of the first test runs."""
    if session.config.getoption("--nicemu") and session.items and not session.config.option.collectonly:
        from nicemu.uverbs import session as verbs

        verbs.endpoint()


def pytest_report_header(config: pytest.Config) -> str | None:
    return f"nicemu: pyverbs is the emulated NIC, {labs.describe(config)}" if config.getoption("--nicemu") else None


# -- a time limit, and what a failure shows


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    seconds = item.config.getoption("--nicemu-timeout") if item.config.getoption("--nicemu") else 0
    item.stash[LIMIT] = TimeLimit(seconds)
    with item.stash[LIMIT]:
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    with item.stash[LIMIT]:
        result = yield
    labs.check_fired(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    limit = item.stash[LIMIT]
    try:
        with TimeLimit(limit.seconds):
            return (yield)
    finally:
        if limit.expired:
            labs.restart(item.config)  # whatever was interrupted is in an unknown state


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    if call.excinfo is not None and _is_said_to_the_test(call.excinfo.value) and not item.config.option.fulltrace:
        labs.end_in_the_test(call.excinfo.tb, item.path)
    report: pytest.TestReport = yield
    if report.failed:
        lines = labs.state(item)
        if lines:
            report.sections.append(("nicemu", "\n".join(lines)))
    return report


def _is_said_to_the_test(error: BaseException) -> bool:
    """Of the API, or of the time limit: where in this package it was raised does not matter to the test."""
    if isinstance(error, pytest.fail.Exception):
        return str(error.msg).startswith("nicemu: ")
    return is_meant_for_programs(error)


# -- fixtures


@pytest.fixture
def nicemu_lab(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The lab behind `nicemu.pyverbs`, started afresh for this test and closed after it.

    Contexts that were open before (fixtures of a wider scope) are dead in it.
    """
    yield from labs.own_lab(request)


@pytest.fixture(autouse=True)
def _nicemu_marked(request: pytest.FixtureRequest) -> None:
    """A marked test has a lab of its own without asking for it by name."""
    if request.node.get_closest_marker("nicemu") is not None:
        request.getfixturevalue("nicemu_lab")


@pytest.fixture
def nicemu_two_nics(nicemu_lab: Any) -> Iterator[tuple[Any, Any]]:
    """Contexts of two NICs on one fabric, in a lab of this test's own."""
    from nicemu.pyverbs.device import Context

    with Context(name=nicemu_lab.devices[0].name) as first, Context(name=nicemu_lab.devices[1].name) as second:
        yield first, second


@pytest.fixture
def nicemu_inject(nicemu_lab: Any) -> Callable[..., Any]:
    """Plant a fault in the running lab: `nicemu_inject("port_down", nic=1, at_ns=5000)`, `at_ns` from now.

    The arguments are the fields of an entry of `inject:`. Raises ConfigError. The test fails if the fault does not
    happen; the answer has `fired`.
    """
    return lambda event, **fields: labs.inject(nicemu_lab, {"event": event, **fields})


@pytest.fixture
def nicemu_impair(nicemu_lab: Any) -> Callable[..., None]:
    """Make the wires of the running lab worse: `nicemu_impair("loss", every=3)`.

    The arguments are the fields of an entry of `impairments:`. Raises ConfigError. The test fails if no packet is hit.
    """
    return lambda kind, **fields: labs.impair(nicemu_lab, {"kind": kind, **fields})


@pytest.fixture
def nicemu_counters(request: pytest.FixtureRequest) -> Counters:
    """Counters of NICs and host by name, and how much they grew since the test began."""
    return Counters()

"""pytest plug-in: `pytest --nicemu` runs a pyverbs test suite on the emulated NIC; `nicemu_lab` gives a fresh lab."""

from collections.abc import Iterator
from typing import Any

import pytest

from nicemu import _alias


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nicemu", "emulated RDMA NIC")
    group.addoption("--nicemu", action="store_true", help="make `import pyverbs` mean the emulated NIC")
    group.addoption("--nicemu-config", metavar="FILE", help="a YAML file, or the name of a shipped lab")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--nicemu"):
        return
    from nicemu.config import ConfigError, load_config

    try:
        checked = load_config(config.getoption("--nicemu-config"))
        _alias.install()
    except (ConfigError, RuntimeError) as error:
        raise pytest.UsageError(f"nicemu: {error}") from None
    from nicemu.uverbs import session

    session.configure(checked)


def pytest_report_header(config: pytest.Config) -> str | None:
    return "nicemu: pyverbs is the emulated NIC" if config.getoption("--nicemu") else None


@pytest.fixture
def nicemu_lab(pytestconfig: pytest.Config) -> Iterator[Any]:
    """The lab behind `nicemu.pyverbs`, started afresh for this test and closed after it."""
    from nicemu.config import load_config
    from nicemu.uverbs import session

    checked = load_config(pytestconfig.getoption("--nicemu-config"))
    session.reset()
    session.configure(checked)
    session.endpoint()  # builds the lab
    yield session.current()
    session.reset()
    session.configure(checked)  # for tests that do not ask for a lab of their own

"""For modules of program tests: one default lab a module, everything a test opened is closed after it."""

from collections.abc import Iterator

import pytest

from nicemu.uverbs import session
from tests.lab.transports import close_all


@pytest.fixture(scope="module")
def default_lab() -> Iterator[None]:
    """A lab of the default configuration."""
    session.reset()
    yield
    session.reset()


@pytest.fixture
def closed_afterwards() -> Iterator[None]:
    """What ``End`` opened."""
    yield
    close_all()

"""For modules of program tests: one default lab a module, everything a test opened is closed after it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nicemu.config import load_config
from nicemu.lab import Lab
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


@pytest.fixture
def faulty() -> Iterator[Callable[..., Lab]]:
    """A lab of simulated RAM, one program thread, with these entries of ``inject:``."""
    labs = []

    def make(*inject: Any, **config: Any) -> Lab:
        lab = Lab(load_config(None, {"memory": "model", "inject": list(inject), **config}))
        lab.timeline._others_may_act = lambda: False  # type: ignore[method-assign]
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.close()

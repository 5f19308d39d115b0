"""An endpoint on a fake device, and an open device of it."""

from __future__ import annotations

import pytest

from nicemu.uverbs import messages as m
from nicemu.uverbs.endpoint import Endpoint
from tests.driver.bench import Bench
from tests.uverbs.calls import FakeProcess


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def endpoint(bench: Bench) -> Endpoint:
    return Endpoint(bench.timeline, bench.driver, FakeProcess(bench))


@pytest.fixture
def context(endpoint: Endpoint) -> int:
    handle: int = endpoint.execute(m.OpenDevice("nicemu0"))
    return handle

"""The driver on its bench, and objects made there."""

from __future__ import annotations

import pytest

from tests.driver.bench import Bench
from tests.driver.objects import Objects


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def made(bench: Bench) -> Objects:
    return Objects(bench)

"""Fixtures of the secondary MMU tests: the machine of the mm tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.mm.conftest import Machine


@pytest.fixture
def make_machine() -> Callable[..., Machine]:
    return Machine


@pytest.fixture
def machine() -> Machine:
    return Machine()

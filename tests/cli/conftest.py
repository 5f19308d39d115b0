"""Processes that these tests start find nicemu even if it is not installed."""

import os
from pathlib import Path

import pytest

import nicemu


@pytest.fixture(autouse=True)
def nicemu_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(nicemu.__file__).parent.parent), prepend=os.pathsep)

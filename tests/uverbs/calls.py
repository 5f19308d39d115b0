"""What a program without memory does to the endpoint of a fake device."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.timeline import Steps
from nicemu.uverbs import messages as m
from nicemu.uverbs.endpoint import Endpoint
from tests.driver.bench import Bench


class FakeProcess:
    """``mm.syscalls.Process`` as far as the endpoint uses it."""

    def __init__(self, bench: Bench) -> None:
        self.mm, self.calls = bench.mm, []

    def munmap(self, address: int, length: int) -> Steps[int]:
        yield 100
        self.calls.append(("munmap", address, length))
        return 0

    def fork(self) -> Steps[None]:
        yield 100
        self.calls.append(("fork",))


def fails(endpoint: Endpoint, command: Any) -> int | None:
    with pytest.raises(m.VerbsError) as caught:
        endpoint.execute(command)
    return caught.value.errno

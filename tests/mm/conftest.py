"""Fixtures of the mm tests: a machine with model memory, without a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nicemu.memory.arena import Arena
from nicemu.mm.bare_host import BareHost
from nicemu.mm.page import PG_HWPOISON

PAGE = 4096


class Machine(BareHost):
    """A host, its timeline, the events it logged."""

    def kinds(self, *wanted: str) -> list[str]:
        """Kinds of the events since the last call, in order."""
        events, self.events = self.events, []
        return [kind for kind, _ in events if not wanted or kind in wanted]

    def frame(self, address: int) -> int:
        """Frame mapped at an address, 0 if none."""
        entry = self.mm.page_table.get(address // PAGE)
        return entry >> 12 if entry & 1 else 0

    def check_counts(self, *spaces: Any) -> None:
        """mapcount of every frame is the number of entries that map it, and nothing leaks."""
        mapped: dict[int, int] = {}
        for mm in spaces or (self.mm,):
            for frame in mm.frames_in(0, 1 << 48).tolist():
                mapped[frame] = mapped.get(frame, 0) + 1
        pages = self.host.pages
        cached = {frame for file in self.host.files.values() for frame in file.pages.values()}
        cached |= {self.host.xip_sparse} - {0}
        for frame in cached - set(mapped):
            assert pages.mapcount[frame] == 0 and pages.refcount[frame] == 1 + pages.pins[frame]
        assert not self.host.page_locks and not self.host.writebacks
        for frame, count in mapped.items():
            assert pages.mapcount[frame] == count
            assert pages.refcount[frame] == count + pages.pins[frame] + (frame in cached)
        held = {frame for frame in range(1, self.frames._next) if pages.kind[frame] and pages.refcount[frame]}
        assert self.frames.allocated == len(held | set(mapped)) + self.host.hugetlb.parked
        unmapped = held - set(mapped) - cached - {self.host.zero_frame}
        assert all(pages.pinned(frame) or pages.flags[frame] & PG_HWPOISON for frame in unmapped)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def make_machine() -> Callable[..., Machine]:
    return Machine


@pytest.fixture
def arena() -> Iterator[Arena]:
    region = Arena(size=1 << 30)
    yield region
    region.close()

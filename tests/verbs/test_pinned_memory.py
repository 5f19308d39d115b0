"""Pinned regions: what the program does to its mapping afterwards does not concern the device."""

from __future__ import annotations

import os

import pytest
from pyverbs import mem_alloc

from .mappings import READ_ONLY, Mapping, file_of
from .memory import PAGE, make_pattern
from .odp import joined, transfer

PAGES = 4
SIZE = PAGES * PAGE
FILE_SHARED = mem_alloc.MAP_SHARED_


@pytest.mark.nicemu_is_wrong("program and device share the real page, and with it its protection (docs/memory.md)")
def test_a_pinned_page_stays_writable_for_the_device(near, far):
    """A pin was made with the rights of its time: mprotect changes the program's, not the device's."""
    ends = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1), target.fill(2)
    target.protect(READ_ONLY)
    assert transfer("write", ends, source, target) == "SUCCESS"
    assert target.bytes() == make_pattern(1, SIZE)


@pytest.mark.nicemu_is_wrong("program and device share the real page, which goes with the file's end (docs/memory.md)")
def test_a_pinned_file_page_outlives_truncation(near, far):
    """What is pinned is written and read by the device; it is in no file any more."""
    ends = joined(near, far)
    file = file_of(make_pattern(5, SIZE))
    source, target = near.region(PAGES), Mapping(far, PAGES, flags=FILE_SHARED, fd=file, odp=False)
    os.ftruncate(file, 0)
    assert transfer("write", ends, source, target) == "SUCCESS"
    os.ftruncate(file, SIZE)
    assert os.pread(file, SIZE, 0) == bytes(SIZE)
    os.close(file)

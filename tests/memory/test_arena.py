"""The arena: real memory at a fixed address, changed by real system calls on exactly the range asked for."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu.memory import safe_copy
from nicemu.memory.arena import BASES, Arena, Space

PAGE = 4096
READ_WRITE = 3


@pytest.fixture
def arena() -> Iterator[Arena]:
    region = Arena(size=1 << 30)
    yield region
    region.close()


def test_lies_at_a_fixed_address_and_is_not_accessible(arena: Arena) -> None:
    assert arena.base in BASES
    assert safe_copy.read(arena.base, 1) == b"" and safe_copy.read(arena.model_base, 1) == b""


def test_map_is_zeroed_first_fit_and_reused(arena: Arena) -> None:
    first, second = arena.map(0, 2 * PAGE, READ_WRITE), arena.map(0, PAGE, READ_WRITE)
    assert (first, second) == (arena.base, arena.base + 2 * PAGE)
    ctypes.memset(first, 7, 2 * PAGE)
    arena.unmap(first, 2 * PAGE)
    assert safe_copy.read(first, 1) == b""
    assert arena.map(0, PAGE, READ_WRITE) == first and safe_copy.read(first, PAGE) == bytes(PAGE)
    assert arena.map(0, 2 * PAGE, READ_WRITE) == second + PAGE


def test_alignment(arena: Arena) -> None:
    arena.map(0, PAGE, READ_WRITE)
    assert arena.map(0, PAGE, READ_WRITE, alignment=1 << 21) % (1 << 21) == 0


def test_discard_and_protect(arena: Arena) -> None:
    at = arena.map(0, 2 * PAGE, READ_WRITE)
    ctypes.memset(at, 7, 2 * PAGE)
    arena.discard(at, PAGE)
    assert safe_copy.read(at, 2 * PAGE) == bytes(PAGE) + b"\7" * PAGE
    arena.protect(at + PAGE, PAGE, 1)
    assert safe_copy.write(at + PAGE, b"x") == 0 and safe_copy.read(at + PAGE, 1) == b"\7"
    arena.protect(at, PAGE, 0)
    assert safe_copy.read(at, 1) == b""


def test_remap_moves_contents(arena: Arena) -> None:
    old, new = arena.map(0, PAGE, READ_WRITE), arena.map(0, 2 * PAGE, READ_WRITE)
    ctypes.memset(old, 7, PAGE)
    arena.remap(old, PAGE, new)
    assert safe_copy.read(new, 2 * PAGE) == b"\7" * PAGE + bytes(PAGE) and safe_copy.read(old, 1) == b""
    assert arena.space.is_free(old, PAGE)


def test_too_big_is_enomem(arena: Arena) -> None:
    with pytest.raises(OSError, match="Cannot allocate"):
        arena.map(0, 2 << 30, READ_WRITE)


def test_second_arena_lies_elsewhere(arena: Arena) -> None:
    other = Arena(size=1 << 30)
    assert other.base != arena.base and other.base in BASES
    other.close()


def test_same_addresses_in_every_process(arena: Arena) -> None:
    """Address randomisation, another environment and another hash seed change nothing."""
    arena.close()
    code = "from nicemu.memory.arena import Arena; a = Arena(); print(a.base, a.map(0, 8192, 3), a.map(0, 4096, 3))"
    outputs = set()
    for seed in ("0", "1"):
        environment = dict(os.environ, PYTHONHASHSEED=seed, PADDING="x" * 1000 * int(seed))
        outputs.add(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True,
                                   text=True).stdout)  # fmt: skip
    arena.__init__(size=1 << 30)  # type: ignore[misc]
    assert len(outputs) == 1 and outputs.pop().split()[0] == str(BASES[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 15), st.integers(1, 8)), max_size=60))
def test_space_is_first_fit_and_joins_neighbours(steps: list[tuple[bool, int, int]]) -> None:
    space, used = Space(PAGE, 16 * PAGE), set[int]()
    for take, page, pages in steps:
        if take:
            free = next((i for i in range(17 - pages) if not used & set(range(i, i + pages))), None)
            if free is None:
                with pytest.raises(OSError):
                    space.take(pages * PAGE, PAGE)
            else:
                assert space.take(pages * PAGE, PAGE) == PAGE + free * PAGE
                used |= set(range(free, free + pages))
        else:
            pages = min(pages, 16 - page)
            space.give(PAGE + page * PAGE, pages * PAGE)
            used -= set(range(page, page + pages))
    for page in range(16):
        assert space.is_free(PAGE + page * PAGE, PAGE) == (page not in used)


@pytest.mark.parametrize("method", ["process_vm", "memfd"])
def test_safe_copy_stops_at_the_bad_page(arena: Arena, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(safe_copy, "_method", [method])
    at = arena.map(0, 2 * PAGE, READ_WRITE)
    assert safe_copy.write(at, b"x" * PAGE) == PAGE and safe_copy.read(at, PAGE) == b"x" * PAGE
    arena.protect(at + PAGE, PAGE, 0)
    assert safe_copy.read(at + PAGE - 10, 20) == b"x" * 10
    assert safe_copy.write(at + PAGE - 10, b"y" * 20) == 10
    assert safe_copy.read(0, 8) == b"" and safe_copy.write(0, b"x") == 0
    assert safe_copy.read(at, 0) == b"" and safe_copy.write(at, b"") == 0


def test_method_is_named() -> None:
    assert safe_copy.method() in ("process_vm", "memfd")


def test_scratch_for_compiled_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_copy, "_method", ["process_vm"])
    assert safe_copy.scratch() == (0, 0)
    monkeypatch.setattr(safe_copy, "_method", ["memfd"])
    fd, address = safe_copy.scratch()
    os.pwrite(fd, b"seen", 0)
    assert ctypes.string_at(address, 4) == b"seen"


@pytest.mark.parametrize("populate", [True, False])
def test_first_bad_page_leaves_contents_alone(arena: Arena, monkeypatch: pytest.MonkeyPatch, populate: bool) -> None:
    if populate and not safe_copy._can_populate():
        pytest.skip("this kernel has no MADV_POPULATE")
    monkeypatch.setattr(safe_copy, "_populate", [populate])
    at = arena.map(0, 8 * PAGE, READ_WRITE)
    ctypes.memset(at, 7, 8 * PAGE)
    assert safe_copy.first_bad_page(at, 8, True) is None
    arena.protect(at + 5 * PAGE, PAGE, 1)
    assert safe_copy.first_bad_page(at, 8, False) is None
    assert safe_copy.first_bad_page(at, 8, True) == at + 5 * PAGE
    arena.unmap(at + 2 * PAGE, PAGE)
    assert safe_copy.first_bad_page(at, 8, False) == at + 2 * PAGE
    assert safe_copy.read(at, PAGE) == b"\7" * PAGE

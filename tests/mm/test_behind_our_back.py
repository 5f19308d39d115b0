"""Calls on memory that the program changed behind our back: the kernel's answer, and nothing of the model left open."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.memory import arena as real
from nicemu.memory import safe_copy
from nicemu.mm import Fault

PAGE = 4096


@pytest.fixture
def here(make_machine: Any, arena: Any) -> Any:
    """A machine whose program has an arena."""
    return make_machine(arena=arena)


@pytest.fixture(params=["arena", "program"])
def touched(request: Any, here: Any) -> int:
    """Four pages that the device translated."""
    if request.param == "arena":
        at = here.run(here.process.mmap(4 * PAGE))
    else:
        at = real.mmap(0, 4 * PAGE, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS)
        here.mm.adopt(at, 4 * PAGE)
    here.run(here.mm.fault_in(at, 4, True))
    safe_copy.write(at, b"\7" * 4 * PAGE)
    return int(at)


@pytest.mark.parametrize("operation", ["discard", "protect"])
def test_enomem_for_a_hole_ends_the_invalidation(here: Any, touched: int, operation: str) -> None:
    real.munmap(touched + PAGE, PAGE)
    call = (here.process.madvise(touched, 4 * PAGE, 4) if operation == "discard"
            else here.process.mprotect(touched, 4 * PAGE, 1))  # fmt: skip
    here.kinds()
    with pytest.raises(OSError, match="Cannot allocate"):
        here.run(call)
    kinds = here.kinds("notifier_start", "notifier_end")
    assert kinds.count("notifier_start") == kinds.count("notifier_end") == 1
    here.check_counts()


def test_discard_with_a_hole_drops_every_page(here: Any, touched: int) -> None:
    real.munmap(touched + PAGE, PAGE)
    with pytest.raises(OSError, match="Cannot allocate"):
        here.run(here.process.madvise(touched, 4 * PAGE, 4))
    assert not any(here.frame(touched + page * PAGE) for page in range(4))
    assert safe_copy.read(touched, 1) == safe_copy.read(touched + 3 * PAGE, 1) == b"\0"
    here.run(here.process.munmap(touched, 4 * PAGE))
    assert here.frames.allocated == 0


def test_mprotect_is_real_even_if_the_model_has_it_so_already(here: Any, touched: int) -> None:
    real.mprotect(touched, PAGE, 0)
    here.run(here.process.mprotect(touched, 4 * PAGE, 3))
    assert safe_copy.write(touched, b"x") == 1


def test_mprotect_that_failed_half_way_leaves_the_device_without_access(here: Any, touched: int) -> None:
    real.munmap(touched + PAGE, PAGE)
    with pytest.raises(OSError, match="Cannot allocate"):
        here.run(here.process.mprotect(touched, 4 * PAGE, 1))
    with pytest.raises(Fault):
        here.run(here.mm.fault_in(touched, 1, True))
    assert safe_copy.write(touched, b"x") == 0

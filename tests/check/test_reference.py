"""The sequential reference: which histories it explains, and which it refuses."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.check.operations import Fork, Madvise, Mprotect, Munmap, Write
from nicemu.check.reference import READ, WRITE, Call, Cell, Effect, State, discard, explained, load, loads, store
from nicemu.check.requests import FLUSHED, RdmaRead, RdmaWrite

A, B = ("", "a", 0), ("", "a", 1)
INITIAL: State = {A: Cell(READ | WRITE, 1), B: Cell(READ | WRITE, 2)}


def put(called: int, returned: int, value: int, key: tuple[str, str, int] = A) -> Call:
    return Call(f"write {value}", called, returned, (partial(store, key=key, value=value),))


def saw(called: int, returned: int, value: int | None, key: tuple[str, str, int] = A) -> Call:
    return Call(f"read {value}", called, returned, (partial(loads, key=key, value=value),))


def call(operation: object, called: int, returned: int, result: object = "ok") -> Call:
    return Call(str(operation), called, returned, tuple(operation.effects(("thread", called), result)))  # type: ignore[attr-defined]


def explains(*threads: list[Call], a: int | None = 1, b: int | None = 2, initial: State = INITIAL) -> bool:
    final = {key: value for key, value in ((A, a), (B, b)) if value is not None}
    return explained(list(threads), initial, final)


# Order ----------------------------------------------------------------------------------------------------------------


def test_an_empty_history_leaves_what_was_there() -> None:
    assert explains() and not explains(a=5)


def test_a_thread_sees_its_own_writes_in_order() -> None:
    assert explains([put(1, 2, 5), saw(3, 4, 5)], a=5)
    assert not explains([put(1, 2, 5), saw(3, 4, 1)], a=5)
    assert not explains([put(1, 2, 5), put(3, 4, 6)], a=5)


def test_overlapping_calls_may_be_in_either_order() -> None:
    for last in (5, 6):
        assert explains([put(1, 4, 5)], [put(2, 3, 6)], a=last)
    assert not explains([put(1, 4, 5)], [put(2, 3, 6)], a=1)


def test_calls_that_do_not_overlap_keep_their_order() -> None:
    assert explains([put(1, 2, 5)], [put(3, 4, 6)], a=6)
    assert not explains([put(1, 2, 5)], [put(3, 4, 6)], a=5)


def test_two_readers_may_not_disagree_about_the_order() -> None:
    writers = [put(1, 20, 5)], [put(2, 21, 6)]
    assert explains(*writers, [saw(3, 4, 5), saw(5, 6, 6)], [saw(7, 8, 6)], a=6)
    assert not explains(*writers, [saw(3, 4, 5), saw(5, 6, 6)], [saw(7, 8, 6), saw(9, 10, 5)], a=6)


def test_a_call_of_two_pages_may_be_seen_half_done() -> None:
    both = Call("write both", 1, 10, (partial(store, key=A, value=5), partial(store, key=B, value=6)))
    assert explains([both], [saw(2, 3, 5), saw(4, 5, 2, B)], a=5, b=6)
    assert not explains([both], [saw(2, 3, 1), saw(4, 5, 6, B)], [saw(6, 7, 1)], a=5, b=6)


def test_two_calls_that_return_at_once_are_no_history() -> None:
    with pytest.raises(AssertionError, match="returned at once"):
        explains([put(1, 2, 5)], [put(1, 2, 6)])


# System calls ---------------------------------------------------------------------------------------------------------


def test_dontneed_leaves_zeros_and_not_the_old_bytes() -> None:
    dontneed = [call(Madvise("a"), 1, 2)]
    assert explains(dontneed, a=0) and not explains(dontneed, a=1)
    assert explains(dontneed, [put(3, 4, 9)], a=9)


def test_what_was_unmapped_is_not_there() -> None:
    munmap = [call(Munmap("a", 0, 2), 1, 2)]
    assert explains(munmap, a=None, b=None) and not explains(munmap, a=1, b=None)


def test_without_write_permission_a_write_fails() -> None:
    protect = [call(Mprotect("a"), 1, 2)]
    assert explains(protect, [call(Write("a", value=5), 3, 4, "EFAULT")])
    assert not explains(protect, [call(Write("a", value=5), 3, 4, "ok")], a=5)


def test_pages_without_any_permission_are_not_seen_at_the_end() -> None:
    assert explains([call(Mprotect("a", prot=0), 1, 2)], a=None)


def test_a_fork_copies_what_is_there() -> None:
    child = ("child", "a", 0)
    fork = Fork().effects("before", None)
    state = dict(INITIAL)
    assert all(effect(state) for effect in fork)
    assert store(state, A, 5) and load(state, child) == 1


def test_a_fork_may_copy_a_page_before_and_another_after_a_write() -> None:
    fork = call(Fork(), 1, 10, (("a", 0), ("a", 1)))
    final = {A: 5, B: 6, ("child", "a", 0): 1, ("child", "a", 1): 6}
    assert explained([[fork], [put(2, 3, 5), put(4, 5, 6, B)]], INITIAL, final)
    assert not explained([[fork], [put(12, 13, 5), put(14, 15, 6, B)]], INITIAL, final)


# Files and lazy freeing -----------------------------------------------------------------------------------------------

FILE = ("f", 0)


def mapped(shared: bool) -> State:
    return {A: Cell(READ | WRITE, None, FILE, shared), FILE: 7}


def test_a_write_to_a_shared_mapping_changes_the_file() -> None:
    state = mapped(shared=True)
    assert store(state, A, 8) and state[FILE] == 8
    assert discard(state, A) and load(state, A) == 8


def test_a_write_to_a_private_mapping_leaves_the_file() -> None:
    state = mapped(shared=False)
    assert store(state, A, 8) and state[FILE] == 7 and load(state, A) == 8
    assert discard(state, A) and load(state, A) == 7


def test_beyond_the_end_of_a_file_nothing_can_be_read_or_written() -> None:
    state = mapped(shared=True) | {FILE: None}
    assert load(state, A) is None and not store(state, A, 8)
    assert explained([], state, {})


def test_after_madv_free_a_page_may_hold_its_bytes_or_zeros_until_it_is_written() -> None:
    free = call(Madvise("a", advice=8), 1, 2)
    for seen in (0, 1):
        assert explains([free], a=seen)
    assert explains([free, saw(3, 4, 1), saw(5, 6, 0)], a=0)
    assert not explains([free, saw(3, 4, 0), saw(5, 6, 1)], a=1)
    assert not explains([free, put(3, 4, 5)], a=0)


# The device -----------------------------------------------------------------------------------------------------------


def test_a_flushed_request_does_nothing() -> None:
    assert explains([call(RdmaWrite("a", value=70), 1, 2, (FLUSHED,))])
    assert explains([call(RdmaRead("a"), 1, 2, (FLUSHED, 255))])


def test_a_failed_request_does_its_first_pages_at_most() -> None:
    failed = call(RdmaWrite("a", 0, 2, value=70), 3, 4, ("REM_ACCESS_ERR",))
    gone = [call(Munmap("a", 1), 1, 2)]
    assert explains(gone, [failed], a=70, b=None)
    assert not explains(gone, [failed], a=1, b=None)


def test_a_request_fails_only_where_something_is_missing() -> None:
    assert not explains([call(RdmaWrite("a", 0, 2, value=70), 1, 2, ("REM_ACCESS_ERR",))], a=70, b=71)


# What ran one after the other is explained ----------------------------------------------------------------------------

Action = tuple[int, str, int, int]
ACTIONS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["put", "saw", "dontneed"]), st.integers(0, 1), st.integers(1, 5)),
    max_size=8,
)


def ran(actions: list[Action], early: int, late: int) -> tuple[list[list[Call]], dict[object, int | None]]:
    """A sequential run, whose calls take longer than they must."""
    state, threads, points = dict(INITIAL), [[], [], []], [100 * i for i in range(len(actions))]  # type: ignore[var-annotated]
    for i, (thread, what, page, value) in enumerate(actions):
        key = ("", "a", page)
        effect: Effect = {
            "put": partial(store, key=key, value=value),
            "saw": partial(loads, key=key, value=load(state, key)),
            "dontneed": partial(discard, key=key),
        }[what]
        assert effect(state)
        following = [points[j] for j in range(i + 1, len(actions)) if actions[j][0] == thread]
        before = threads[thread][-1].returned if threads[thread] else -1000
        returned = min(points[i] + 100 * late, min(following, default=10**6) - 50) + i + 1
        threads[thread].append(Call(what, max(before + 1, points[i] - 100 * early), returned, (effect,)))
    return threads, {key: load(state, key) for key in (A, B)}


@given(ACTIONS, st.integers(0, 3), st.integers(0, 3))
def test_every_run_of_calls_one_after_the_other_is_explained(actions: list[Action], early: int, late: int) -> None:
    threads, final = ran(actions, early, late)
    assert explained(threads, INITIAL, final)


@given(ACTIONS, st.integers(0, 3), st.sampled_from([A, B]))
def test_a_byte_that_nobody_wrote_is_never_explained(
    actions: list[Action], late: int, key: Callable[..., None]
) -> None:
    threads, final = ran(actions, 0, late)
    assert not explained(threads, INITIAL, final | {key: 99})

"""Pages of simulated RAM: zero when taken, poison when freed, given back to the system when freed in runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.memory.frame_ids import FrameIds
from nicemu.memory.slots import DISCARD, POISON, Slots

PAGES = 4 * DISCARD


@pytest.fixture
def slots():
    return Slots(PAGES)


def test_a_freed_page_is_poison_until_it_is_taken_again(slots):
    slot = slots.take()
    slots.page(slot)[:] = 7
    slots.give(slot)
    assert (slots.page(slot) == POISON).all()
    assert slots.take() == slot and not slots.page(slot).any()


@pytest.mark.parametrize("count", [1, DISCARD - 1])
def test_a_few_pages_freed_together_are_poison(slots, count):
    taken = slots.take_many(count)
    slots.give_many(taken)
    assert all((slots.page(slot) == POISON).all() for slot in taken)


def test_a_long_run_is_zero_at_once(slots):
    taken = slots.take_many(DISCARD)
    slots.bytes[:] = 9
    slots.give_many(taken)
    assert not any(slots.page(slot).any() for slot in taken)
    assert (slots.page(DISCARD) == 9).all()


def test_pages_that_lie_apart_are_poison(slots):
    taken = slots.take_many(2 * DISCARD)[::2].copy()
    slots.give_many(taken)
    assert all((slots.page(slot) == POISON).all() for slot in taken)


@given(moves=st.lists(st.tuples(st.booleans(), st.integers(0, PAGES)), max_size=20), shuffled=st.booleans())
def test_a_page_is_nobody_elses_and_zero(moves, shuffled):
    slots, held = Slots(PAGES), []
    for take, count in moves:
        if take:
            taken = slots.take_many(min(count, slots.free))
            assert not any(slots.page(slot).any() for slot in taken)
            slots.bytes.reshape(-1, 4096)[taken, 0] = 1
            held += taken.tolist()
        else:
            given_back = held[:count]
            if shuffled:
                given_back = given_back[::-1]
            slots.give_many(np.array(given_back, np.int64))
            held = held[count:]
        assert len(set(held)) == len(held) == PAGES - slots.free


@given(moves=st.lists(st.integers(-9, 9), max_size=40))
def test_ids_rest_first_in_first_out(moves):
    ids, model, number = FrameIds(16), [], 0
    for move in moves:
        if move > 0:
            new = list(range(number, number + min(move, 16 - len(model))))
            number += len(new)
            if len(new) == 1:
                ids.push(new[0])
            else:
                ids.push_many(np.array(new, np.int64))
            model += new
        elif move == -1 and model:
            assert ids.pop() == model.pop(0)
        else:
            count = min(-move, len(model))
            assert ids.pop_many(count).tolist() == model[:count]
            model = model[count:]
        assert len(ids) == len(model)

"""The sparse page list against a dense one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nicemu.driver.page_list import CHUNK, PageList

PAGES = 4 * CHUNK
runs = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 2 * CHUNK) | st.just(1), st.booleans())


@given(operations=st.lists(runs, max_size=12), look=runs)
def test_it_says_what_a_dense_list_says(operations, look):
    sparse, dense = PageList(), np.zeros(PAGES, np.int64)
    for first, count, store in operations:
        last = min(first + count, PAGES)
        if store:
            frames = np.arange(first, last) % 5  # some are 0: not mapped
            if len(frames) == 1:
                sparse.store_page(first, int(frames[0]))
            else:
                sparse.store(first, frames)
            dense[first:last] = frames
        else:
            sparse.clear(first, last)
            dense[first:last] = 0
    first, last = look[0], min(look[0] + look[1], PAGES)
    assert list(sparse.numbers(first, last)) == list(np.flatnonzero(dense[first:last]) + first)
    assert sparse.mapped == np.count_nonzero(dense)
    assert [page in sparse for page in (first, last - 1)] == [dense[first] != 0, dense[last - 1] != 0]


def test_an_empty_chunk_goes():
    pages = PageList()
    pages.store(1 << 40, np.array([1]))
    pages.clear(0, 1 << 50)
    assert not pages._chunks and list(pages.numbers(0, 1 << 50)) == []

"""On-demand MRs over file mappings: RDMA goes to the page cache, is written back, and ends at the end of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nicemu.abi.verbs import AsyncEvent, QpState, WcStatus
from nicemu.mm.file import FileKind, OpenFile
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.wr import SGE, SendWR
from nicemu.uverbs import session
from tests.lab.failures import lab, pair, pass_time, says
from tests.lab.transports import End

PAGE = 4096
ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_ON_DEMAND
KINDS = [FileKind.REGULAR, FileKind.SHMEM, FileKind.DAX]


@pytest.fixture(autouse=True)
def simulated_ram() -> Iterator[None]:
    """Files are model memory."""
    with lab(memory="model"):
        yield


def mapped(end: End, size: int, kind: FileKind = FileKind.REGULAR) -> tuple[Any, OpenFile, MR]:
    """A file of ``size`` bytes, mapped shared in four pages that are an on-demand MR."""
    process = session.endpoint().process
    file = process.open_file("data", size, kind)
    at = process.mmap_file(file, 4 * PAGE, 3, True)
    return process, file, MR(end.pd, 4 * PAGE, ACCESS, at)


def write(left: End, mr: MR, data: bytes, offset: int = 0, number: int = 1) -> None:
    """An RDMA WRITE into the file's MR."""
    left.mr.write(data, len(data))
    wr = SendWR(number, e.IBV_WR_RDMA_WRITE, 1, sg=[SGE(left.mr.buf, len(data), left.mr.lkey)])
    wr.set_wr_rdma(mr.rkey, mr.buf + offset)
    left.qp.post_send(wr)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
def test_an_rdma_write_is_in_the_file(kind: FileKind) -> None:
    left, right = pair()
    process, file, mr = mapped(right, 4 * PAGE, kind)
    write(left, mr, b"by RDMA", PAGE)
    pass_time()
    assert process.pread(file, 7, PAGE) == b"by RDMA"


def test_after_writeback_the_next_rdma_write_makes_the_page_dirty_again() -> None:
    left, right = pair()
    process, file, mr = mapped(right, 4 * PAGE)
    for data in (b"first", b"later"):
        write(left, mr, data)
        pass_time()
        assert process.fsync(file) == 1 and file.inode.blocks[0][:5] == data
    assert process.fsync(file) == 0


def test_local_memory_beyond_the_end_of_the_file_is_loc_prot_err() -> None:
    left, right = pair()
    _, _, mr = mapped(left, PAGE)
    left.qp.post_send(SendWR(1, num_sge=1, sg=[SGE(mr.buf + PAGE, 8, mr.lkey)]))
    says(left, right, left=[(1, WcStatus.LOC_PROT_ERR)], states=(QpState.ERR, QpState.RTS))


def test_remote_memory_that_was_truncated_under_the_mr_is_rem_access_err() -> None:
    left, right = pair()
    process, file, mr = mapped(right, 4 * PAGE)
    write(left, mr, b"data", 2 * PAGE)
    pass_time()
    process.ftruncate(file, 2 * PAGE)
    write(left, mr, b"data", 2 * PAGE, 2)
    says(left, right, left=[(1, WcStatus.SUCCESS), (2, WcStatus.REM_ACCESS_ERR)], states=(QpState.ERR,) * 2,
         events=([], [AsyncEvent.QP_ACCESS_ERR]))  # fmt: skip

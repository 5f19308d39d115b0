"""Memory of the program, real mappings: what it does to them behind our back is honoured, never a crash."""

import ctypes
import mmap

import pytest

from nicemu.abi.verbs import QpState, WcStatus
from nicemu.tables.records import FrameKind
from tests.nic.conftest import Rc
from tests.nic.testbench import Bench, Mr, WrOpcode, pair

PAGE = 4096
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
libc.mmap.restype = ctypes.c_void_p
NONE, READ_ONLY, READ_WRITE = 0, 1, 3


class Mapping:
    """Pages of the process that a test may take away."""

    def __init__(self, pages: int) -> None:
        self.address = libc.mmap(None, pages * PAGE, READ_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        self.size = pages * PAGE

    def protect(self, prot: int, page: int = 0, pages: int | None = None) -> None:
        """mprotect of some pages."""
        size = self.size - page * PAGE if pages is None else pages * PAGE
        assert libc.mprotect(self.address + page * PAGE, size, prot) == 0

    def unmap(self, page: int = 0, pages: int | None = None) -> None:
        """munmap of some pages; the hole is kept reserved by nobody, as in a real program."""
        size = self.size - page * PAGE if pages is None else pages * PAGE
        assert libc.munmap(self.address + page * PAGE, size) == 0

    @property
    def data(self) -> bytes:
        """What is there."""
        return ctypes.string_at(self.address, self.size)

    def fill(self, byte: int) -> None:
        """Every byte."""
        ctypes.memset(self.address, byte, self.size)


@pytest.fixture(params=[FrameKind.PROGRAM, FrameKind.ARENA], ids=["program", "arena"])
def real(request) -> tuple[Rc, Mapping]:
    """An RC pair whose requester's region is real memory of the process (4 pages of 0x41)."""
    bench = Bench()
    a, b = pair(bench)
    rc = Rc(bench, a, b, on_mapping(bench, request.param), bench.mr(4))
    rc.remote.fill(2)
    return rc, rc.local.mapping


def on_mapping(bench: Bench, kind: FrameKind) -> Mr:
    """A mapped region over 4 fresh pages of the process."""
    mapping = Mapping(4)
    mapping.fill(0x41)
    mr = bench.region(4)
    mr.frames = [bench.frames.allocate(kind, mapping.address + page * PAGE) for page in range(4)]
    mr.mapping = mapping
    mr.map()
    return mr


def enter(rc: Rc) -> None:
    """The program ran."""
    rc.bench.engine.enter()


def test_bytes_move_both_ways(real):
    rc, mapping = real
    rc.write(1, 9000, offset=100)
    rc.bench.run()
    assert rc.remote.data[:9000] == b"\x41" * 9000
    rc.remote.fill(5)
    rc.read(2, 9000, offset=100)
    rc.bench.run()
    assert mapping.data == b"\x41" * 100 + rc.remote.data[:9000] + b"\x41" * (4 * PAGE - 9100)
    assert rc.a.statuses() == [(1, 0), (2, 0)]


def test_what_the_program_wrote_meanwhile_is_seen(real):
    rc, mapping = real
    rc.write(1, 8)
    rc.bench.run()
    mapping.fill(0x42)
    enter(rc)
    rc.write(2, 8)
    rc.bench.run()
    assert rc.remote.data[:8] == b"\x42" * 8


TAKEN = {"unmapped": lambda mapping: mapping.unmap(), "no access": lambda mapping: mapping.protect(NONE)}
every_way = pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN.keys())


@every_way
def test_sending_from_memory_that_is_gone_is_a_local_protection_error(real, take):
    rc, mapping = real
    before = rc.remote.data
    rc.write(1, 64)
    rc.bench.run()
    take(mapping)
    enter(rc)
    rc.write(2, 64)
    rc.write(3, 64)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, WcStatus.LOC_PROT_ERR), (3, WcStatus.WR_FLUSH_ERR)]
    assert rc.remote.data[64:] == before[64:]


@every_way
def test_reading_into_memory_that_is_gone_is_a_local_protection_error(real, take):
    rc, mapping = real
    take(mapping)
    enter(rc)
    rc.read(1, 5000)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_PROT_ERR)]


def test_reading_into_read_only_memory_writes_nothing(real):
    rc, mapping = real
    mapping.protect(READ_ONLY)
    enter(rc)
    rc.read(1, 5000)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_PROT_ERR)] and mapping.data == b"\x41" * 4 * PAGE


def test_sending_from_read_only_memory_works(real):
    rc, mapping = real
    mapping.protect(READ_ONLY)
    enter(rc)
    rc.write(1, 5000)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data[:5000] == b"\x41" * 5000


@every_way
@pytest.mark.parametrize("opcode", [WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ, WrOpcode.ATOMIC_FETCH_AND_ADD])
def test_a_peer_that_names_memory_that_is_gone_gets_a_remote_access_error(real, take, opcode):
    rc, mapping = real
    take(mapping)
    enter(rc)
    rc.b.post_send(1, opcode, rc.remote.sge(8), remote=rc.local.va, rkey=rc.local.key, compare=1)
    rc.bench.run()
    assert rc.b.statuses() == [(1, WcStatus.REM_ACCESS_ERR)] and rc.a.row().state == QpState.ERR


@every_way
def test_a_send_into_a_receive_buffer_that_is_gone(real, take):
    rc, mapping = real
    take(mapping)
    enter(rc)
    rc.a.post_recv(5, rc.local.sge(64))
    rc.a.post_recv(6, rc.local.sge(64))
    rc.b.post_send(1, WrOpcode.SEND, rc.remote.sge(64))
    rc.bench.run()
    assert rc.b.statuses() == [(1, WcStatus.REM_OP_ERR)]
    assert rc.a.statuses() == [(5, WcStatus.LOC_PROT_ERR), (6, WcStatus.WR_FLUSH_ERR)]


@pytest.mark.parametrize("page", range(4))
def test_one_page_of_several_is_gone(real, page):
    rc, mapping = real
    mapping.unmap(page, 1)
    enter(rc)
    rc.write(1, 4 * PAGE)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_PROT_ERR)]
    assert rc.remote.data[: page * PAGE] == b"\x41" * (page * PAGE)


def test_trying_again_in_the_same_epoch_does_not_crash(real):
    """A page that failed its check must not count as checked."""
    rc, mapping = real
    mapping.unmap()
    enter(rc)
    for wr_id in range(3):
        rc.b.modify(1, STATE=QpState.RESET)
        rc.a.modify(1, STATE=QpState.RESET)
        rc.a.record.word(0, 0)
        rc.a.connect(rc.b)
        rc.b.connect(rc.a)
        rc.write(wr_id, 64) if wr_id % 2 else rc.read(wr_id, 64)
        rc.bench.run()
        assert rc.a.statuses() == [(wr_id, WcStatus.LOC_PROT_ERR)]


def test_memory_given_back_works_again(real):
    rc, mapping = real
    mapping.protect(NONE)
    mapping.protect(READ_WRITE)
    enter(rc)
    rc.write(1, 64)
    rc.read(2, 64)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]


@pytest.mark.parametrize("where", ["local", "remote"])
def test_everything_works_the_same_through_a_memfd(real, where):
    """Where process_vm_readv is forbidden."""
    import os

    rc, mapping = real
    fd = os.memfd_create("test-scratch")
    os.ftruncate(fd, PAGE)
    shared = mmap.mmap(fd, PAGE)
    control = rc.bench.world.control[0]
    codes = int(control.copy_code), int(control.probe_code)
    control.copy_code = control.probe_code = 0
    control.scratch_fd, control.scratch_map = fd, ctypes.addressof(ctypes.c_char.from_buffer(shared))
    rc.write(1, 5000)
    rc.read(2, 3000, offset=9000)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)] and rc.remote.data[:5000] == b"\x41" * 5000
    assert mapping.data[9000:12000] == rc.remote.data[:3000]
    mapping.unmap()
    enter(rc)
    rc.write(3, 64) if where == "local" else rc.read(3, 64)
    rc.bench.run()
    assert rc.a.statuses() == [(3, WcStatus.LOC_PROT_ERR)]
    control.scratch_fd, control.copy_code, control.probe_code = 0, *codes
    os.close(fd)

"""MR buffers and mem_alloc."""

import errno

import pytest

from nicemu.pyverbs import mem_alloc
from nicemu.pyverbs.libibverbs_enums import ibv_access_flags as access
from nicemu.pyverbs.mr import MR, MWBindInfo
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.wr import SGE
from nicemu.uverbs import messages


def test_registration_is_told_to_the_kernel(kernel, pd):
    mr = MR(pd, 128.9, access.IBV_ACCESS_LOCAL_WRITE)
    assert kernel.log[-1] == messages.RegMr(pd.handle, mr.buf, 128, 1, mr.buf)
    assert (mr.length, mr.lkey, mr.rkey) == (128, mr.handle << 8, mr.handle << 8)


def test_implicit_registration_covers_everything(kernel, pd):
    mr = MR(pd, 64, access.IBV_ACCESS_ON_DEMAND, implicit=True)
    command = kernel.log[-1]
    assert (command.address, command.length, mr.length) == (0, 2**64 - 1, 2**64 - 1)
    assert mr.buf


def test_huge_pages_that_are_not_there_are_no_rdma_error(kernel, pd):
    with pytest.raises(PyverbsError, match="Failed to allocate MR buffer of size 5") as info:
        MR(pd, 5, access.IBV_ACCESS_HUGETLB)
    assert not isinstance(info.value, PyverbsRDMAError)
    assert kernel.process.calls[0][1] == 0x200000


def test_write_then_read(pd):
    mr = MR(pd, 64, 1)
    mr.write("abc", 3, 5)
    assert mr.read(3, 5) == b"abc"
    assert MR.read(mr, 2, 6) == b"bc"


def test_write_past_the_data_writes_zeros(pd):
    mr = MR(pd, 64, 1)
    mr.write(b"\xff" * 8, 8)
    mr.write("abc", 5)
    assert mr.read(8, 0) == b"abc\0\0\xff\xff\xff"


def test_bad_accesses(pd):
    mr = MR(pd, 64, 1)
    with pytest.raises(PyverbsUserError, match="Invalid offset -1"):
        mr.read(1, -1)
    with pytest.raises(PyverbsUserError, match="length -1 is invalid"):
        mr.write(b"", -1)
    with pytest.raises(TypeError, match="expected bytes"):
        mr.write(5, 1)


def test_memory_that_is_gone_is_an_error(pd):
    mr = MR(pd, 64, 1, address=0x10)
    with pytest.raises(PyverbsRDMAError) as info:
        mr.read(1, 0)
    assert info.value.error_code == errno.EFAULT


def test_rereg_is_not_there(pd):
    with pytest.raises(PyverbsRDMAError) as info:
        MR(pd, 64, 1).rereg(4, pd=None, access=1)
    assert info.value.error_code == errno.EOPNOTSUPP


def test_str(pd):
    mr = MR(pd, 64, 1)
    assert str(mr).splitlines()[:2] == ["MR:", f"lkey                  : {mr.lkey:<20}"]


def test_bind_info(pd):
    info = MWBindInfo(MR(pd, 64, 1), 4096, 8.0, 2)
    assert (info.addr, info.length, info.mw_access_flags) == (4096, 8, 2)


def test_mmap_of_anonymous_memory_has_no_file(kernel):
    address = mem_alloc.mmap(length=8192)
    assert address and kernel.process.calls == [("mmap", 8192, 3, 0x22, 0, -1, 0)]


def test_mmap_failure_is_a_memory_error(kernel):
    with pytest.raises(MemoryError, match="Failed to mmap memory"):
        mem_alloc.mmap(length=1, flags=mem_alloc.MAP_HUGETLB_)


def test_madvise_defaults_to_dontneed(kernel):
    mem_alloc.madvise(0x10000, 4096)
    assert kernel.process.calls == [("madvise", 0x10000, 4096, 4)]


def test_madvise_failure_has_its_errno(kernel):
    with pytest.raises(PyverbsRDMAError, match=r"Failed to madvise memory. Errno: 22"):
        mem_alloc.madvise(1, 1)


def test_munmap_failure_is_a_memory_error(kernel):
    with pytest.raises(MemoryError, match="Failed to munmap requested memory"):
        mem_alloc.munmap(0, 4096)


def test_words(kernel):
    address = mem_alloc.posix_memalign(64)
    mem_alloc.writebe32(address, 0x11223344, 1)
    mem_alloc.writebe64(address, 0x1122334455667788, 1)
    assert mem_alloc.read(address, 8, 4) == bytes.fromhex("11223344") + bytes.fromhex("11223344")
    assert mem_alloc.read32(address, 1) == 0x44332211
    assert mem_alloc.read64(address, 1) == 0x8877665544332211
    mem_alloc.free(address)
    assert kernel.process.freed == [address]


def test_write_and_read_strings(kernel):
    address = mem_alloc.malloc(64)
    mem_alloc.write(address, "hello", 5, 2)
    assert mem_alloc.read(address, 5, 2) == SGE(address, 64, 0).read(5, 2) == b"hello"

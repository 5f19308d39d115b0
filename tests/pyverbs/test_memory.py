"""MR buffers and mem_alloc."""

import errno

import pytest

from nicemu.pyverbs import mem_alloc
from nicemu.pyverbs.device import DM, AllocDmAttr
from nicemu.pyverbs.libibverbs_enums import ibv_access_flags as access
from nicemu.pyverbs.mr import DMMR, MR, MW, MWBindInfo
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.wr import SGE
from nicemu.uverbs import memory_messages


def test_registration_is_told_to_the_kernel(kernel, pd):
    mr = MR(pd, 128.9, access.IBV_ACCESS_LOCAL_WRITE)
    assert kernel.log[-1] == memory_messages.RegMr(pd.handle, mr.buf, 128, 1, mr.buf)
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


def test_rereg_of_the_access_keeps_the_buffer(kernel, pd):
    mr = MR(pd, 64, 1)
    before = mr.buf
    mr.rereg(4, pd=None, access=3)
    assert kernel.log[-1] == memory_messages.ReregMr(mr.handle, 4, access=3)
    assert (mr.buf, mr.length) == (before, 64) and not kernel.process.freed


def test_rereg_of_the_memory_frees_the_buffer_and_adopts_the_programs(kernel, pd):
    mr = MR(pd, 64, 1)
    before = mr.buf
    mr.rereg(1, addr=0x18000, length=128)
    assert kernel.log[-1] == memory_messages.ReregMr(mr.handle, 1, 0, 0x18000, 128, 0x18000)
    assert (mr.buf, mr.length, kernel.process.freed) == (0x18000, 128, [before])
    mr.close()
    assert kernel.process.freed == [before]


def test_rereg_of_the_pd_moves_the_mr_to_it(ctx, pd):
    mr, other = MR(pd, 64, 1), PD(ctx)
    mr.rereg(2, other)
    pd.close()
    assert mr.buf
    other.close()
    assert not mr.buf


@pytest.mark.parametrize(
    ("flags", "address", "length", "access"),
    [(8, 0x18000, 64, 0), (1, 0x18000, 0, 0), (1, 0, 64, 0), (2, 0, 0, 1), (1, 0x18000, 64, 1)],
)
def test_rereg_refuses_bad_input_itself(kernel, pd, flags, address, length, access):
    mr = MR(pd, 64, 1)
    with pytest.raises(PyverbsRDMAError, match="Failed to rereg MR: IBV_REREG_MR_ERR_INPUT") as info:
        mr.rereg(flags, None, address, length, access)
    assert info.value.error_code == errno.EINVAL and not kernel.commands(memory_messages.ReregMr)


def test_rereg_that_the_kernel_refuses_names_the_command(kernel, pd):
    mr = MR(pd, 64, 1)
    kernel.fail[memory_messages.ReregMr] = errno.EFAULT
    with pytest.raises(PyverbsRDMAError, match="IBV_REREG_MR_ERR_CMD") as info:
        mr.rereg(1, None, 0x18000, 64)
    assert info.value.error_code == errno.EFAULT and mr.length == 64


def test_window(kernel, pd):
    mw = MW(pd, 2)
    assert kernel.log[-1] == memory_messages.AllocMw(pd.handle, 2)
    assert (mw.type, mw.rkey) == (2, mw.handle << 8 | 0xFF)
    assert str(mw).splitlines()[-1] == f"MW Type               : {'IBV_MW_TYPE_2':<20}"
    handle = mw.handle
    pd.close()
    assert memory_messages.DeallocMw(handle) in kernel.log


def test_window_of_no_type(pd):
    with pytest.raises(PyverbsRDMAError, match="Failed to allocate MW") as info:
        MW(pd, 3)
    assert info.value.error_code == errno.EINVAL


def test_device_memory(kernel, ctx):
    dm = DM(ctx, AllocDmAttr(128, 3))
    assert kernel.log[-1] == memory_messages.AllocDm(ctx.context, 128, 3)
    dm.copy_to_dm(4, "abcd", 4)
    assert kernel.log[-1] == memory_messages.DmCopy(dm.handle, 4, 4, b"abcd")
    assert dm.copy_from_dm(8, 4) == bytes(4)
    with pytest.raises(PyverbsRDMAError, match="Failed to copy to dm"):
        dm.copy_to_dm(1, b"abcd", 4)
    with pytest.raises(PyverbsRDMAError, match="Failed to copy from dm"):
        dm.copy_from_dm(0, 3)


def test_device_memory_that_is_not_there(kernel, ctx):
    with pytest.raises(PyverbsRDMAError, match=r"size 8\. Max available size 65536") as info:
        DM(ctx, AllocDmAttr(8, comp_mask=1))
    assert info.value.error_code == errno.EINVAL
    kernel.fail[memory_messages.AllocDm] = errno.ENOMEM
    with pytest.raises(PyverbsRDMAError, match="Failed to allocate device memory of size 99999"):
        DM(ctx, AllocDmAttr(99999))


def test_a_region_of_device_memory_starts_at_0_and_closes_before_it(kernel, ctx, pd):
    dm = DM(ctx, AllocDmAttr(128))
    mr = DMMR(pd, 64.0, access.IBV_ACCESS_ZERO_BASED, dm, 4)
    assert kernel.log[-1] == memory_messages.RegDmMr(pd.handle, dm.handle, 4, 64, 32)
    assert (mr.buf, mr.length) == (0, 64)
    mr.write("abcd", 4, 8)
    assert kernel.log[-1] == memory_messages.DmCopy(dm.handle, 8, 4, b"abcd")
    assert mr.read(4, 8) == bytes(4)
    dm.close()
    assert [type(command) for command in kernel.log[-2:]] == [memory_messages.DeregMr, memory_messages.FreeDm]


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

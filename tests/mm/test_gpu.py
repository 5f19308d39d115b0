"""The GPU that exports dma-bufs: contents, descriptors, moves and their order, lifetimes."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nicemu.memory.safe_copy import read
from nicemu.memory.slots import POISON
from nicemu.mm import gpu as gpu_module
from nicemu.mm.dma_buf import Attachment, map_attachment, open_inodes, unmap_attachment, wait_for_move
from nicemu.mm.gpu import Buffer
from nicemu.timeline.host import Steps

PAGE = 4096


class Importer:
    """A driver that maps all of a buffer; its device needs ``takes`` ns to let go. ``story``: what happened when."""

    def __init__(self, machine: Any, buffer: Buffer, takes: int = 5_000) -> None:
        self.machine, self.buffer, self.takes = machine, buffer.dma_buf, takes
        self.attachment: Attachment = self.buffer.attach(self)
        self.story: list[str] = []

    def map(self) -> Steps[np.ndarray]:
        thread = self.machine.host.thread
        yield from self.buffer.resv.acquire(thread)
        map_attachment(self.attachment)
        yield from wait_for_move(self.buffer)
        self.story.append("mapped")
        self.buffer.resv.release(thread)
        return self.attachment.frames  # type: ignore[return-value]

    def move_notify(self) -> Steps[None]:
        self.story.append("told to go")
        yield self.takes
        unmap_attachment(self.attachment)
        self.story.append("gone")

    def bytes(self, page: int) -> bytes:
        """What the device finds at the page's frame now."""
        frames = self.attachment.frames
        assert frames is not None
        return read(int(self.machine.host.pages.pointers[frames[page]]), 8)


@pytest.fixture(autouse=True)
def files(machine: Any) -> Iterator[None]:
    yield
    machine.host.gpu.close_files()


@pytest.fixture
def buffer(machine: Any) -> Buffer:
    """Four pages of VRAM; each begins with its number."""
    made: Buffer = machine.run(machine.process.gem_create(4 * PAGE))
    for page in range(4):
        machine.run(machine.process.dma_buf_write(made.dma_buf.fd, page * PAGE, b"page %d.." % page))
    return made


def contents(machine: Any, fd: int, offset: int = 0, length: int = 8) -> bytes:
    data: bytes = machine.run(machine.process.dma_buf_read(fd, offset, length))
    return data


def fails(machine: Any, steps: Steps[Any]) -> int | None:
    with pytest.raises(OSError) as caught:
        machine.run(steps)
    return caught.value.errno


def test_a_new_buffer_is_zero_and_has_whole_pages(machine: Any) -> None:
    made = machine.run(machine.process.gem_create(PAGE + 1, gtt=True))
    assert made.dma_buf.size == 2 * PAGE and contents(machine, made.dma_buf.fd, 0, 2 * PAGE) == bytes(2 * PAGE)


def test_both_descriptors_can_be_mapped(machine: Any, buffer: Buffer) -> None:
    for fd in (buffer.dma_buf.fd, buffer.drm_fd):
        with mmap.mmap(fd, 4 * PAGE) as mapping:
            assert mapping[PAGE : PAGE + 8] == b"page 1.."
            mapping[0] += 1
    assert contents(machine, buffer.dma_buf.fd) == b"rage 0.."


def test_a_program_cannot_change_the_size(buffer: Buffer) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(buffer.dma_buf.fd, 0)


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ((0,), errno.EINVAL), ((PAGE, 1), errno.ENOENT), ((PAGE, -1), errno.ENOENT), ((1 << 62, 0, True), errno.ENOMEM),
        ((1 << 62,), errno.ENOMEM),
    ],
)  # fmt: skip
def test_what_cannot_be_made(machine: Any, arguments: tuple[Any, ...], number: int) -> None:
    before = machine.frames.allocated
    assert fails(machine, machine.process.gem_create(*arguments)) == number
    assert machine.frames.allocated == before and not machine.host.gpu.buffers


def test_a_buffer_of_more_than_what_is_free(machine: Any) -> None:
    before = open_inodes()
    machine.run(machine.process.gem_create(3000 * PAGE, gtt=True))
    assert fails(machine, machine.process.gem_create(3000 * PAGE, gtt=True)) == errno.ENOMEM
    assert len(open_inodes()) == len(before) + 1


def test_a_buffer_without_a_second_descriptor(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def dup(_: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    before, inodes = machine.frames.allocated, open_inodes()
    monkeypatch.setattr(gpu_module.os, "dup", dup)
    assert fails(machine, machine.process.gem_create(4 * PAGE)) == errno.EMFILE
    assert machine.frames.allocated == before and len(open_inodes()) == len(inodes)
    assert not machine.host.gpu.buffers and not machine.host.gpu.exported


def test_access_outside_and_through_other_descriptors(machine: Any, buffer: Buffer) -> None:
    process, fd = machine.process, buffer.dma_buf.fd
    assert fails(machine, process.dma_buf_read(fd, 4 * PAGE - 1, 2)) == errno.EINVAL
    assert fails(machine, process.dma_buf_read(fd, -1, 1)) == errno.EINVAL
    assert fails(machine, process.dma_buf_write(0, 0, b"x")) == errno.EINVAL
    assert fails(machine, process.dma_buf_read(9999, 0, 1)) == errno.EBADF
    assert fails(machine, process.dma_buf_move(9999)) == errno.EBADF


# Moving


def test_a_move_keeps_the_bytes_and_takes_other_pages(machine: Any, buffer: Buffer) -> None:
    old = buffer.dma_buf.frames
    machine.run(machine.process.dma_buf_move(buffer.dma_buf.fd))
    assert not set(old) & set(buffer.dma_buf.frames)
    assert contents(machine, buffer.dma_buf.fd, 3 * PAGE) == b"page 3.."
    assert not machine.host.pages.refcounts[old].any()


def test_the_move_waits_until_the_device_is_gone(machine: Any, buffer: Buffer) -> None:
    importer = Importer(machine, buffer)
    old = machine.run(importer.map())
    before = machine.scheduler.clock()
    machine.run(machine.process.dma_buf_move(buffer.dma_buf.fd))
    assert importer.story == ["mapped", "told to go", "gone"]
    assert machine.scheduler.clock() - before >= 5_000
    stamps = machine.world.frame_stamp["invalidated"][old]
    assert (stamps == machine.frames._stamp[0]).all() and stamps.all()


def test_while_the_device_lets_go_the_old_pages_have_the_bytes(machine: Any, buffer: Buffer) -> None:
    importer = Importer(machine, buffer)
    machine.run(importer.map())
    seen = []
    gone = importer.move_notify

    def slow() -> Steps[None]:
        seen.append(importer.bytes(2))
        yield from gone()

    importer.move_notify = slow  # type: ignore[method-assign]
    machine.run(machine.process.dma_buf_move(buffer.dma_buf.fd))
    assert seen == [b"page 2.."]


def test_a_map_during_the_copy_waits_for_its_fence(machine: Any, buffer: Buffer) -> None:
    importer = Importer(machine, buffer)
    fence = machine.run(machine.process.dma_buf_move(buffer.dma_buf.fd))
    assert not fence.done
    machine.run(importer.map())
    assert fence.done and importer.bytes(1) == b"page 1.."


def test_who_does_not_wait_for_the_fence_reads_poison(machine: Any, buffer: Buffer) -> None:
    importer = Importer(machine, buffer)
    machine.run(machine.process.dma_buf_move(buffer.dma_buf.fd))
    map_attachment(importer.attachment)
    assert importer.bytes(1) == bytes([POISON]) * 8


def test_the_cpu_waits_for_the_copy_too(machine: Any, buffer: Buffer) -> None:
    fence = machine.run(machine.process.dma_buf_move(buffer.dma_buf.fd))
    assert contents(machine, buffer.dma_buf.fd) == b"page 0.." and fence.done


def test_moves_one_after_the_other(machine: Any, buffer: Buffer) -> None:
    for gtt in (True, False, None, True):
        machine.run(machine.process.dma_buf_move(buffer.dma_buf.fd, gtt))
    assert buffer.gtt and machine.host.counters["dma_buf_move"] == 4
    assert contents(machine, buffer.dma_buf.fd, 2 * PAGE) == b"page 2.." and not machine.host.reports


def test_a_move_without_memory_leaves_the_buffer(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(ram=1000)
    buffer = machine.run(machine.process.gem_create(600 * PAGE))
    importer = Importer(machine, buffer)
    frames = machine.run(importer.map())
    assert fails(machine, machine.process.dma_buf_move(buffer.dma_buf.fd)) == errno.ENOMEM
    assert importer.story == ["mapped"] and buffer.dma_buf.frames is frames
    machine.host.gpu.close_files()


def test_a_full_vram_sends_its_oldest_buffers_to_the_host(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_module, "VRAM_BYTES", 10 * PAGE)
    first, second = (machine.run(machine.process.gem_create(4 * PAGE)) for _ in range(2))
    importer = Importer(machine, first)
    machine.run(importer.map())
    third = machine.run(machine.process.gem_create(4 * PAGE))
    assert (first.gtt, second.gtt, third.gtt) == (True, False, False)
    assert importer.story == ["mapped", "told to go", "gone"]
    assert fails(machine, machine.process.gem_create(11 * PAGE)) == errno.ENOMEM
    machine.run(machine.process.dma_buf_move(first.dma_buf.fd, False))
    assert (first.gtt, second.gtt) == (False, True)


# Lifetimes


def test_closing_gives_pages_and_descriptors_back(machine: Any, buffer: Buffer) -> None:
    frames, fds = buffer.dma_buf.frames, (buffer.dma_buf.fd, buffer.drm_fd)
    machine.run(machine.process.gem_close(1))
    assert not machine.host.pages.refcounts[frames].any() and not machine.host.gpu.exported
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)
    assert fails(machine, machine.process.gem_close(1)) == errno.EINVAL


def test_an_attached_importer_keeps_the_memory(machine: Any, buffer: Buffer) -> None:
    importer = Importer(machine, buffer)
    machine.run(importer.map())
    machine.run(machine.process.gem_close(1))
    assert importer.bytes(3) == b"page 3.."
    buffer.dma_buf.attachments.clear()
    machine.run(machine.host.gpu.reap())
    assert not machine.host.gpu.exported


def test_a_duplicate_keeps_the_memory(machine: Any, buffer: Buffer) -> None:
    copy = os.dup(buffer.dma_buf.fd)
    machine.run(machine.process.gem_close(1))
    assert contents(machine, copy) == b"page 0.."
    os.close(copy)
    machine.run(machine.host.gpu.reap())
    assert not machine.host.gpu.exported


def test_a_descriptor_that_the_program_closed_is_not_closed_again(machine: Any, buffer: Buffer) -> None:
    fd = buffer.dma_buf.fd
    os.close(fd)
    stranger = os.open(os.devnull, os.O_RDONLY)
    if stranger != fd:
        os.dup2(stranger, fd)
    machine.run(machine.process.gem_close(1))
    os.fstat(fd)
    for number in {fd, stranger}:
        os.close(number)


def test_closing_in_the_middle_of_a_copy(machine: Any, buffer: Buffer) -> None:
    old = buffer.dma_buf.frames
    fence = machine.run(machine.process.dma_buf_move(buffer.dma_buf.fd))
    machine.run(machine.process.gem_close(1))
    assert fence.done and not machine.host.pages.refcounts[old].any() and not machine.host.gpu.exported
    machine.check_counts()


def test_closing_while_a_move_is_under_way(machine: Any, buffer: Buffer) -> None:
    importer = Importer(machine, buffer)
    machine.run(importer.map())
    machine.scheduler.spawn(machine.host.gpu.move_if_possible(buffer.dma_buf, None), "gpu-move")
    buffer.dma_buf.attachments.clear()
    machine.run(machine.process.gem_close(1))
    machine.timeline.advance(lambda: False)
    assert not machine.host.gpu.exported
    machine.check_counts()

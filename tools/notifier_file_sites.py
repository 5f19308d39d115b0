"""The call sites of file mappings: see ``notifier_sites.py``."""

from __future__ import annotations

from typing import Any

from notifier_watch import PAGE, Watch

from nicemu.mm.dirty_helpers import wp_shared_mapping_range
from nicemu.mm.file import FileKind, OpenFile
from nicemu.timeline.host import Steps

READ, RW = 1, 3


def _mapped(w: Watch, kind: FileKind, prot: int = RW) -> tuple[OpenFile, int]:
    """A file of two pages, and where it is mapped shared."""
    file = w.run(w.process.open_file("data", 2 * PAGE, kind))
    at = int(w.run(w.process.mmap_file(file, 2 * PAGE, prot, True)))
    for page in (0, 1):
        address = at + page * PAGE
        w.run(w.process.read(address, 1) if prot == READ else w.process.write(address, b"x"))
    return file, at


def xip_unmap(w: Watch) -> Steps[Any]:
    """A hole of an execute-in-place file, which is mapped, gets a block."""
    file, _ = _mapped(w, FileKind.XIP, READ)
    return w.process.pwrite(file, b"y", 0)


def mkclean(w: Watch) -> Steps[Any]:
    """Writeback of a page that was written through a mapping."""
    file, _ = _mapped(w, FileKind.REGULAR)
    w.run(w.process.fsync(file))
    w.run(w.process.write(next(iter(file.inode.vmas)).start, b"y"))
    return w.process.fsync(file)


def unmap_cluster(w: Watch) -> Steps[Any]:
    """Reclaim takes a page of a nonlinear area of two."""
    _, at = _mapped(w, FileKind.SHMEM)
    w.run(w.process.remap_file_pages(at, PAGE, 1))
    w.run(w.process.remap_file_pages(at + PAGE, PAGE, 0))
    w.run(w.process.read(at, 2 * PAGE))
    return w.host.reclaim.evict(w.mm, at)


def remap_file_pages(w: Watch) -> Steps[Any]:
    """remap_file_pages of a page."""
    _, at = _mapped(w, FileKind.SHMEM)
    return w.process.remap_file_pages(at, PAGE, 1)


def wp_clean(w: Watch) -> Steps[Any]:
    """A driver write-protects a page of a file wherever it is mapped."""
    file, _ = _mapped(w, FileKind.REGULAR)
    return wp_shared_mapping_range(w.host, file.inode, 0, 1)


FILE_RUNS = {
    "xip_unmap": xip_unmap, "mkclean": mkclean, "unmap_cluster": unmap_cluster, "remap_file_pages": remap_file_pages,
    "wp_clean": wp_clean,
}  # fmt: skip
"""By call site."""

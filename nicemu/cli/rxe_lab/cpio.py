"""An initial RAM file system: cpio in the form "newc" (Linux: early-userspace/buffer-format.rst)."""

import stat
from typing import BinaryIO

from nicemu.cli.rxe_lab.tree import Entry, Tree

MAGIC = b"070701"
LAST = "TRAILER!!!"


def write(tree: Tree, out: BinaryIO) -> None:
    """The tree with everything owned by root and without times: the same tree gives the same bytes.

    The kernel reads archives that follow each other as one, so a kernel's modules and the user space stay apart.
    """
    for number, path in enumerate(sorted(tree.entries), start=1):
        _member(out, number, path, tree.entries[path])
    _member(out, 0, LAST, Entry(0))


def _member(out: BinaryIO, number: int, path: str, entry: Entry) -> None:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device (2), device of a special file (2), name's size, check
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    header = MAGIC + b"".join(b"%08x" % field for field in fields)
    out.write(header + name + bytes(-(len(header) + len(name)) % 4))
    out.write(entry.content)
    out.write(bytes(-len(entry.content) % 4))

"""Kernel modules: which of them the guest needs, found by what each says about itself in its section .modinfo."""

import lzma
import struct
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from nicemu.cli.rxe_lab.deb import decompressed

WANTED = (
    "virtio_pci", "virtio_net", "virtio_console", "virtio_rng", "virtio_blk", "9p", "9pnet_virtio", "rdma_rxe",
    "ib_uverbs", "ib_umad", "rdma_cm", "rdma_ucm", "ib_cm", "iw_cm", "ib_ipoib", "crc32_generic", "crc32_pclmul",
    "crc32c_generic", "crc32c_intel", "crc32_cryptoapi", "af_packet", "ipv6", "veth", "dummy", "bridge", "tun",
    "sch_netem", "sch_ingress", "act_mirred", "act_gact", "cls_flower", "cls_u32", "overlay", "ext4", "squashfs",
)  # fmt: skip
"""With what they depend on. A kernel may have some of them built in, or under another name: only NEEDED is checked."""

NEEDED = ("rdma_rxe", "ib_uverbs", "virtio_console", "9p")


def name_of(path: str) -> str:
    """kernel/drivers/.../act-x.ko.xz -> act_x: the kernel knows no dashes in names."""
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def unpacked(path: str, content: bytes) -> bytes:
    """The ELF file of a module that may be compressed."""
    if path.endswith(".xz"):
        return lzma.decompress(content)
    return decompressed(content) if path.endswith(".zst") else content


def information(module: bytes) -> dict[str, list[str]]:
    """Section .modinfo: NUL-ended texts `key=value`, keys may repeat. Raises ValueError for what is no 64-bit ELF."""
    if module[:6] != b"\x7fELF\x02\x01":
        raise ValueError("expected a little-endian 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", module, 0x28)  # e_shoff
    size, count, names = struct.unpack_from("<HHH", module, 0x3A)  # e_shentsize, e_shnum, e_shstrndx
    sections = [struct.unpack_from("<IIQQQQ", module, table + size * number) for number in range(count)]
    for name, _, _, _, offset, length in sections:
        start = sections[names][4] + name
        if module[start : start + 9] == b".modinfo\0":
            return _pairs(module[offset : offset + length])
    return {}


def _pairs(section: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in section.split(b"\0"):
        key, _, value = text.decode("utf-8", "replace").partition("=")
        if key:
            found.setdefault(key, []).append(value)
    return found


def depends(module: bytes) -> list[str]:
    """Names that have to be loaded before, softdeps included."""
    found = information(module)
    names = [name for value in found.get("depends", []) for name in value.split(",")]
    for soft in found.get("softdep", []):
        before = soft.partition("post:")[0].replace("pre:", " ")
        names += before.split()
    return [name.strip().replace("-", "_") for name in names if name.strip()]


def in_order(wanted: Iterable[str], dependencies: Mapping[str, list[str]]) -> list[str]:
    """`wanted` and all they need, each after what it depends on; names that `dependencies` lacks are built in."""
    order: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in order or name in path or name not in dependencies:
            return
        for needed in dependencies[name]:
            visit(needed, (*path, name))
        order[name] = None

    for name in wanted:
        visit(name, ())
    return list(order)


class Modules:
    """A kernel's modules by name, unpacked only when asked for: most are never."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """`files`: content by path."""
        self.paths = {name_of(path): path for path in files}
        self._files = files

    def closure(self, wanted: Iterable[str]) -> dict[str, bytes]:
        """ELF files by path without the compression's suffix, in the order in which they can be loaded."""
        found: dict[str, bytes] = {}
        dependencies: dict[str, list[str]] = {}
        waiting = [name for name in wanted if name in self.paths]
        while waiting:
            name = waiting.pop()
            if name not in dependencies:
                found[name] = unpacked(self.paths[name], self._files[self.paths[name]])
                dependencies[name] = depends(found[name])
                waiting += [needed for needed in dependencies[name] if needed in self.paths]
        return {self.plain_path(name): found[name] for name in in_order(wanted, dependencies)}

    def plain_path(self, name: str) -> str:
        """Where the unpacked module goes."""
        return self.paths[name].removesuffix(".xz").removesuffix(".zst")

"""Packages, modules and kernels small enough to be made in a test."""

import hashlib
import io
import lzma
import struct
import tarfile
from pathlib import Path

from nicemu.cli.rxe_lab.lock import Group, Lock, Package

RELEASE = "9.1.0-amd64"
MODULES = f"usr/lib/modules/{RELEASE}/kernel"


def ar(members: dict[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, content in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def deb(files: dict[str, bytes | str]) -> bytes:
    """A package; a value that is a text is the target of a symbolic link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size, member.mode = len(content), 0o755
                tar.addfile(member, io.BytesIO(content))
    return ar({"debian-binary": b"2.0\n", "control.tar.xz": b"x", "data.tar.xz": data.getvalue()})


def module(*depends: str, softdep: str = "") -> bytes:
    """A 64-bit ELF file with the sections .shstrtab and .modinfo and nothing else."""
    texts = [b"license=GPL", b"depends=" + ",".join(depends).encode()]
    modinfo = b"\0".join([*texts, *([b"softdep=" + softdep.encode()] if softdep else [])]) + b"\0"
    names = b"\0.shstrtab\0.modinfo\0"
    table = 64 + len(names) + len(modinfo)
    header = b"\x7fELF\x02\x01".ljust(0x28, b"\0") + struct.pack("<Q", table)
    header = header.ljust(0x3A, b"\0") + struct.pack("<HHH", 64, 3, 1)
    sections = b"".join(
        struct.pack("<IIQQQQ", name, 0, 0, 0, offset, size).ljust(64, b"\0")
        for name, offset, size in ((0, 0, 0), (1, 64, len(names)), (11, 64 + len(names), len(modinfo)))
    )
    return header + names + modinfo + sections


def bzimage(payload: bytes) -> bytes:
    image = bytearray(1024)
    image[0x1F1] = 1
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + bytes(16) + payload


def package(name: str, content: bytes, version: str = "1.0") -> Package:
    return Package(name, version, f"pool/{name}.deb", len(content), hashlib.sha256(content).hexdigest())


def mirror(folder: Path) -> tuple[str, Lock]:
    """A mirror in `folder` with a user space and a kernel 9.1, and the lock file of them."""
    kernel = deb({f"usr/lib/modules/{RELEASE}/vmlinuz": bzimage(lzma.compress(b"\x7fELF kernel"))})
    modules = {
        f"{MODULES}/{name}.ko.xz": lzma.compress(module(*needs))
        for name, needs in {"rdma_rxe": ["ib_core"], "ib_uverbs": ["ib_core"], "ib_core": [], "sound": [],
                            "9p": [], "virtio_net": []}.items()
    }  # fmt: skip
    index = {f"usr/lib/modules/{RELEASE}/modules.builtin": b"kernel/drivers/char/virtio_console.ko\n"}
    contents = {
        "base": deb({"usr/bin/bash": b"#!", "bin": "usr/bin", "usr/share/man/man1/bash.1": b"page"}),
        "rdma-core": deb({"lib/x86_64/librxe.so": b"library"}),
        "linux-binary": kernel,
        "linux-modules": deb(modules | index),
    }
    (folder / "pool").mkdir()
    for name, content in contents.items():
        (folder / "pool" / f"{name}.deb").write_bytes(content)
    packages = [package(name, content) for name, content in contents.items()]
    userspace, linux = (Group("trixie", (), (), tuple(each)) for each in (packages[:2], packages[2:]))
    return folder.as_uri(), Lock(userspace, {"9.1": linux})


def read_cpio(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content by path, of all archives that follow each other; written from the format's description."""
    found: dict[str, tuple[int, bytes]] = {}
    position = 0
    while position < len(archive):
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        name_end = position + 110 + fields[11]
        name = archive[position + 110 : name_end - 1].decode()
        content_start = name_end + -name_end % 4
        content = archive[content_start : content_start + fields[6]]
        position = content_start + fields[6]
        position += -position % 4
        if name != "TRAILER!!!":
            assert name not in found or fields[1] & 0o40000  # a folder may come again
            found[name] = (fields[1], content)
    return found

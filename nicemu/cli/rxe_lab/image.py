"""The guest's image: a kernel and an initial RAM file system, built once from the packages of the lock file.

An image is a folder of the cache that is renamed into its place when it is whole. Its name holds a digest of the
packages and of the sources that build it, so whatever changes one of them gives another image.
"""

import contextlib
import hashlib
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nicemu.cli.rxe_lab import cache, cpio, deb, download, precompile, sources, vmlinux
from nicemu.cli.rxe_lab.lock import Lock
from nicemu.cli.rxe_lab.modules import NEEDED, WANTED, Modules, name_of
from nicemu.cli.rxe_lab.tree import Tree
from nicemu.config.errors import ConfigError

HERE = Path(__file__).parent
BUILDERS = ("image.py", "tree.py", "cpio.py", "deb.py", "modules.py", "vmlinux.py", "precompile.py", "guest_init.sh")
"""What an image depends on beside the packages."""

SPACE = 300 << 20  # bytes of an image and of what is made on the way to it, beside the packages
MODULES = "usr/lib/modules/"

NOT_NEEDED = re.compile(
    r"usr/share/(man|locale|info|bash-completion|bug|lintian|zsh|perl5|i18n)/|usr/share/doc/(?!rdma-core/)"
    r"|usr/lib/python3\.\d+/(test|idlelib|ensurepip|lib2to3|pydoc_data|tkinter|turtledemo)/"
    r"|usr/lib/x86_64-linux-gnu/(gconv|perl-base)/|usr/lib/systemd/|usr/lib/udev/|etc/init\.d/|var/"
)
BUSYBOX = (
    "[", "ar", "ash", "awk", "bzip2", "clear", "cmp", "cpio", "cut", "dc", "diff", "dmesg", "ed", "egrep", "fgrep",
    "find", "free", "fuser", "getopt", "grep", "gunzip", "gzip", "halt", "hexdump", "hostname", "ifconfig", "kill",
    "killall", "less", "losetup", "lsof", "mkfs.ext2", "more", "mount", "mountpoint", "netstat", "nc", "nslookup",
    "patch", "pgrep", "ping", "ping6", "pkill", "poweroff", "ps", "reboot", "reset", "route", "sed", "setsid",
    "strings", "swapoff", "swapon", "sysctl", "tar", "time", "top", "tree", "umount", "uncompress", "unzip",
    "uptime", "vi", "watch", "which", "xargs", "xxd", "xz", "xzcat", "zcat",
)  # fmt: skip
"""Commands that no package of the lock file brings."""


@dataclass(frozen=True)
class Image:
    """What QEMU boots."""

    kernel: Path
    initrd: Path


def digest(lock: Lock, series: str) -> str:
    """16 hexadecimal digits that change with everything an image is made from."""
    total = hashlib.sha256(series.encode())
    for package in (*lock.userspace.packages, *lock.kernel(series).packages):
        total.update(package.sha256.encode())
    for name in BUILDERS:
        total.update((HERE / name).read_bytes())
    return total.hexdigest()[:16]


def ready(lock: Lock, series: str, mirror: str | None = None) -> Image:
    """The image of a kernel, built first if need be, with what it does said on stderr. Raises ConfigError."""
    place = cache.folder()
    image = place / "images" / f"{series}-{digest(lock, series)}"
    if not image.is_dir():
        with cache.building(place):
            if not image.is_dir():
                cache.remove_unused(place)
                try:
                    _build(lock, series, mirror, image)
                except OSError as error:
                    raise ConfigError(f"the guest could not be built in {place}: {error}") from None
                except (*deb.BROKEN, struct.error, LookupError) as error:
                    raise ConfigError(f"the packages make no guest: {type(error).__name__}: {error}") from None
    with contextlib.suppress(OSError):  # a cache that is not ours to write to
        os.utime(image)  # see cache.remove_unused
    return Image(image / "vmlinux", image / "initrd")


def _build(lock: Lock, series: str, mirror: str | None, image: Path) -> None:
    place = image.parent.parent
    packages = place / "packages"
    groups = (lock.userspace, lock.kernel(series))
    wanted = [package for group in groups for package in group.packages]
    missing = [package for package in wanted if not (packages / package.file_name).is_file()]
    cache.check_space(place, SPACE + sum(package.size for package in missing))
    base = sources.mirror(mirror) if missing else ""
    print(f"building the guest with Linux {series}, once", file=sys.stderr, flush=True)
    began = time.monotonic()
    for stale in (*place.glob("building-*"), *_unpinned(lock, packages)):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    files = download.fetch(wanted, base, packages)
    with tempfile.TemporaryDirectory(prefix="building-", dir=place) as scratch:
        whole = Path(scratch) / "image"
        whole.mkdir()
        split = len(lock.userspace.packages)
        _say(began, "unpacking the kernel")
        kernel, modules = kernel_of(files[split:])
        (whole / "vmlinux").write_bytes(kernel)
        _say(began, "unpacking the user space")
        root = userspace_of(files[:split])
        _say(began, "compiling Python's library, looking for modules' aliases")
        precompile.python(root, Path(scratch) / "python")
        precompile.module_index(root, modules, Path(scratch) / "modules")
        with (whole / "initrd").open("wb") as out:
            cpio.write(modules, out)
            cpio.write(root, out)
        image.parent.mkdir(exist_ok=True)
        whole.rename(image)
    _say(began, f"the guest is ready in {image}")


def _unpinned(lock: Lock, packages: Path) -> list[Path]:
    """Files of packages that an older lock file pinned."""
    pinned: set[str] = set()
    for group in (lock.userspace, *lock.kernels.values()):
        pinned |= {package.file_name for package in group.packages}
    files = (*packages.glob("*.deb"), *packages.glob("*.part"))
    return [file for file in files if file.with_suffix(".deb").name not in pinned]


def _say(began: float, text: str) -> None:
    print(f"[{time.monotonic() - began:5.1f} s] {text}", file=sys.stderr, flush=True)


def userspace_of(packages: list[Path]) -> Tree:
    """The root file system: the packages' files, busybox for the rest, our init."""
    root = Tree()
    for folder in ("proc", "sys", "dev", "tmp", "run", "share", "lab", "root", "var/tmp", "usr/bin", "usr/sbin"):
        root.add_folder(folder)
    root.entries["tmp"].mode |= stat.S_ISVTX | 0o777
    for package in packages:
        with deb.open_data(package) as tar:
            root.add_tar(tar, lambda path: NOT_NEEDED.match(path) is None)
    root.add_file("init", (HERE / "guest_init.sh").read_bytes(), 0o755)
    for name in BUSYBOX:
        if f"usr/bin/{name}" not in root and f"usr/sbin/{name}" not in root:
            root.add_link(f"usr/bin/{name}", "busybox")
    root.add_link("usr/bin/sh", "bash")  # busybox's shell would run its own `ip`, not iproute2's
    root.add_file("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    root.add_file("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    root.add_file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n10.0.0.2 rxe\n")
    root.add_file("etc/hostname", b"rxe\n")
    return root


def kernel_of(packages: list[Path]) -> tuple[bytes, Tree]:
    """The kernel that QEMU enters, and a tree with the modules that the guest may load. Raises ConfigError."""
    kernel = b""
    found: dict[str, bytes] = {}
    index: dict[str, bytes] = {}
    for package in packages:
        tree = Tree()
        with deb.open_data(package) as tar:
            tree.add_tar(tar, lambda path: path.startswith((MODULES, "boot/vmlinuz")))
        for path, entry in tree.entries.items():
            if not stat.S_ISREG(entry.mode):
                continue
            if "vmlinuz" in path:
                kernel = vmlinux.from_bzimage(entry.content)
            elif ".ko" in path:
                found[path] = entry.content
            elif path.rpartition("/")[2] in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
                index[path] = entry.content
    if not kernel:
        raise ConfigError(f"expected a kernel in {', '.join(package.name for package in packages)}")
    return kernel, _modules(found, index)


def _modules(files: dict[str, bytes], index: dict[str, bytes]) -> Tree:
    known = Modules(files)
    built_in = {name_of(line) for path, content in index.items() if path.endswith("modules.builtin")
                for line in content.decode().split()}  # fmt: skip
    missing = [name for name in NEEDED if name not in known.paths and name not in built_in]
    if missing:
        raise ConfigError(f"expected the kernel's packages to have the modules {', '.join(missing)}")
    tree = Tree()
    for path, content in (known.closure(WANTED) | index).items():
        tree.add_file(path, content)
    return tree

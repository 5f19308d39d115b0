"""The lock file: every Debian package of the guest, with version, place on a mirror, size and SHA-256."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nicemu.config.errors import ConfigError

FILE = Path(__file__).parent / "packages.yaml"

NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{0,100}(:[a-z0-9]+)?")
"""Of a package or a suite, which become names of files and words of apt; a lock file may be somebody else's."""

SERIES = re.compile(r"[0-9]+\.[0-9]+")

HEADER = """\
# The packages of the guest of `nicemu lab rxe`, pinned. Written by `nicemu lab rxe lock`, which takes `wanted`,
# `left_out` and the suites from here, resolves them anew on the machine's own mirror and writes this file
# (docs/rxe-lab.md).
"""


@dataclass(frozen=True)
class Package:
    """One .deb. `path` is relative to a mirror's base, `size` in bytes."""

    name: str
    version: str
    path: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """What it is called in the cache: unlike the mirror's name it changes whenever the content does."""
        return f"{self.name}_{self.sha256[:16]}.deb"


@dataclass(frozen=True)
class Group:
    """Packages of one suite (trixie, ...), with the names that asked for them."""

    suite: str
    wanted: tuple[str, ...]
    left_out: tuple[str, ...]
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Lock:
    """The user space, and a group for every kernel by its series (7.3); the first is the default."""

    userspace: Group
    kernels: dict[str, Group]

    def kernel(self, series: str) -> Group:
        """Raises ConfigError for a kernel that the lock file does not have."""
        if series not in self.kernels:
            raise ConfigError(f"expected --kernel {' or '.join(self.kernels)}, given {series!r}")
        return self.kernels[series]

    @property
    def default_kernel(self) -> str:
        """The series of the first one."""
        return next(iter(self.kernels))

    def rdma_core(self) -> str:
        """The version of rdma-core in the guest, as Debian numbers it."""
        return next(package.version for package in self.userspace.packages if package.name == "rdma-core")


def read(file: Path = FILE) -> Lock:
    """Raises ConfigError, with the file and what is wrong in it."""
    try:
        content = yaml.load(file.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise ConfigError(f"expected the lock file: {error.strerror}", file=str(file)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"expected YAML: {error}", file=str(file)) from None
    try:
        kernels = {str(series): _group(group) for series, group in content["kernels"].items()}
        lock = Lock(_group(content["userspace"]), kernels)
        for series in kernels:
            _checked(SERIES, series, "the series of a kernel, like 7.3")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"expected a lock file, {type(error).__name__}: {error}", file=str(file)) from None
    if not lock.kernels:
        raise ConfigError("expected at least one kernel", file=str(file))
    return lock


def _group(content: dict[str, Any]) -> Group:
    wanted, left_out = (tuple(str(name) for name in content.get(key) or ()) for key in ("wanted", "left_out"))
    for name in (*wanted, *left_out):
        _checked(NAME, name, "the name of a package")
    suite = _checked(NAME, str(content["suite"]), "the name of a suite")
    return Group(suite, wanted, left_out, tuple(_package(each) for each in content["packages"]))


def _checked(form: re.Pattern[str], text: str, what: str) -> str:
    if form.fullmatch(text) is None:
        raise ValueError(f"expected {what}, given {text!r}")
    return text


def _package(content: dict[str, Any]) -> Package:
    package = Package(**content)
    _checked(NAME, package.name, "the name of a package")
    if len(package.sha256) != 64 or int(package.sha256, 16) < 0:
        raise ValueError(f"{package.name}: expected a SHA-256 of 64 hexadecimal digits, given {package.sha256!r}")
    if not isinstance(package.size, int) or package.size <= 0:
        raise ValueError(f"{package.name}: expected a size in bytes, given {package.size!r}")
    if package.path.startswith("/") or ".." in package.path.split("/"):
        raise ValueError(f"{package.name}: expected a path below the mirror's base, given {package.path!r}")
    return package


def text(lock: Lock) -> str:
    """The lock file: `read` of it gives `lock` again. One package a line, so that a move reads well as a diff."""
    lines = [HEADER, "userspace:", *_group_lines(lock.userspace, "  "), "kernels:"]
    for series, group in lock.kernels.items():
        lines += [f'  "{series}":', *_group_lines(group, "    ")]
    return "\n".join(lines) + "\n"


def _group_lines(group: Group, indent: str) -> list[str]:
    lines = [f"suite: {group.suite}", f"wanted: [{', '.join(group.wanted)}]"]
    if group.left_out:
        lines.append(f"left_out: [{', '.join(group.left_out)}]")
    lines.append("packages:")
    for each in group.packages:
        lines.append(
            f'  - {{name: {each.name}, version: "{each.version}", path: "{each.path}", size: {each.size}, '
            f'sha256: "{each.sha256}"}}'
        )
    return [indent + line for line in lines]

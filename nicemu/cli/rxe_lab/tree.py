"""The guest's files in memory: put together from packages without root, owners or maintainer scripts."""

import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MERGED = ("bin", "sbin", "lib", "lib64")
"""Folders that are links into /usr since Debian 12; older packages still name them."""


@dataclass
class Entry:
    """One file: `content` is the target of a link."""

    mode: int
    content: bytes = b""


@dataclass
class Tree:
    """Files by their path without a leading slash, folders before what lies in them once sorted."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def add_file(self, path: str, content: bytes, permissions: int = 0o644) -> None:
        """A plain file; its folders are made."""
        self._add(path, Entry(stat.S_IFREG | permissions, content))

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def add_folder(self, path: str, permissions: int = 0o755) -> None:
        """A folder; one that is there already, or a link to one, stays."""
        if path and path not in self.entries:
            self._add(path, Entry(stat.S_IFDIR | permissions))

    def _add(self, path: str, entry: Entry) -> None:
        self.add_folder(path.rpartition("/")[0])
        self.entries[path] = entry

    def add_tar(self, tar: tarfile.TarFile, wanted: Callable[[str], bool]) -> None:
        """What `wanted` takes; a hard link becomes a second copy, devices are left out."""
        for member in tar:
            path = merged(member.name)
            if not path or not wanted(path):
                continue
            if member.isdir():
                self.add_folder(path, member.mode & 0o7777)
            elif member.issym():
                self.add_link(path, member.linkname)
            elif member.islnk() and merged(member.linkname) in self.entries:
                self._add(path, self.entries[merged(member.linkname)])
            elif member.isfile():
                source = tar.extractfile(member)
                self.add_file(path, source.read() if source else b"", member.mode & 0o7777)

    def write(self, folder: Path, wanted: Callable[[str], bool]) -> None:
        """What `wanted` takes, as real files below `folder`, which is empty."""
        for path, entry in sorted(self.entries.items()):
            place = folder / path
            if not wanted(path) or stat.S_ISDIR(entry.mode) or self._leads_away(path):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(entry.mode):
                place.symlink_to(entry.content.decode())
            else:
                place.write_bytes(entry.content)
                place.chmod(0o700 if entry.mode & 0o100 else 0o600)

    def _leads_away(self, path: str) -> bool:
        """Whether a folder of it is a link: writing below one could leave the folder we write to."""
        parts = path.split("/")[:-1]
        folders = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return any(each in self.entries and stat.S_ISLNK(self.entries[each].mode) for each in folders)

    def __contains__(self, path: str) -> bool:
        return path in self.entries


def merged(name: str) -> str:
    """`./lib/x` -> `usr/lib/x`. Parts that lead upwards are refused with a ValueError."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"expected a path inside the package, given {name!r}")
    if len(parts) > 1 and parts[0] in MERGED:
        parts.insert(0, "usr")
    return "/".join(parts)

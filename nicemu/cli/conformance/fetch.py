"""rdma-core's Python tests of one release; cached for the user, never part of nicemu."""

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from nicemu.cli.conformance import releases
from nicemu.cli.conformance.outcome import one_line
from nicemu.cli.conformance.releases import Release
from nicemu.cli.rxe_lab import deb
from nicemu.config.errors import ConfigError

MAX_TEST_FILE = 4 << 20  # bytes; the largest is under 200 KiB
MAX_PACKAGE = 64 << 20  # bytes of a Debian package; it has 1 MiB


class FetchError(Exception):
    """The tests cannot be had; `str()` is one line."""


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/nicemu` or `~/.cache/nicemu`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "nicemu"


def tests_folder(release: Release) -> Path:
    """The folder with the tests, downloaded and unpacked if it is not there yet. Raises FetchError."""
    folder = cache_folder() / release.folder_name
    if folder.is_dir() and release.sha256 != releases.UNPINNED:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"expected a cache folder that can be written: {error}") from None
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpacked = Path(scratch) / "tests"
        unpack(download(Path(scratch), release), unpacked, release.tests)
        given = digest(unpacked)
        if release.sha256 == releases.UNPINNED:
            print(f"{release.version} is newer than what nicemu knows: nothing to check it against, its tests have "
                  f"SHA-256 {given}", file=sys.stderr, flush=True)  # fmt: skip
            folder = folder.with_name(folder.name + given[:12])
        elif given != release.sha256:
            raise FetchError(f"tests of {release.version}: expected SHA-256 {release.sha256}, given {given}")
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster otherwise
                raise
    return folder


def newest() -> Release:
    """The latest release that pip has: a pinned one if it is not newer than those. Raises FetchError."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "index", "versions", "pyverbs"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.match(r"pyverbs \((\d+(?:\.\d+)*)\)", done.stdout)
    if found is None:
        raise FetchError(f"pip could not say which pyverbs is the newest: {_last_line(done.stderr)}")
    last = releases.PINNED[-1]
    version = found[1]
    if _numbers(version) <= _numbers(last.version):
        return last
    return releases.from_pip(version.partition(".")[0], version, releases.UNPINNED)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def digest(folder: Path) -> str:
    """SHA-256 over names and contents of the Python files in `folder`, in order of their names."""
    total = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        total.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def download(scratch: Path, release: Release) -> Path:
    """The archive of a release, fetched into `scratch` with pip or apt. Raises FetchError."""
    print(f"fetching rdma-core's tests ({release.package} {release.version}) ...", file=sys.stderr, flush=True)
    if release.debian:
        command, suffix = ["apt-get", "--quiet", "download", f"{release.package}={release.version}"], ".deb"
    else:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", release.package, f"{release.package}=={release.version}"]
        suffix = ".tar.gz"
    try:
        done = subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise FetchError(f"release {release.name} comes as a Debian package, and {command[0]} is not here") from None
    found = next(iter(sorted(scratch.glob(f"*{suffix}"))), None)
    if found is None:
        raise FetchError(f"no {release.package} {release.version} to download: {_last_line(done.stderr)}")
    return found


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def unpack(archive: Path, folder: Path, tests: PurePosixPath) -> None:
    """Write the Python files of the archive's folder `tests` into `folder`; names with a folder of their own are not.

    Only plain files directly below it are taken, so no name in the archive can lead elsewhere. Raises FetchError.
    """
    folder.mkdir()
    try:
        for name, content in _python_files(archive, tests):
            (folder / name).write_bytes(content)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise FetchError(f"{archive.name}: {one_line(str(error))}") from None
    if not (folder / "base.py").is_file():
        raise FetchError(f"{archive.name}: expected {tests}/base.py in it")


def _python_files(archive: Path, tests: PurePosixPath) -> Iterator[tuple[str, bytes]]:
    """Names and contents; Debian compresses documentation files, the tests among them."""
    with archive.open("rb") as file, tarfile.open(fileobj=_tar_of(file)) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            name = path.name.removesuffix(".gz")
            if path.parent != tests or not name.endswith(".py") or not member.isfile() or member.size > MAX_TEST_FILE:
                continue
            source = tar.extractfile(member)
            if source is None:
                continue
            content = gzip.GzipFile(fileobj=source).read(MAX_TEST_FILE) if path.suffix == ".gz" else source.read()
            yield name, content


def _tar_of(file: BinaryIO) -> BinaryIO:
    """The tar file itself: of a Debian package (deb(5): an ar archive) its member data.tar.*, else all of it."""
    is_package = file.read(len(deb.MAGIC)) == deb.MAGIC
    file.seek(0)
    if not is_package:
        return file
    for name, size in deb.members(file):
        if size > MAX_PACKAGE:
            break
        if name.startswith("data.tar"):
            return io.BytesIO(file.read(size))
    raise ValueError("expected a member data.tar in the package")

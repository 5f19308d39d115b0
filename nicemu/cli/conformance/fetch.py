"""rdma-core's Python tests, from the source distribution of pyverbs; cached for the user, never part of nicemu."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from nicemu.config.errors import ConfigError

VERSION = "59.0"
ARCHIVE = f"pyverbs-{VERSION}.tar.gz"
SHA256 = "b30d56bb620b3d3b4301876f9a04c964be1c76cc6553a451e1465f1c6ac9f20e"
TESTS = PurePosixPath(f"pyverbs-{VERSION}/rdma-core/tests")
MAX_TEST_FILE = 4 << 20  # bytes; the largest is under 200 KiB


class FetchError(Exception):
    """The tests cannot be had; `str()` is one line."""


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/nicemu` or `~/.cache/nicemu`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "nicemu"


def tests_folder() -> Path:
    """The folder with the tests, downloaded and unpacked if it is not there yet. Raises FetchError."""
    folder = cache_folder() / f"rdma-core-tests-{VERSION}-{SHA256[:12]}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"expected a cache folder that can be written: {error}") from None
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = folder.parent / ARCHIVE
        if not archive.is_file() or sha256(archive) != SHA256:
            download(Path(scratch), archive)
        unpacked = Path(scratch) / "tests"
        unpack(archive, unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster otherwise
                raise
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def download(scratch: Path, archive: Path) -> None:
    """Fetch the source distribution with pip into `archive`. Raises FetchError."""
    print(f"fetching rdma-core's tests ({ARCHIVE}) ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", "pyverbs", "--dest", str(scratch), f"pyverbs=={VERSION}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = scratch / ARCHIVE
    if not found.is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FetchError(f"pip could not download pyverbs {VERSION}: {reason}")
    given = sha256(found)
    if given != SHA256:
        raise FetchError(f"{ARCHIVE}: expected SHA-256 {SHA256}, given {given}")
    shutil.move(found, archive)


def unpack(archive: Path, folder: Path) -> None:
    """Write the Python files of the tests folder into `folder`; names with a folder of their own are ignored.

    Only plain files directly below the tests folder are taken, so no name in the archive can lead elsewhere.
    """
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.parent != TESTS or path.suffix != ".py" or not member.isfile() or member.size > MAX_TEST_FILE:
                continue
            source = tar.extractfile(member)
            if source is not None:
                (folder / path.name).write_bytes(source.read())
    if not (folder / "base.py").is_file():
        raise FetchError(f"{archive.name}: expected {TESTS}/base.py in it")

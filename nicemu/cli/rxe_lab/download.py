"""Packages from a mirror into the cache: several at once, checked, each complete or not there."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nicemu.cli.rxe_lab.lock import Package
from nicemu.cli.rxe_lab.sources import Unavailable
from nicemu.config.errors import ConfigError

AT_ONCE = 4
APT_HELPER = Path("/usr/lib/apt/apt-helper")
TIMEOUT = 60  # seconds without a byte


class Missing(Unavailable):
    """The mirror does not have a package."""


def fetch(packages: Iterable[Package], mirror: str, folder: Path) -> list[Path]:
    """The files of `packages` in `folder`, in their order; what is there already is not fetched again.

    Raises ConfigError, one line, for a package that is gone, does not arrive or is not what the lock file says.
    """
    wanted = list(packages)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in wanted if not is_whole(package, folder / package.file_name)]
    if missing:
        with Progress(missing, folder) as progress, ThreadPoolExecutor(AT_ONCE) as pool:
            # the largest first: nothing waits for one that started last
            order = sorted(missing, key=lambda package: -package.size)
            waiting = [pool.submit(_fetch_one, package, mirror, folder, progress) for package in order]
            try:
                for each in waiting:
                    each.result()
            except BaseException:
                progress.stopped = True
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return [folder / package.file_name for package in wanted]


def _fetch_one(package: Package, mirror: str, folder: Path, progress: "Progress") -> None:
    if progress.stopped:
        return
    file = folder / package.file_name
    part = file.with_suffix(".part")
    uri = f"{mirror}/{urllib.parse.quote(package.path)}"
    transfer = _with_apt if APT_HELPER.is_file() and not mirror.startswith("file:") else _with_urllib
    try:
        transfer(uri, part)
    except Missing:
        raise Missing(
            f"{package.name} {package.version} is no longer on {mirror}: move the lock file with `nicemu lab rxe "
            "lock`, or name a mirror that keeps old packages with --mirror"
        ) from None
    check(package, part)
    part.rename(file)
    progress.done(package)


def is_whole(package: Package, file: Path) -> bool:
    """Whether it is there and still what was fetched: a host that crashed or a full disk may have cut it off."""
    try:
        return file.stat().st_size == package.size and _digest(file) == package.sha256
    except OSError:
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def check(package: Package, file: Path) -> None:
    """Raises ConfigError if `file` is not the package, and removes it."""
    given = _digest(file)
    size = file.stat().st_size
    if given != package.sha256 or size != package.size:
        file.unlink()
        raise ConfigError(
            f"{package.name} {package.version}: expected {package.size} bytes with SHA-256 {package.sha256}, "
            f"given {size} bytes with {given}: the mirror sent something else, so nothing was built"
        )


def _with_apt(uri: str, part: Path) -> None:
    """By apt's own downloader, which knows the machine's proxies and passwords and goes on where it stopped."""
    command = [str(APT_HELPER), "-qq", "-o", "APT::Sandbox::User=root", "-o", f"Acquire::http::Timeout={TIMEOUT}"]
    done = subprocess.run([*command, "download-file", uri, str(part)], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)  # fmt: skip
    if done.returncode or not part.is_file():
        _failed(uri, " ".join(done.stderr.split()) or f"{APT_HELPER.name} ended with status {done.returncode}")


def _with_urllib(uri: str, part: Path) -> None:
    try:
        with urllib.request.urlopen(uri, timeout=TIMEOUT) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except (OSError, ValueError, urllib.error.URLError) as error:
        _failed(uri, str(getattr(error, "reason", error)) if not hasattr(error, "code") else f"{error}")


def _failed(uri: str, reason: str) -> None:
    if "404" in reason.replace(uri, "") or "No such file" in reason:
        raise Missing(uri)
    raise Unavailable(f"{uri} did not arrive: {reason[:200]}; what has arrived is kept, so try again")


class Progress:
    """A line that changes on a terminal, else a plain line every five seconds, on stderr."""

    def __init__(self, packages: list[Package], folder: Path) -> None:
        self.packages, self.folder = packages, folder
        self.total = sum(package.size for package in packages)
        self.complete: set[str] = set()
        self.stopped = False
        self._ended = threading.Event()
        self._live = sys.stderr.isatty()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> "Progress":
        self._say(f"downloading {len(self.packages)} packages, {self.total / 1e6:.0f} MB")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        seconds = time.monotonic() - self._began
        self._say(f"{self._state()} in {seconds:.0f} s", clear=True)

    def done(self, package: Package) -> None:
        """`package` is complete and checked."""
        self.complete.add(package.name)

    def _watch(self) -> None:
        while not self._ended.wait(0.2 if self._live else 5):
            if self._live:
                print(f"\r\x1b[K{self._state()}", end="", file=sys.stderr, flush=True)
            else:
                self._say(self._state())

    def _state(self) -> str:
        size = 0
        for package in self.packages:
            if package.name in self.complete:
                size += package.size
                continue
            try:
                size += os.stat((self.folder / package.file_name).with_suffix(".part")).st_size
            except OSError:  # not begun
                continue
        return f"{len(self.complete)} of {len(self.packages)} packages, {size / 1e6:.0f} of {self.total / 1e6:.0f} MB"

    def _say(self, text: str, clear: bool = False) -> None:
        print(("\r\x1b[K" if clear and self._live else "") + text, file=sys.stderr, flush=True)

"""Where packages and images are kept, and who may write there."""

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicemu.cli.conformance.fetch import cache_folder
from nicemu.config.errors import ConfigError

UNUSED_DAYS = 14
"""An image that no run has used for so long is removed when a new one is built."""


def folder() -> Path:
    """`$NICEMU_CACHE/rxe-lab`, else `rxe-lab` in nicemu's cache folder; made if it is not there."""
    chosen = os.environ.get("NICEMU_CACHE")
    place = (Path(chosen).absolute() if chosen else cache_folder()) / "rxe-lab"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"expected a cache folder that can be written: {error}; NICEMU_CACHE names another") from None
    return place


@contextmanager
def building(place: Path) -> Iterator[None]:
    """One process at a time builds; the others wait and then find what it has built."""
    try:
        file = (place / "lock").open("a")
    except OSError as error:
        raise ConfigError(f"expected a cache folder that can be written: {error}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("another process builds a guest: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_space(place: Path, needed: int) -> None:
    """Raises ConfigError if less than `needed` bytes are free."""
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ConfigError(
            f"building the guest needs {needed / 1e6:.0f} MB in {place}, {free / 1e6:.0f} MB are free; "
            "NICEMU_CACHE names another folder"
        )


def remove_unused(place: Path, now: float | None = None) -> None:
    """Images that were last used UNUSED_DAYS ago; a guest that runs one keeps the file it has open."""
    oldest = (time.time() if now is None else now) - UNUSED_DAYS * 86400
    for each in (place / "images").glob("*"):
        if each.stat().st_mtime < oldest:
            shutil.rmtree(each, ignore_errors=True)


def sizes(place: Path) -> list[tuple[Path, int]]:
    """What lies in the cache: images and the folder of packages, with their bytes."""
    found = [*sorted((place / "images").glob("*")), place / "packages"]
    return [(each, sum(_size(file) for file in each.rglob("*"))) for each in found if each.is_dir()]


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # a build that goes on meanwhile has renamed or removed it
        return 0


def clean(place: Path) -> int:
    """Remove everything; the bytes that were freed."""
    with building(place):
        freed = sum(size for _, size in sizes(place))
        for name in ("images", "packages"):
            shutil.rmtree(place / name, ignore_errors=True)
    return freed

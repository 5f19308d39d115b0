"""A Debian package: deb(5), an ar archive whose member data.tar.* holds the files. Needs no dpkg."""

import io
import lzma
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nicemu.config.errors import ConfigError

MAGIC = b"!<arch>\n"
BROKEN = (OSError, ValueError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error, subprocess.SubprocessError)
"""What a package that is cut off, or none, makes Python raise."""
HEADER = 60  # bytes: name 16, date 12, uid 6, gid 6, mode 8, size 10, end 2


def members(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Names and sizes of an ar archive; at each the file stands at the member's first byte. Raises ValueError."""
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("expected an ar archive")
    while header := file.read(HEADER):
        if len(header) < HEADER or header[58:] != b"`\n":
            raise ValueError("expected the header of an ar member")
        name, size = header[:16].decode("ascii", "replace").rstrip(" /"), int(header[48:58])
        if size < 0:
            raise ValueError("expected the size of an ar member")
        start = file.tell()
        yield name, size
        file.seek(start + size + size % 2)


@contextmanager
def open_data(package: Path) -> Iterator[tarfile.TarFile]:
    """The files of a package, as a tar to be read from front to back. Raises ConfigError for what is no package."""
    try:
        with package.open("rb") as file:
            for name, size in members(file):
                if name.startswith("data.tar"):
                    content = file.read(size)
                    break
            else:
                raise ValueError("expected a member data.tar")
        content = decompressed(content) if name.endswith(".zst") else content
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as tar:
            yield tar
    except BROKEN as error:
        raise ConfigError(f"expected a Debian package: {error}", file=str(package)) from None


def decompressed(content: bytes) -> bytes:
    """What `zstd` makes of it: Python before 3.14 cannot. Raises ConfigError without the command."""
    program = shutil.which("zstd")
    if program is None:
        raise ConfigError("a package is compressed with zstd: install the command zstd")
    return subprocess.run([program, "-dcq"], input=content, stdout=subprocess.PIPE, check=True).stdout

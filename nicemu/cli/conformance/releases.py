"""The releases of rdma-core whose Python tests can be run, and how each is had.

pip has the source distributions of pyverbs from 56 on, with the tests in them. Older ones come as Debian ships them:
inside the package python3-pyverbs, from the machine's own package sources. What is pinned is the content of the tests
(`fetch.digest`), so it does not matter for which architecture a package was built.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from nicemu.config.errors import ConfigError


@dataclass(frozen=True)
class Release:
    """One release. `tests`: the folder with the tests inside the archive; `sha256`: the digest of its files."""

    name: str
    version: str
    tests: PurePosixPath
    sha256: str
    package: str = "pyverbs"
    debian: bool = False

    @property
    def folder_name(self) -> str:
        """Its folder in the cache."""
        return f"rdma-core-tests-{self.version}-{self.sha256[:12]}"


def from_pip(name: str, version: str, sha256: str) -> Release:
    """A release that pip has."""
    return Release(name, version, PurePosixPath(f"pyverbs-{version}/rdma-core/tests"), sha256)


PINNED = (
    Release(
        "44",
        "44.0-2",
        PurePosixPath("usr/share/doc/rdma-core/tests"),
        "eca980f9b036e82e6aa0517e7ca0b90537668b1f5ae89890870a3fc0f813823c",
        "python3-pyverbs",
        debian=True,
    ),
    from_pip("56", "56.1rc0", "6ff419042e8905b8ee2f955da7a77651eaf71e78494bb13ce9a9aa4522429e4d"),
    from_pip("57", "57.0", "ec7ddfd8225ace45808651e67fe7c1e3432550c45dbd28bd4d40b13a16942678"),
    from_pip("59", "59.0", "8deb14ba07a94ef41b69e4917584b8a2af0ac7b161ecad2c6feae0400a87a09f"),
)
NEWEST = "newest"
UNPINNED = ""
"""The digest of a release that came out after nicemu."""


def find(name: str) -> Release:
    """The release of that name. Raises ConfigError."""
    for release in PINNED:
        if release.name == name:
            return release
    known = ", ".join([*(release.name for release in PINNED), NEWEST])
    raise ConfigError(f"--release: expected one of {known}, given {name!r}")

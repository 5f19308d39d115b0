"""The machine's own Debian mirrors, from the files of apt: sources.list(5), in both of its forms."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from nicemu.config.errors import ConfigError

FOLDER = Path("/etc/apt")


class Unavailable(ConfigError):
    """The packages cannot be had from here: no mirror, or it does not answer, or does not have them any more.

    A status of its own: CI then compares with a stored run, and with no other failure.
    """

    exit_status = 3


SUITES = re.compile(r"(bullseye|bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)(-updates|-backports)?/?$")
"""Suites of Debian's main archive; its security archive and other distributions have other names or other pools."""


def mirrors(folder: Path = FOLDER) -> list[str]:
    """Base URIs of Debian's main archive without the last slash, in the order of the files, each once."""
    files = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]
    found = [entry for file in files for entry in _one_line(_read(file))]
    for file in sorted(folder.glob("sources.list.d/*.sources")):
        found += _deb822(_read(file))
    return list(dict.fromkeys(uri.rstrip("/") for uri, suite in found if _is_debian(uri, suite)))


def mirror(chosen: str | None, folder: Path = FOLDER) -> str:
    """`chosen`, or the first mirror of the machine. Raises ConfigError if there is none."""
    if chosen is not None:
        if urlsplit(chosen).scheme not in ("http", "https", "file"):
            raise ConfigError(f"expected --mirror with a URI http://, https:// or file://, given {chosen!r}")
        return chosen.rstrip("/")
    found = mirrors(folder)
    if not found:
        raise Unavailable(
            f"expected a Debian mirror in {folder}/sources.list or {folder}/sources.list.d, found none; "
            "name one: --mirror URI, the part before /dists and /pool"
        )
    return found[0]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not there, or not ours to read: the others may do
        return ""


def _one_line(content: str) -> Iterator[tuple[str, str]]:
    """`deb [ option=value ] uri suite component...` -> (uri, suite)."""
    for line in content.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.partition("#")[0]).split()
        if len(words) >= 3 and words[0] == "deb":
            yield words[1], words[2]


def _deb822(content: str) -> Iterator[tuple[str, str]]:
    """Stanzas of `Field: values`, folded lines start with a space, comments are whole lines."""
    kept = "\n".join(line for line in content.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", kept):
        fields: dict[str, list[str]] = {}
        for name, values in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t]+.*)*)", stanza, re.MULTILINE):
            fields[name.lower()] = values.split()
        if "deb" not in fields.get("types", []) or fields.get("enabled", ["yes"])[0].lower() in ("no", "false", "0"):
            continue
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                yield uri, suite


def _is_debian(uri: str, suite: str) -> bool:
    """Ubuntu and others have other suites; Debian's security archive has another pool (its folder says so)."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https", "file"):
        return False
    return SUITES.match(suite) is not None and "security" not in parts.path and "raspbian" not in uri.lower()

from pathlib import Path

import pytest

from nicemu.cli.rxe_lab import sources
from nicemu.config.errors import ConfigError

DEB822 = """\
Types: deb deb-src
# a comment between fields
URIs: http://one.example/debian/
 http://two.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 URIs: http://not.example/debian

Types: deb
URIs: http://one.example/debian-security
Suites: bookworm-security

Types: deb
URIs: http://off.example/debian
Suites: trixie
Enabled: no

Types: deb-src
URIs: http://sources.example/debian
Suites: trixie
"""


def write(folder: Path, name: str, content: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def test_deb822_stanzas_give_their_uris(tmp_path: Path) -> None:
    write(tmp_path, "sources.list.d/debian.sources", DEB822)
    assert sources.mirrors(tmp_path) == ["http://one.example/debian", "http://two.example/debian"]


def test_one_line_entries_give_their_uris(tmp_path: Path) -> None:
    lines = ["# deb http://no.example/debian trixie main", "deb-src http://no.example/debian trixie main",
             "deb [arch=amd64 signed-by=/k.gpg] https://a.example/debian trixie main # why",
             "deb\thttp://b.example/d sid main",
             "deb http://a.example/debian-security trixie-security main", ""]  # fmt: skip
    write(tmp_path, "sources.list", "\n".join(lines))
    assert sources.mirrors(tmp_path) == ["https://a.example/debian", "http://b.example/d"]


def test_other_distributions_are_passed_over(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sources.list",
        "deb http://u.example/ubuntu noble main\ndeb https://deb.example/node_20.x nodistro main\n",
    )
    write(tmp_path, "sources.list.d/own.list", "deb http://d.example/debian bookworm-backports main\n")
    assert sources.mirrors(tmp_path) == ["http://d.example/debian"]


def test_the_files_of_apt_come_in_its_order(tmp_path: Path) -> None:
    write(tmp_path, "sources.list.d/z.list", "deb http://second.example/debian trixie main\n")
    write(tmp_path, "sources.list", "deb http://first.example/debian trixie main\n")
    assert sources.mirror(None, tmp_path) == "http://first.example/debian"


def test_a_named_mirror_needs_no_sources(tmp_path: Path) -> None:
    assert sources.mirror("https://m.example/debian/", tmp_path) == "https://m.example/debian"


def test_a_mirror_that_is_no_uri_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected --mirror with a URI .* given 'm\.example'"):
        sources.mirror("m.example", tmp_path)


def test_a_machine_without_a_debian_mirror_is_told_how_to_name_one(tmp_path: Path) -> None:
    write(tmp_path, "sources.list", "deb http://u.example/ubuntu noble main\n")
    with pytest.raises(ConfigError, match=r"expected a Debian mirror .* found none; name one: --mirror URI"):
        sources.mirror(None, tmp_path)

from pathlib import Path

import pytest

from nicemu.cli.rxe_lab import download
from nicemu.cli.rxe_lab.lock import Package
from nicemu.config.errors import ConfigError
from tests.cli.rxe_lab import made


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    (folder / "pool").mkdir(parents=True)
    return folder


def put(mirror: Path, name: str, content: bytes) -> Package:
    package = made.package(name, content)
    (mirror / package.path).write_bytes(content)
    return package


def test_packages_arrive_in_their_order(mirror: Path, tmp_path: Path) -> None:
    packages = [put(mirror, f"p{number}+~", bytes([number]) * (number + 1)) for number in range(9)]
    files = download.fetch(packages, mirror.as_uri(), tmp_path / "cache")
    assert [file.read_bytes() for file in files] == [bytes([number]) * (number + 1) for number in range(9)]


def test_what_is_there_is_not_fetched_again(mirror: Path, tmp_path: Path) -> None:
    package = put(mirror, "one", b"1")
    download.fetch([package], mirror.as_uri(), tmp_path)
    assert download.fetch([package], "file:///nowhere", tmp_path) == [tmp_path / package.file_name]


def test_a_package_with_another_content_is_refused_and_removed(mirror: Path, tmp_path: Path) -> None:
    package = put(mirror, "one", b"1")
    (mirror / package.path).write_bytes(b"2")
    with pytest.raises(
        ConfigError, match=r"one 1\.0: expected 1 bytes with SHA-256 6b86b2\w+, given 1 bytes with d4735"
    ):
        download.fetch([package], mirror.as_uri(), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_that_is_gone_is_named_with_how_to_move_the_lock(mirror: Path, tmp_path: Path) -> None:
    packages = [put(mirror, "here", b"1"), made.package("gone", b"2", "2.1-3")]
    with pytest.raises(ConfigError, match=r"gone 2\.1-3 is no longer on file:.*nicemu lab rxe lock"):
        download.fetch(packages, mirror.as_uri(), tmp_path / "cache")


def test_a_mirror_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "APT_HELPER", tmp_path / "none")
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:1/pool/one\.deb did not arrive: .*try again") as raised:
        download.fetch([made.package("one", b"1")], "http://127.0.0.1:1", tmp_path)
    assert "\n" not in str(raised.value)


def test_the_last_line_says_how_much_came(mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download.fetch([put(mirror, "one", bytes(2_000_000))], mirror.as_uri(), tmp_path)
    assert capsys.readouterr().err.splitlines() == [
        "downloading 1 packages, 2 MB",
        "1 of 1 packages, 2 of 2 MB in 0 s",
    ]


def test_a_package_of_the_cache_that_was_cut_off_is_fetched_again(mirror: Path, tmp_path: Path) -> None:
    package = put(mirror, "one", b"123")
    (file,) = download.fetch([package], mirror.as_uri(), tmp_path)
    file.write_bytes(b"1")
    assert download.fetch([package], mirror.as_uri(), tmp_path) == [file]
    assert file.read_bytes() == b"123"


def test_packages_that_cannot_be_had_have_a_status_of_their_own(tmp_path: Path) -> None:
    """CI then compares with a stored run, and with no other failure."""
    with pytest.raises(ConfigError) as raised:
        download.fetch([made.package("gone", b"2")], (tmp_path / "nowhere").as_uri(), tmp_path)
    assert raised.value.exit_status == 3

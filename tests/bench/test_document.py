"""The page: machine, promises, rows with their limits, pictures."""

from pathlib import Path

import pytest

from nicemu._jit import JIT, object_code
from nicemu.bench import document, pictures, profile
from nicemu.config.errors import ConfigError
from nicemu.tables import World, wheel
from tests.bench.made import results, row


def test_the_page_has_machine_promises_and_rows() -> None:
    text = "\n".join(document.lines(results(), "cpu", []))
    assert "- CPU: a fast one" in text and "by CPU time" in text
    assert "| full model against the bare loop | at least 0.750 x bare event loop | 0.500 | NOT MET |" in text
    assert (
        "| RC WRITE 64 KiB, MTU 4096, arena | 2.00 M packets/s | 1.00 x real time | 0.500 of bare event loop |" in text
    )
    assert "All: a note." in text
    assert "## Where the time goes" not in text


def test_limits_are_named_once() -> None:
    text = "\n".join(document.lines(results(row(), row("RC READ 64 KiB, MTU 4096, program")), "cpu", []))
    assert text.count("| bare event loop | 64 KiB, MTU 4096 | 4.00 M packets/s |") == 1


def test_page_and_pictures_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = results(row(), row("RC WRITE 4 KiB, MTU 4096, arena"))
    made.profile = {"compiled engine;nic.port.depart": 0.4, "compiled engine;nic.port.depart;fabric.link.send": 0.1,
                    "C library;memmove": 0.5}  # fmt: skip
    text = document.write(made, "wall", tmp_path).read_text()
    assert "| compiled engine > nic.port.depart > fabric.link.send | 10.0% |" in text
    for name in (pictures.PROFILE, pictures.GROWTH):
        assert f"(pictures/{name})" in text
        assert (tmp_path / "pictures" / name).read_text().count("<svg") == 1


def test_without_a_docs_folder_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run it in a checkout"):
        document.write(results(), "wall", tmp_path / "docs")


def test_growth_is_by_size_qps_nics_and_pages() -> None:
    charts = pictures.growth(results(row("RC WRITE 64 B, 1,000 QPs"), row("16 NICs on a switch")), "cpu")
    assert [title.split(",")[0] for title, *_ in charts] == [
        "message size", "QPs", "NICs on a switch", "pages that 4 KiB WRITEs go round"]  # fmt: skip
    assert charts[2][2][""] == [(16, 0.5)]


@pytest.mark.skipif(not JIT, reason="about compiled code")
def test_perf_gets_the_addresses_of_compiled_functions(tmp_path: Path) -> None:
    world = World()
    wheel.schedule(world.address, 5, 1, 0, 0)
    symbol, (address, code) = next(item for item in object_code.linked().items() if "wheel.schedule" in item[0])
    assert symbol in {name for name, *_ in profile.functions(code)}
    profile.write_map(tmp_path / "map")
    at, size, _ = next(
        line for line in (tmp_path / "map").read_text().splitlines() if line.endswith(" tables.wheel.schedule")
    ).split()
    assert int(at, 16) == address
    assert 0 < int(size, 16) < len(code)
    world.close()


def test_numba_s_names_are_read() -> None:
    name = "_ZN6nicemu3nic4port8transmitB4v124B58c8tJTIeFIjyCbUCRMVaIBYEexx"
    assert (
        profile._frames("nicemu.nicemu.nic.requester.requester.0af1", name)
        == "nic.requester.requester;nic.port.transmit"
    )

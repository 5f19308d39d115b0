"""``nicemu run --pcap``: the packets of a program, for Wireshark."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from nicemu.wire.frame import parse
from nicemu.wire.opcode import CARRIES
from tests.lab.test_main_job import PINGPONG, nicemu
from tests.observe.test_packet_capture import packets
from tests.wire.oracle import complaints, fields


def captured(path: Path, *args: object, **environment: str) -> bytes:
    """The capture of a ping-pong."""
    done = nicemu("--stats", "--pcap", path, *args, PINGPONG, 2, **environment)
    assert done.returncode == 0, done.stderr
    assert f"packets_sent {len(packets(path.read_bytes()))} " in done.stderr
    return path.read_bytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """One run's capture."""
    path = tmp_path_factory.mktemp("pcap") / "run.pcapng"
    captured(path)
    return path


def test_tshark_recognises_every_packet_and_has_no_remarks(file):
    assert complaints(file) == []
    ours = [parse(data) for *_, data, _ in packets(file.read_bytes())]
    rows = fields(file, "_ws.col.Protocol", "frame.interface_name", "infiniband.bth.opcode", "infiniband.invariant.crc",
                  "_ws.col.Info")  # fmt: skip
    assert len(rows) == len(ours) > 300
    for frame, (protocol, interface, opcode, crc, info) in zip(ours, rows, strict=True):
        assert (protocol, interface, int(opcode, 0)) == ("RRoCE", "nicemu0", frame.bth.opcode)
        assert int(crc, 0).to_bytes(4, "big") == frame.icrc.to_bytes(4, "little")
        assert "Unknown OpCode" not in info and "Malformed" not in info


def test_every_packet_has_a_right_icrc(file):
    for *_, data, comment in packets(file.read_bytes()):
        frame = parse(data)
        assert frame.is_icrc_right and frame.is_checksum_right and frame.emit() == data and comment == ""


def test_the_capture_has_the_operations_of_the_program(file):
    """SEND, WRITE and READ of several packets, atomics, ACKs and RNR NAKs."""
    frames = [parse(data) for *_, data, _ in packets(file.read_bytes())]
    seen = Counter(frame.bth.opcode for frame in frames)
    assert {0x00, 0x01, 0x06, 0x07, 0x0C, 0x0D, 0x0E, 0x0F, 0x11, 0x12, 0x14} <= set(seen) <= set(CARRIES)
    syndromes = {part.syndrome >> 5 for frame in frames for part in frame.extended if part.NAME == "AETH"}
    assert {0, 1} <= syndromes


def test_stamps_are_virtual_time_and_never_go_back(file):
    times = [time for _, time, _, _ in packets(file.read_bytes())]
    assert times == sorted(times) and times[0] >= 0 and times[-1] < 10**9


def test_one_seed_one_capture(file, tmp_path):
    assert captured(tmp_path / "again", PYTHONHASHSEED="77", NICEMU_TEST_ENVIRONMENT="x" * 3000) == file.read_bytes()


def test_a_capture_changes_nothing(tmp_path):
    logs = [tmp_path / "with", tmp_path / "without"]
    for log, options in zip(logs, (("--pcap", tmp_path / "p"), ()), strict=True):
        done = nicemu("--force-odp", "--trace", log, *options, PINGPONG, 1)
        assert done.returncode == 0, done.stderr
    assert logs[0].read_bytes() == logs[1].read_bytes()


@pytest.mark.nojit
def test_compiled_code_and_plain_python_have_one_capture(tmp_path):
    files = [captured(tmp_path / off, NUMBA_DISABLE_JIT=off) for off in ("0", "1")]
    assert files[0] == files[1]


def test_a_folder_that_does_not_exist_is_one_line_before_the_program_starts(tmp_path):
    done = nicemu("--pcap", tmp_path / "no" / "such.pcapng", PINGPONG)
    assert done.returncode == 2 and done.stdout == ""
    assert "pcap: expected a file in a folder that exists" in done.stderr and done.stderr.count("\n") == 1


def test_the_configuration_names_the_file_too(tmp_path):
    (tmp_path / "lab.yaml").write_text("pcap: mine.pcapng\n")
    done = nicemu("--config", tmp_path / "lab.yaml", PINGPONG, 1)
    assert done.returncode == 0, done.stderr
    assert packets((tmp_path / "mine.pcapng").read_bytes())

"""Traces in Perfetto's format: the events of the text log, drawn so that slices nest and arrows lead forward."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import nicemu
from nicemu._jit import JIT
from nicemu.config import load_config
from nicemu.config.errors import ConfigError
from nicemu.observe.perfetto import messages
from nicemu.observe.perfetto.decode import packets
from nicemu.observe.trace_reader import read
from nicemu.pyverbs import enums as e
from nicemu.uverbs import session
from tests.lab.worlds import BYTES, Ends
from tests.observe.traced_program import traced

BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The traces of one program, in both forms."""
    folder = tmp_path_factory.mktemp("traces")
    for name in ("run.log", "run.pftrace"):
        traced(folder / name)
    return folder


@pytest.fixture(scope="module")
def trace(folder: Path) -> SimpleNamespace:
    """A Perfetto trace: its tracks by uuid, and (time, type, track, name, flows) of its track events."""
    names: dict[int, str] = {}
    tracks: dict[int, SimpleNamespace] = {}
    events = []
    for packet in packets(folder / "run.pftrace"):
        names |= {entry.iid: entry.name for entry in packet.interned_data.event_names}
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            tracks[track.uuid] = SimpleNamespace(name=track.name or track.process.process_name, above=track.parent_uuid)
        elif packet.HasField("track_event"):
            event = packet.track_event
            name = event.name or names.get(event.name_iid, "")
            events.append((packet.timestamp, event.type, event.track_uuid, name, list(event.flow_ids)))
    return SimpleNamespace(tracks=tracks, events=events)


def place(trace: SimpleNamespace, uuid: int) -> str:
    """Where a track is: ``nic0 (nicemu0)/QP 2/WR lane 0``."""
    track = trace.tracks[uuid]
    return f"{place(trace, track.above)}/{track.name}" if track.above else track.name


def test_both_forms_tell_the_same_events(folder: Path) -> None:
    events = list(read(folder / "run.log"))
    assert len(events) > 500
    assert list(read(folder / "run.pftrace")) == events


def test_the_program_makes_all_kinds_of_events(folder: Path) -> None:
    seen = {event.name for event in read(folder / "run.log")}
    assert seen >= {
        "DOORBELL", "WQE", "WQE_DONE", "RECV_TAKEN", "RNR_WAIT", "RNR_OVER", "LINK_OUT", "QP_PATH", "FAULT", "RESUME",
        "doorbell", "thread_start", "thread_wait", "thread_wake", "thread_end", "fault_work", "fault_in",
        "fault_in_done", "mtt_update", "mtt_update_done", "fault_resolved", "invalidate", "invalidate_done",
        "notifier_start", "notifier_end", "poll", "poll_done",
    }  # fmt: skip


def test_timestamps_never_go_back(trace: SimpleNamespace) -> None:
    times = [time for time, *_ in trace.events]
    assert times == sorted(times)


def test_every_slice_ends_and_no_end_is_without_one(trace: SimpleNamespace) -> None:
    depth: Counter[int] = Counter()
    for _, kind, track, *_ in trace.events:
        depth[track] += {BEGIN: 1, END: -1}.get(kind, 0)
        assert depth[track] >= 0, place(trace, track)
    assert not +depth


def test_slices_of_work_requests_and_faults_are_one_at_a_time_on_their_tracks(trace: SimpleNamespace) -> None:
    depth: Counter[int] = Counter()
    for _, kind, track, *_ in trace.events:
        if "/QP " in place(trace, track):
            depth[track] += {BEGIN: 1, END: -1}.get(kind, 0)
            assert depth[track] <= 1, place(trace, track)


def test_every_arrow_has_two_ends_and_leads_forward(trace: SimpleNamespace) -> None:
    flows: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for time, _, track, _, ids in trace.events:
        for flow in ids:
            flows[flow].append((time, place(trace, track)))
    assert len(flows) >= 5 + 3
    for ends in flows.values():
        assert len(ends) >= 2
        assert ends == sorted(ends, key=lambda end: end[0])


def test_a_work_request_leads_from_its_post_to_its_completion(trace: SimpleNamespace) -> None:
    (flow,) = next(ids for _, _, _, name, ids in trace.events if name == "ATOMIC_FETCH_AND_ADD 8 B")
    way = [trace.tracks[track].name for _, _, track, _, ids in trace.events if flow in ids]
    assert way[:4] == ["posts", "WR lane 3", "requester", "responder"]
    assert way[-3:] == ["responder", "completer", "completion queues"]


def test_a_page_fault_leads_over_driver_and_mm_to_its_resume(trace: SimpleNamespace) -> None:
    (flow,) = next(ids for _, _, _, name, ids in trace.events if name.startswith("page fault MR"))
    way = [(trace.tracks[track].name, name) for _, _, track, name, ids in trace.events if flow in ids]
    lane = way[3][0]
    assert lane.startswith("worker lane ")
    assert [name for name, _ in way[:3]] == ["REQUESTER_SEND", *2 * ["event queues, interrupts"]]
    assert [what for where, what in way if where == lane][:3] == [
        "resolve page fault", "fault pages in", "update MTT"]  # fmt: skip
    assert way[-1] == ("page faults", "resume")
    assert ("MTT", "MTT update") in way


def test_waits_of_a_queue_are_slices_of_its_track(trace: SimpleNamespace) -> None:
    begun = [(name, place(trace, track)) for _, kind, track, name, _ in trace.events if kind == BEGIN]
    assert any(name == "RNR wait" and where.endswith("/waits") and "/QP " in where for name, where in begun)


def test_there_are_processes_blocks_and_counters(trace: SimpleNamespace) -> None:
    places = {place(trace, uuid) for uuid in trace.tracks}
    nic = "nic0 (nicemu0)"
    assert places >= {"program", "driver", "mm", nic, f"{nic}/requester", f"{nic}/IOTLB", f"{nic}/cable out"}
    counters = {place(trace, track) for _, kind, track, *_ in trace.events if kind == COUNTER}
    assert counters >= {f"{nic}/page faults open", f"{nic}/bytes sent", f"{nic}/work requests outstanding"}


def test_a_cable_is_busy_for_as_long_as_a_packet_takes(folder: Path, trace: SimpleNamespace) -> None:
    told = sum(event.fields["wire_ns"] for event in read(folder / "run.log") if event.name == "LINK_OUT")
    cable = [(time, kind) for time, kind, track, *_ in trace.events if place(trace, track).endswith("/cable out")]
    assert sum(time if kind == END else -time for time, kind in cable) == told


def test_another_process_without_jit_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    root = Path(nicemu.__file__).parent.parent
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    path = tmp_path / "again.pftrace"
    command = [sys.executable, "-m", "tests.observe.traced_program", str(path)]
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=200)
    assert path.read_bytes() == (folder / "run.pftrace").read_bytes()


def test_a_trace_that_is_cut_off_is_read_as_far_as_it_goes(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pftrace"
    data = (folder / "run.pftrace").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    events = list(read(folder / "run.pftrace"))
    found = list(read(path))
    assert 100 < len(found) < len(events)
    assert found == events[: len(found)]


def test_a_file_that_is_no_trace_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "no.pftrace"
    path.write_text("time flies")
    with pytest.raises(ConfigError, match=r"no\.pftrace: expected a Perfetto trace, given other bytes at 0"):
        list(read(path))
    with pytest.raises(ConfigError, match="No such file"):
        list(read(tmp_path / "none.pftrace"))
    (tmp_path / "no.log").write_text("  12 host thread_end\nwhat is this\n")
    with pytest.raises(ConfigError, match=r"no\.log:2: expected 'time who event"):
        list(read(tmp_path / "no.log"))


@pytest.mark.parametrize("name", ["run.log", "run.pftrace"])
def test_a_trace_stops_at_its_limit_and_the_run_goes_on(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nicemu.lab.tracing.MEGABYTE", 50_000)
    monkeypatch.setattr("nicemu.observe.perfetto.log.BUFFER_BYTES", 1 << 16)
    traced(tmp_path / name, trace_limit_mb=1)
    assert (tmp_path / name).stat().st_size <= 50_000
    assert capsys.readouterr().err.count("the run goes on without it") == 1
    whole, part = list(read(folder / name)), list(read(tmp_path / name))
    assert part == whole[: len(part)]


@pytest.mark.slow
@pytest.mark.skipif(not JIT, reason="makes 60 MB of events")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.pftrace"
    session.reset()
    session.configure(load_config(None, {"trace": str(path)}))
    ends = Ends()
    near, _ = ends.pair()
    sizes = []
    for megabytes in (15, 60):
        while path.stat().st_size < megabytes * 1_000_000:
            for wr_id in range(8):
                ends.post(near, e.IBV_WR_RDMA_WRITE, ends.out(BYTES), wr_id)
            while ends.near.poll(8)[0]:
                pass
            session.current().flush()
        sizes.append(resident_bytes())
    ends.ctx.close()
    session.reset()
    assert sizes[1] - sizes[0] < 4_000_000


def resident_bytes() -> int:
    """Memory of this process that is there."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(("value", "data"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_varints(value: int, data: bytes) -> None:
    assert messages.varint(value) == data


@pytest.fixture(autouse=True, scope="module")
def no_lab_afterwards() -> Iterator[None]:
    yield
    session.reset()

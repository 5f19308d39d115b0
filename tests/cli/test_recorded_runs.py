"""`nicemu run --record`, and what reads its folder: stats, top, diff, why."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nicemu.cli import main
from nicemu.config import load_config
from nicemu.config.paths import shipped_names
from nicemu.lab import record
from nicemu.observe.run_folder import CAPTURE, COUNTERS, LIVE, TRACE
from tests.observe.exposition import parse

ROOT = Path(__file__).parents[2]
PINGPONG = ROOT / "examples" / "odp_pingpong.py"


PATIENT = "def rnr_wait(world, row, arg):\n    return arg * 10\n"
Reader = Callable[..., tuple[int, str, str]]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``nicemu run ARGUMENTS``, a process of its own."""
    command = [sys.executable, "-m", "nicemu", "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.fixture
def nicemu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Reader:
    """``nicemu ARGUMENTS`` in this process: (exit status, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nicemu", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run."""
    path = tmp_path_factory.mktemp("runs") / "a"
    done = run("--record", path, "--stats", PINGPONG, 1)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("nicemu: compiling")]
    (path.parent / "stats").write_text("\n".join(said))
    return path


def test_a_record_has_inputs_trace_packets_and_counters(folder: Path) -> None:
    assert {entry.name for entry in folder.iterdir()} == {
        "config.yaml", "program.py", "run.json", TRACE, CAPTURE, COUNTERS,
    }  # fmt: skip
    said = json.loads((folder / "run.json").read_text())
    assert (said["program"], said["arguments"], said["exit_status"]) == (str(PINGPONG), ["1"], 0)


def test_a_run_of_the_recorded_inputs_is_the_same_history(folder: Path, nicemu: Reader) -> None:
    again = folder.parent / "again"
    done = run("--config", folder / "config.yaml", "--record", again, folder / "program.py", 1)
    assert done.returncode == 0, done.stderr
    for name in (TRACE, CAPTURE, COUNTERS, "config.yaml"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    status, text, _ = nicemu("diff", folder, again)
    assert (status, text.splitlines()[-1]) == (0, "The same history.")


def test_diff_finds_the_first_difference_counters_and_latencies(folder: Path, nicemu: Reader) -> None:
    other = folder.parent / "other"
    image = folder.parent / "patient.py"
    image.write_text(PATIENT)
    assert run("--record", other, "--firmware", image, PINGPONG, 1).returncode == 0
    assert (other / "firmware" / "patient.py").read_text() == PATIENT
    status, text, errors = nicemu("diff", folder, other)
    assert status == 1, errors
    head, rest = text.split("First difference: event ")
    assert "left:   seed 1, discipline v6.12, firmware default" in head and "firmware patient" in head
    assert "  < " in rest and "  > " in rest and "ns=6400000" in rest
    assert "Counters that differ" in rest and "virtual_ns" in rest
    assert "RDMA_READ" in rest.split("Latency of work requests, us")[1]
    value = json.loads(nicemu("diff", "--json", folder, other)[1])
    assert value["same"] is False
    assert value["first_difference"]["left"] != value["first_difference"]["right"]
    assert set(value["latencies_ns"]["left"]["SEND"]) == {"n", "p50", "p95", "p99", "max"}
    status, text, _ = nicemu("diff", folder / TRACE, other / TRACE)
    assert status == 1 and "Counters that differ" not in text


def test_stats_prints_what_the_run_printed(folder: Path, nicemu: Reader) -> None:
    said = (folder.parent / "stats").read_text().strip().splitlines()
    lines = nicemu("stats", folder)[1].splitlines()
    assert lines == said[: len(lines)]
    assert [line.split()[0] for line in said[len(lines) :]] == ["firmware", "engine"]  # of that process only


def test_stats_for_prometheus_and_in_json(folder: Path, nicemu: Reader) -> None:
    assert parse(nicemu("stats", "--prometheus", folder)[1])["nicemu_mr_page_faults_total"].samples
    assert json.loads(nicemu("stats", "--json", folder)[1]) == json.loads((folder / COUNTERS).read_text())


def test_top_prints_one_frame_into_a_pipe(folder: Path, nicemu: Reader) -> None:
    frame = nicemu("top", folder)[1].splitlines()
    assert "ms of virtual time" in frame[0]
    assert [line.split()[0] for line in frame if line[:2] in ("NI", "QP", "MR")] == ["NIC", "MR"]  # QPs are gone


def test_why_takes_the_folder(folder: Path, nicemu: Reader) -> None:
    assert nicemu("why", folder)[1].startswith(f"{folder}: 29 send work requests")
    one = json.loads(nicemu("why", "--json", folder, "2:0")[1])[0]
    assert sum(piece["ns"] for piece in one["path"]) == one["latency_ns"]


def test_a_run_that_is_watched_has_the_same_history(folder: Path) -> None:
    """With every entry of the timeline published."""
    watched = folder.parent / "watched"
    words = ["nicemu", "run", "--record", str(watched), str(PINGPONG), "1"]
    program = f"import sys\nfrom nicemu.cli import main\nfrom nicemu.lab import record\nsys.argv = {words}\n"
    program += "record.PERIOD_S = 0\nmain()\n"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, capture_output=True, timeout=300)
    assert (watched / TRACE).read_bytes() == (folder / TRACE).read_bytes()
    assert not (watched / LIVE).exists()


def test_a_long_run_of_the_engine_is_published_on_the_way() -> None:
    """Nothing of the host's happens meanwhile: it is told when the event log is full."""

    class Engine:
        """Its log is full three times in one run."""

        enter = interrupts = error = set_time = idle = None
        on_trace = staticmethod(lambda world: seen.append("drained"))

        def run(self, until: int) -> int:
            for _ in range(3):
                self.on_trace(None)
            return until

    seen: list[str] = []
    watched = record._Watched(Engine(), lambda: seen.append("published"))
    watched.due = float("inf")
    assert watched.run(5) == 5
    assert seen == ["drained"] * 3
    watched.due = 0.0
    watched.run(5)
    assert seen[3:] == ["drained", "published", "drained", "drained"]


def test_a_run_that_was_killed_leaves_its_last_counters(tmp_path: Path, nicemu: Reader) -> None:
    program = tmp_path / "dies.py"
    program.write_text("import os\nfrom pyverbs.device import Context\nContext(name='nicemu0')\nos._exit(9)\n")
    assert run("--record", tmp_path / "run", program).returncode == 9
    assert (tmp_path / "run" / LIVE).exists()
    assert "lock reports" in nicemu("stats", tmp_path / "run")[1]


@pytest.mark.parametrize("name", shipped_names("configs/lab", ".yaml"))
def test_the_recorded_configuration_of_a_shipped_lab_reads_back_the_same(tmp_path: Path, name: str) -> None:
    config = load_config(name)
    record.Record(tmp_path / "run").inputs(config, None)
    assert load_config(tmp_path / "run" / "config.yaml").to_dict() == config.to_dict()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(record.ConfigError, match=r"expected an empty folder or an earlier record, given .*thesis"):
        record.Record(tmp_path)


def test_a_record_may_be_run_again_in_its_own_place(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "again"
    shutil.copytree(folder, place)
    done = run("--record", place, "--config", place / "config.yaml", place / "program.py", 1)
    assert done.returncode == 0, done.stderr
    assert (place / TRACE).read_bytes() == (folder / TRACE).read_bytes()


def test_a_refused_command_leaves_an_earlier_record_as_it_was(folder: Path, tmp_path: Path, nicemu: Reader) -> None:
    place = tmp_path / "again"
    shutil.copytree(folder, place)
    status, _, errors = nicemu("run", "--record", place, "--discipline", "v0.1", PINGPONG)
    assert status == 2 and errors.count("\n") == 1
    assert {entry.name for entry in place.iterdir()} == {entry.name for entry in folder.iterdir()}


def test_two_firmware_images_of_one_name_are_both_kept(tmp_path: Path) -> None:
    images = [tmp_path / side / "patient.py" for side in ("left", "right")]
    for number, image in enumerate(images):
        image.parent.mkdir()
        image.write_text(f"{PATIENT}# {number}\n")
    config = load_config(None, {"nics": 2, "firmware": list(map(str, images))})
    record.Record(tmp_path / "run").inputs(config, None)
    kept = load_config(tmp_path / "run" / "config.yaml")
    assert [Path(image).read_text() for image in kept.firmware] == [image.read_text() for image in images]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--record", "x", "--trace", "y", "z.py"], "--record writes trace and capture into its folder"),
        (["stats", "nosuch"], "expected a folder of `nicemu run --record` with counters.json, given 'nosuch'"),
        (["top", "nosuch"], "expected a folder of `nicemu run --record` with counters.json, given 'nosuch'"),
        (["diff", "nosuch", "nosuch"], "expected a trace, or a folder of `nicemu run --record` with trace."),
        (["why", "nosuch"], "expected a trace, or a folder of `nicemu run --record` with trace."),
        (["why", "nosuch", "everything"], "expected a work request as 5:12 or 'QP 5 #12'"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments: list[str], message: str, nicemu: Reader) -> None:
    status, _, errors = nicemu(*arguments)
    assert status == 2
    assert errors.startswith(f"nicemu: error: {message}")
    assert errors.count("\n") == 1


DAMMING = ROOT / "tests" / "data" / "damming.log"


@pytest.mark.parametrize("line", [
    "² nic0 WQE qpn=2", f"{'9' * 5000} nic0 WQE qpn=2", "7 nic0 WQE", "7 nic0 WQE_DONE qpn=x index= status=y",
    "7 nic0 SEND opcode=5", "7 nowhere WQE qpn=1 index=0", "7 host fault_work mr=", "7 nic0",
])  # fmt: skip
@pytest.mark.parametrize("command", ["why", "diff"])
def test_an_event_that_nobody_wrote_is_refused_with_its_file(
    line: str, command: str, tmp_path: Path, nicemu: Reader
) -> None:
    trace = tmp_path / "strange.log"
    trace.write_text(f"{DAMMING.read_text()}{line}\n", encoding="utf-8")
    status, _, said = nicemu(command, trace, *([DAMMING] if command == "diff" else []))
    assert (status, said.count("\n")) == (2, 1), said
    assert str(trace) in said and "expected" in said


@pytest.mark.parametrize("place", [1, 3, 100, 5_000])
@pytest.mark.parametrize("junk", [b"\xff" * 40, b"\0" * 40, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"])
def test_a_perfetto_trace_with_other_bytes_in_it_is_no_trace(
    folder: Path, place: int, junk: bytes, tmp_path: Path, nicemu: Reader
) -> None:
    trace = tmp_path / "strange.pftrace"
    data = (folder / TRACE).read_bytes()
    trace.write_bytes(data[:place] + junk + data[place + len(junk) : 20_000])
    status, _, said = nicemu("why", trace)
    assert status in (0, 2) and said.count("\n") == (status == 2), said


@pytest.mark.parametrize("change", [
    {"virtual_ns": None}, {"virtual_ns": "7"}, {"mr": None}, {"mr": {"1": {}}}, {"nic": {"nicemu0": {"timeouts": []}}},
    {"qp": [1]}, {"notes": [1]}, {"host": {"pgfault": {}}},
])  # fmt: skip
@pytest.mark.parametrize("command", [("stats",), ("stats", "--prometheus"), ("top", "--once")])
def test_counters_of_another_shape_are_refused_with_the_field(
    folder: Path, change: dict[str, object], command: tuple[str, ...], tmp_path: Path, nicemu: Reader
) -> None:
    counters = tmp_path / COUNTERS
    counters.write_text(json.dumps(json.loads((folder / COUNTERS).read_text()) | change))
    status, _, said = nicemu(*command, tmp_path)
    assert (status, said.count("\n")) == (2, 1), said
    assert f"{counters}: field {next(iter(change))}" in said


def test_json_without_end_is_no_counters(tmp_path: Path, nicemu: Reader) -> None:
    (tmp_path / COUNTERS).write_text("[" * 100_000)
    assert nicemu("stats", tmp_path)[0] == 2

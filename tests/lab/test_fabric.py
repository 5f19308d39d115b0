"""The fabric of a lab: from YAML to links, switch and impairments, and what a run says about them."""

from pathlib import Path

import pytest

from nicemu import lab
from nicemu.config import load_config
from tests.lab.test_main_job import PINGPONG, nicemu


@pytest.fixture
def config(tmp_path: Path):
    """A lab file with the given text."""

    def write(text: str) -> Path:
        file = tmp_path / "lab.yaml"
        file.write_text(text)
        return file

    return write


def test_a_lossy_run_ends_right_and_says_how_often_each_impairment_fired(config) -> None:
    rules = "{kind: loss, every: 20}", "{kind: corrupt, packets: [9]}", "{kind: loss, name: x, qpn: 99999}"
    done = nicemu("--config", config(f"impairments: [{', '.join(rules)}]"), "--stats", PINGPONG, 4)
    assert done.returncode == 0, done.stderr
    assert "all bytes right" in done.stdout
    assert "impairment 'corrupt' fired 1 time\n" in done.stderr
    assert "impairment 'x' never fired\n" in done.stderr
    assert "impairment 'loss' fired " in done.stderr
    assert "icrc_errors 1" in done.stderr
    assert "determined by the seed alone" in done.stderr


def test_injected_faults_stand_in_the_event_log(config, tmp_path: Path) -> None:
    file = config("impairments:\n- {kind: loss, packets: [5, 9]}\n")
    done = nicemu("--config", file, "--trace", tmp_path / "log", PINGPONG, 4)
    assert done.returncode == 0, done.stderr
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if " INJECT " in line]
    assert len(lines) == 2
    assert "impairment=1 number=1 opcode=" in lines[0]


def test_a_switch_carries_a_program(config) -> None:
    done = nicemu("--config", config("fabric: {switch: {pause: {}}}"), "--stats", PINGPONG, 4)
    assert done.returncode == 0, done.stderr
    assert "all bytes right" in done.stdout


@pytest.mark.parametrize("name", ["lossy", "switch", "congested"])
def test_every_shipped_fabric_becomes_a_lab(name: str) -> None:
    made = lab.open(load_config(name))
    assert made.fabric.nics == len(made.devices)
    assert len(made.fabric.rules) == len(made.config.impairments)
    assert bool(made.world.fabric[0].switched) == (made.config.fabric.switch is not None)
    made.close()


def test_a_lab_of_256_nics_commits_only_what_it_touches() -> None:
    made = lab.open(load_config(None, {"nics": 256}))
    gids = {gid for device in made.devices for gid in device.gids if gid is not None}
    assert len(gids) == 512
    assert made.route(made.devices[255].gids[3]) == 256
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    made.close()
    assert resident < 1 << 30


def test_a_lab_opened_after_others_commits_no_more_than_the_first() -> None:
    """Tables that ``np.zeros`` made were cleared in memory that an earlier lab had given back: 10 to 90 MiB a lab."""

    def resident_of_one() -> int:
        made = lab.open(load_config(None))
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        made.close()
        return resident

    first = resident_of_one()
    assert max(resident_of_one() for _ in range(8)) < first + (16 << 20)

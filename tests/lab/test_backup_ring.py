"""The backup ring as a user selects it: an unmodified UD program, dropped datagrams without it and none with it."""

from pathlib import Path

from tests.lab.test_main_job import ROOT, nicemu

EXAMPLE = ROOT / "examples" / "ud_backup_ring.py"


def counters(stderr: str) -> dict[str, int]:
    """The NIC's line of ``--stats``."""
    words = next(line for line in stderr.splitlines() if line.strip().startswith("nicemu0")).split()[1:]
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def test_cold_buffers_cost_nearly_every_datagram_without_the_ring_and_none_with_it():
    plain, ring = nicemu("--stats", EXAMPLE), nicemu("--stats", "--firmware", "backup_ring", EXAMPLE)
    assert plain.returncode == ring.returncode == 0, plain.stderr + ring.stderr
    assert "arrived in each: 0 1 1 1 0 1 1 1\n6 of 128 arrived, in order" in plain.stdout
    assert "arrived in each: 16 16 16 16 16 16 16 16\n128 of 128 arrived, in order" in ring.stdout
    lost, kept = counters(plain.stderr), counters(ring.stderr)
    assert lost["fault_drops"] == 128 - 6 and "backup_ring_packets" not in lost
    assert kept["backup_ring_packets"] == kept["backup_ring_delivered"] > 0 and "fault_drops" not in kept
    assert all("0 lock reports, 0 DMA violations" in done.stderr for done in (plain, ring))


def test_one_seed_one_history(tmp_path: Path):
    logs = []
    for name in ("a", "b"):
        options = ("--config", "force_odp", "--evict", 2, "--trace", tmp_path / name)
        done = nicemu(*options, EXAMPLE, 4, 8, PYTHONHASHSEED=name.encode().hex())
        assert done.returncode == 0 and "32 of 32 arrived" in done.stdout, done.stderr
        logs.append((tmp_path / name).read_bytes())
    assert logs[0] == logs[1] and b"BACKUP_RING" in logs[0]


def test_the_profile_sets_the_size_of_the_ring(tmp_path: Path):
    config = tmp_path / "small.yaml"
    config.write_text("firmware: backup_ring\nnic: {backup_ring: {entries: 3}}\n")
    done = nicemu("--stats", "--config", config, EXAMPLE, 1)
    assert "3 of 16 arrived" in done.stdout, done.stderr
    assert counters(done.stderr)["backup_ring_drops"] == 13

"""Experiment files for tests: a small workload of three SENDs and what to ask about it."""

from pathlib import Path

import yaml

from nicemu.experiment import conduct
from nicemu.experiment.conduct import Wish

WORKLOAD = '''
def sends(bench, *, size=64, iterations=3, fails_at=0):
    """SENDs of some bytes, one after the other."""
    client, server = bench.rc_pair()
    source, target = client.pinned(8192), server.pinned(8192)
    if size == fails_at:
        raise ValueError("no such size")
    for number in range(iterations):
        server.recv(target.sge())
        began = bench.now()
        client.send(source.sge(size))
        client.wait()
        server.wait()
        yield {"took_ns": bench.now() - began, "share": number / iterations, "name": "send"}


def draws(bench, *, iterations=3):
    """What depends on the seed: lost packets."""
    client, server = bench.rc_pair(timeout=8)
    source, target = client.pinned(4096), server.pinned(4096)
    for _ in range(iterations):
        server.recv(target.sge())
        began = bench.now()
        client.send(source.sge(64))
        server.wait()
        client.wait()
        yield {"took_ns": bench.now() - began, "iterations": iterations}
'''
SENDS = {
    "name": "sends",
    "title": "SENDs by size",
    "question": "Do more bytes take longer?",
    "workload": {"name": "sends", "file": "workload.py"},
    "sweep": {"workload.size": [64, 1024, 4096]},
    "metrics": {"took": {"of": "took_ns", "unit": "us", "aggregate": "p50", "title": "time of a SEND"},
                "sent": {"of": "nic0.packets_sent", "aggregate": "sum"}},
    "expect": [{"metric": "took", "relation": "increasing", "along": "size", "source": "more bytes take longer"}],
}  # fmt: skip
LOSSY = {
    "name": "lossy",
    "title": "SENDs that get lost",
    "question": "How long does a lost packet take?",
    "lab": {"impairments": [{"kind": "loss", "probability": 0.0}]},
    "workload": {"name": "draws", "file": "workload.py"},
    "sweep": {"lab.impairments.0.probability": [0.05, 0.3]},
    "repeat": 6,
    "metrics": {"took": {"of": "took_ns", "unit": "us", "aggregate": "mean"}},
    "show": {"where": {"probability": 0.3}},
}  # fmt: skip


def document(folder, experiment, **changes):
    """The experiment with some fields changed, as a file in a folder, read."""
    return conduct.load(str(written(folder, experiment, **changes)))


def written(folder: Path, experiment, **changes) -> Path:
    """Its file."""
    (folder / "workload.py").write_text(WORKLOAD, encoding="utf-8")
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment | changes, sort_keys=False), encoding="utf-8")
    return file


def done(top, experiment, changes=None, **wishes):
    """What comes of it, in ``top``/out unless wished otherwise, in this process."""
    wish = Wish(**{"folder": top / "out", "processes": 1} | wishes)
    return conduct.conduct(document(top, experiment, **(changes or {})), wish, lambda done, total: None)

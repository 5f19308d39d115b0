"""``python -m tests.fabric.mixture``: a bit of everything on a mesh and on a switch; prints digests of it."""

import hashlib
import json

from nicemu import _jit
from tests.fabric.wires import Wires, joins

RULES = (
    {"kind": "loss", "probability": 0.05},
    {"kind": "reorder", "probability": 0.1, "delay_ns": 300, "jitter_ns": 10**12},
    {"kind": "duplicate", "probability": 0.1, "jitter_ns": 900}, {"kind": "corrupt", "probability": 0.1},
    {"kind": "delay", "jitter_ns": 50, "direction": "in"},
    {"kind": "rewrite", "field": "va", "value": -5, "every": 7},
    {"kind": "rewrite", "field": "psn", "add": -9, "every": 9},
    {"kind": "partition", "nics": [2], "from_ns": 2000, "until_ns": 3000},
)  # fmt: skip
SWITCH = {"ecn": {"kmin_bytes": 500, "kmax_bytes": 20000, "pmax": 0.7}, "pause": {"xoff_bytes": 9000, "xon_bytes": 900}}


def digest(switch: dict | None) -> dict:
    """One run: the event log, links and firings."""
    wires = Wires(4, {"links": [{"nics": [0], "rate_gbps": 10}], "switch": switch}, RULES, seed=2**63 - 25)
    joins(wires, 2, 5, low=1, high=0)
    joins(wires, 4, 5, low=1, high=0)
    for k in range(60):
        for nic in (2, 3, 4):
            wires.send(at=k * 90, source_nic=nic, dest_nic=1, payload=k * 17, va=k)
        wires.send(at=k * 90, multicast=1, dgid_low=1)
    log = hashlib.sha256(json.dumps(wires.history()).encode()).hexdigest()
    tables = (wires.world.link, wires.world.fired[: wires.fabric.fired + 1], wires.world.impair[:20])
    state = [hashlib.sha256(table.tobytes()).hexdigest() for table in tables]
    return {"log": log, "state": state, "fired": wires.fabric.fired, "leaked": wires.leaked}


if __name__ == "__main__":
    print(json.dumps({"jit": _jit.JIT, "runs": [digest(None), digest(SWITCH)]}))

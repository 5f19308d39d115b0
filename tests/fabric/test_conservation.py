"""Whatever goes wrong, packets are accounted for and their rows come back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fabric.wires import Wires, joins

CHANCES = st.sampled_from([0.0, 0.05, 0.3, 1.0])
NS = st.integers(1, 3000)
RULES = st.one_of(
    st.fixed_dictionaries({"kind": st.just("loss"), "probability": CHANCES}),
    st.fixed_dictionaries({"kind": st.just("reorder"), "probability": CHANCES, "delay_ns": NS}),
    st.fixed_dictionaries({"kind": st.just("duplicate"), "probability": CHANCES, "delay_ns": NS}),
    st.fixed_dictionaries({"kind": st.just("corrupt"), "probability": CHANCES}),
    st.fixed_dictionaries({"kind": st.just("delay"), "probability": CHANCES, "jitter_ns": NS}),
    st.fixed_dictionaries({"kind": st.just("partition"), "from_ns": NS, "until_ns": st.integers(3001, 5000)}),
    st.fixed_dictionaries({"kind": st.just("rewrite"), "field": st.sampled_from(["payload", "operation", "psn"]),
                           "value": st.integers(0, 5000), "every": st.integers(1, 4)}),
)  # fmt: skip
SIDED = st.tuples(RULES, st.sampled_from(["in", "out", "both"])).map(lambda pair: pair[0] | {"direction": pair[1]})
LINK = st.fixed_dictionaries({"rate_gbps": st.sampled_from([1, 10, 100]), "mtu": st.sampled_from([500, 9000]),
                              "queue_packets": st.sampled_from([None, 1, 4])})  # fmt: skip
SWITCH = st.one_of(
    st.none(),
    st.fixed_dictionaries({"queue_packets": st.sampled_from([None, 2])}),
    st.just({"ecn": {"kmin_bytes": 0, "kmax_bytes": 3000, "pmax": 0.5}}),
    st.just({"pause": {"xoff_bytes": 1500, "xon_bytes": 200}}),
)
PACKETS = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1000)), min_size=1, max_size=30
)


@settings(max_examples=150, deadline=None)
@given(st.lists(SIDED, max_size=5), LINK, SWITCH, PACKETS, st.integers(0, 2**63 - 1), st.integers(0, 6000))
def test_packets_are_conserved(rules, link, switch, packets, seed, stop) -> None:
    wires = Wires(3, fabric={"links": [link], "switch": switch}, impairments=tuple(rules), seed=seed)
    for at, source, target, payload in sorted(packets):
        wires.send(at, source_nic=source, dest_nic=target, payload=payload)
    wires.run(until=stop)
    queued = wires.total("queued")
    assert queued >= 0
    arrived = len(wires.arrivals())
    lost = sum(wires.total(name) for name in ("losses", "mtu_drops", "queue_drops", "down_drops"))
    assert wires.sent == arrived + lost - wires.total("duplicated")
    assert wires.total("queued") == wires.total("bytes_queued") == wires.total("ingress_bytes") == 0
    assert wires.leaked == 0
    if switch and "pause" in switch:
        assert int(wires.world.link.queue_drops[2::2].sum()) == 0


@pytest.mark.parametrize("switch", [None, {}])
def test_no_copy_of_a_multicast_packet_is_lost_count_of(switch) -> None:
    rules = ({"kind": "duplicate", "every": 2}, {"kind": "loss", "direction": "in", "every": 3})
    wires = Wires(4, fabric={"switch": switch}, impairments=rules)
    for nic in (1, 3, 4):
        joins(wires, nic, 5, low=4, high=0)
    for k in range(20):
        wires.send(k * 50, multicast=1, dgid_low=4)
    arrived = len(wires.arrivals())
    assert arrived + wires.total("losses") == 3 * (20 + wires.total("duplicated"))
    assert wires.leaked == 0

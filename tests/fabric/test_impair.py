"""Impairments: each does what it says, when it says, leaves a row, and depends on the seed alone."""

import pytest

from nicemu.fabric.draw import below, draw
from nicemu.tables.records import FIRED_ROWS
from nicemu.tables.trace import Ev
from nicemu.wire import opcode as bth
from tests.fabric.wires import DELAY_NS, SEND_BYTES, Wires, joins

NS = SEND_BYTES * 80 // 1000
ON_TIME = NS + DELAY_NS


def hit(wires: Wires) -> list[int]:
    """PSNs of the packets that impairments hit, in order of the firings."""
    wires.run()
    return [int(row.psn) for row in wires.world.fired[1 : wires.fabric.fired + 1]]


def test_loss_takes_the_packet() -> None:
    wires = Wires(impairments=({"kind": "loss", "packets": [2]},))
    wires.burst(3, 50)
    assert wires.psns() == [0, 2]
    assert wires.link(1).losses == 1
    assert wires.leaked == 0


def test_a_reordered_packet_is_overtaken() -> None:
    wires = Wires(impairments=({"kind": "reorder", "packets": [1], "delay_ns": 70},))
    wires.burst(3, 50)
    assert wires.arrivals() == [(50 + ON_TIME, 2, 1), (70 + ON_TIME, 2, 0), (100 + ON_TIME, 2, 2)]


def test_a_delay_keeps_the_order() -> None:
    wires = Wires(impairments=({"kind": "delay", "packets": [1], "delay_ns": 70},))
    wires.burst(3, 50)
    assert wires.arrivals() == [(70 + ON_TIME, 2, 0), (70 + ON_TIME, 2, 1), (100 + ON_TIME, 2, 2)]


def test_jitter_is_drawn_up_to_its_limit() -> None:
    wires = Wires(impairments=({"kind": "delay", "delay_ns": 10, "jitter_ns": 30},))
    wires.burst(200, 1000)
    extra = [time - ON_TIME - 1000 * k for k, (time, *_) in enumerate(wires.arrivals())]
    assert (min(extra), max(extra)) == (10, 40)


def test_a_duplicate_arrives_later_with_the_same_payload() -> None:
    wires = Wires(impairments=({"kind": "duplicate", "every": 2, "delay_ns": 500},))
    wires.burst(2, 50, payload=64)
    late = ON_TIME + 64 * 80 // 1000 + 50
    assert [(time, psn) for time, _, psn in wires.arrivals()] == [(late - 50, 0), (late, 1), (late + 500, 1)]
    assert wires.link(1).duplicated == 1
    assert wires.leaked == 0


def test_corruption_names_the_bit_and_lets_the_packet_go_on() -> None:
    wires = Wires(impairments=({"kind": "corrupt", "bit": 37},))
    wires.send()
    wires.run()
    assert [row[4] for row in wires.log(Ev.RECEIVE)] == [38]


def test_a_drawn_bit_lies_between_the_bth_and_the_end_of_the_icrc() -> None:
    wires = Wires(impairments=({"kind": "corrupt"},))
    wires.burst(300, 100, payload=4)
    wires.run()
    bits = [row[4] - 1 for row in wires.log(Ev.RECEIVE)]
    assert 0 <= min(bits) < 8
    assert (12 + 4 + 4) * 8 - 8 <= max(bits) < (12 + 4 + 4) * 8


def test_a_partition_loses_everything_in_its_window_in_both_directions() -> None:
    wires = Wires(3, impairments=({"kind": "partition", "nics": [0], "from_ns": 100, "until_ns": 200},))
    for at in (99, 100, 199, 200):
        wires.send(at, source_nic=1, dest_nic=2)
        wires.send(at, source_nic=2, dest_nic=1)
        wires.send(at, source_nic=2, dest_nic=3)
    assert sorted(wires.psns()) == [0, 1, 2, 5, 8, 9, 10, 11]
    assert wires.leaked == 0


@pytest.mark.parametrize(
    ("field", "column", "old", "new", "stored"),
    [
        ("operation", "opcode", 4, 16, 16),
        ("transport", "transport", 0, 3, 3),
        ("psn", "psn", 5, -1, 0xFFFFFF),
        ("dest_qpn", "dest_qpn", 7, 8, 8),
        ("payload", "payload", 16, 5000, 4096),
        ("length", "length", 16, 17, 17),
        ("va", "va", 4096, 1, 1),
        ("rkey", "rkey", 256, 0x1_0000_0001, 1),
        ("syndrome", "syndrome", 0x1F, 0x63, 0x63),
        ("msn", "msn", 1, 2, 2),
        ("imm", "imm", 1, 2, 2),
        ("pkey", "pkey", 0xFFFF, 0x7FFF, 0x7FFF),
        ("qkey", "qkey", 1, 2, 2),
        ("ack_request", "ack_request", 1, 0, 0),
        ("solicited", "solicited", 0, 1, 1),
        ("srqn", "srqn", 1, 2, 2),
    ],
)
def test_a_broken_peer_sends_another_value(field: str, column: str, old: int, new: int, stored: int) -> None:
    wires = Wires(impairments=({"kind": "rewrite", "field": field, "value": new},))
    wires.send(**{column: old})
    wires.run(until=ON_TIME // 2)
    assert wires.world.packet[1][column] == stored
    assert int(wires.world.fired[1].did) == old


def test_a_field_can_be_moved_by_an_amount() -> None:
    wires = Wires(impairments=({"kind": "rewrite", "field": "psn", "add": 3},))
    wires.burst(2, 50)
    assert wires.psns() == [3, 4]


@pytest.mark.parametrize(
    ("when", "psns"),
    [
        ({"every": 3}, [2, 5, 8]),
        ({"packets": [1, 4, 9]}, [0, 3, 8]),
        ({"psns": [7, 2]}, [2, 7]),
        ({"count": 2}, [0, 1]),
        ({"count": 0}, []),
        ({"every": 2, "count": 3}, [1, 3, 5]),
        ({"every": 2, "packets": [4, 5]}, [3]),
        ({"from_ns": 300, "until_ns": 500}, [3, 4]),
        ({"from_ns": 300, "packets": [1]}, [3]),
        ({"qpn": 8}, []),
        ({"qpn": 7, "packets": [2]}, [1]),
        ({"transport": "UD"}, []),
        ({"transport": "RC", "every": 5}, [4, 9]),
        ({"operations": ["ACKNOWLEDGE", "SEND_ONLY"], "every": 5}, [4, 9]),
        ({"operations": ["ACKNOWLEDGE"]}, []),
        ({"probability": 0.0}, []),
        ({"probability": 1.0}, list(range(10))),
        ({"nics": [1]}, []),
        ({"nics": [1], "direction": "in", "packets": [3]}, [2]),
        ({"direction": "in", "packets": [3]}, [2]),
    ],
)
def test_an_impairment_hits_the_packets_that_it_names(when: dict, psns: list[int]) -> None:
    wires = Wires(impairments=({"kind": "loss"} | when,))
    wires.burst(10, 100)
    assert hit(wires) == psns
    assert sorted(wires.psns() + psns) == list(range(10))


def test_packets_are_counted_on_each_link_apart() -> None:
    wires = Wires(3, impairments=({"kind": "loss", "packets": [2]},))
    for k in range(3):
        wires.send(k * 50, source_nic=1, psn=10 + k)
        wires.send(k * 50, source_nic=3, psn=30 + k)
    assert hit(wires) == [11, 31]


def test_the_limit_holds_for_all_links_together() -> None:
    wires = Wires(3, impairments=({"kind": "loss", "count": 1},))
    wires.send(0, source_nic=1)
    wires.send(0, source_nic=3)
    assert hit(wires) == [0]


def test_a_probability_hits_about_its_share() -> None:
    wires = Wires(impairments=({"kind": "loss", "probability": 0.1},))
    wires.burst(2000, 10)
    assert 150 < len(hit(wires)) < 250


def mixed(seed: int) -> Wires:
    """A bit of everything."""
    rules = (
        {"kind": "loss", "probability": 0.1}, {"kind": "reorder", "probability": 0.2, "jitter_ns": 400},
        {"kind": "duplicate", "probability": 0.2, "jitter_ns": 100}, {"kind": "corrupt", "probability": 0.1},
        {"kind": "delay", "jitter_ns": 50},
    )  # fmt: skip
    wires = Wires(3, impairments=rules, seed=seed)
    wires.burst(60, 20)
    wires.burst(60, 20, source_nic=3)
    return wires


def test_the_same_seed_gives_the_same_history() -> None:
    assert mixed(7).history() == mixed(7).history()


def test_another_seed_gives_another_history() -> None:
    assert mixed(7).history() != mixed(8).history()


def test_what_one_link_does_does_not_depend_on_another_links_traffic() -> None:
    alone, busy = (Wires(3, impairments=({"kind": "loss", "probability": 0.3},)) for _ in range(2))
    for k in range(50):
        alone.send(k * 20, psn=k)
        busy.send(k * 20, psn=k)
        busy.send(k * 20, source_nic=3, psn=1000 + k)
    assert hit(alone) == [psn for psn in hit(busy) if psn < 1000]


def test_two_impairments_of_one_kind_draw_apart() -> None:
    rules = [{"kind": "corrupt", "name": name, "probability": 0.5} for name in ("a", "b")]
    wires = Wires(impairments=tuple(rules))
    wires.burst(100, 20)
    wires.run()
    rows = wires.world.fired[1 : wires.fabric.fired + 1]
    first, second = (set(rows[rows.impairment == i].psn.tolist()) for i in (1, 2))
    assert first - second
    assert second - first


def test_each_firing_is_a_row_with_what_it_hit() -> None:
    wires = Wires(impairments=({"kind": "loss", "name": "wifi", "packets": [2]},))
    wires.send(0, opcode=bth.ACKNOWLEDGE, dest_qpn=9)
    wires.send(300, opcode=bth.READ_REQUEST, dest_qpn=9, psn=77)
    wires.run()
    row = wires.world.fired[1]
    assert (row.number, row.impairment, row.time, row.link, row.operation, row.psn, row.qpn) == (
        1, 1, 300, 1, bth.READ_REQUEST, 77, 9,
    )  # fmt: skip
    assert wires.fabric.describe(1) == (
        "fault 1 at 300 ns on nic0 out: impairment 'wifi': lost: RC READ_REQUEST psn 77 for qp 9"
    )
    assert [row[2:] for row in wires.log(Ev.INJECT)] == [(1, 1, bth.READ_REQUEST, 77)]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"kind": "reorder", "delay_ns": 5}, "held back 5 ns"),
        ({"kind": "duplicate", "delay_ns": 6}, "duplicated, the copy 6 ns later"),
        ({"kind": "corrupt", "bit": 7}, "flipped bit 7 from the BTH on"),
        ({"kind": "delay", "delay_ns": 8}, "delayed 8 ns"),
        ({"kind": "partition"}, "lost"),
        ({"kind": "rewrite", "field": "rkey", "value": 255}, "changed rkey from 0x10 to 0xff"),
        ({"kind": "rewrite", "field": "rkey", "add": -1}, "changed rkey from 0x10 to 0xf"),
    ],
)
def test_a_fault_is_told_in_words(rule: dict, text: str) -> None:
    wires = Wires(impairments=(rule,))
    wires.send(rkey=16)
    wires.run()
    assert f"impairment '{rule['kind']}': {text}: RC SEND_ONLY" in wires.fabric.describe(1)


def test_the_packet_carries_the_number_of_its_fault_and_the_text_names_the_ones_before() -> None:
    wires = Wires(impairments=({"kind": "delay", "delay_ns": 5}, {"kind": "corrupt", "bit": 1}))
    wires.send()
    wires.run()
    assert [row[3] for row in wires.log(Ev.RECEIVE)] == [2]
    assert "before it: fault 1" in wires.fabric.describe(2)


def test_a_copy_carries_the_number_of_the_fault_that_made_it() -> None:
    wires = Wires(impairments=({"kind": "duplicate"},))
    wires.send()
    wires.run()
    assert [row[3] for row in wires.log(Ev.RECEIVE)] == [1, 1]


def test_the_report_says_how_often_each_fired_and_that_one_never_did() -> None:
    wires = Wires(impairments=({"kind": "loss", "every": 2}, {"kind": "loss", "name": "late", "from_ns": 10**9}))
    wires.burst(4, 50)
    wires.run()
    assert wires.fabric.report()[:2] == ["impairment 'loss' fired 2 times", "impairment 'late' never fired"]
    assert wires.fabric.firings() == [("loss", 2), ("late", 0)]


def test_the_ring_of_firings_keeps_the_last_and_says_so_of_the_others() -> None:
    wires = Wires(impairments=({"kind": "loss"},))
    wires.world.fabric[0].fired = FIRED_ROWS
    wires.send()
    wires.run()
    assert "lost" in wires.fabric.describe(FIRED_ROWS + 1)
    assert wires.fabric.describe(1) == f"fault 1: no longer kept (the last {FIRED_ROWS - 1} are)"
    assert wires.fabric.describe(FIRED_ROWS + 2) == f"fault {FIRED_ROWS + 2}: there is none"


def test_impairments_hit_each_copy_of_a_multicast_packet_on_its_own_way_in() -> None:
    wires = Wires(3, impairments=({"kind": "loss", "nics": [1], "direction": "in"},))
    for nic in (1, 2, 3):
        joins(wires, nic, 5, low=4, high=0)
    wires.send(multicast=1, transport=bth.UD, dgid_low=4)
    assert [nic for _, nic, _ in wires.arrivals()] == [1, 3]
    assert wires.leaked == 0


def test_an_impairment_of_the_way_in_acts_behind_the_switch() -> None:
    wires = Wires(2, fabric={"switch": {}}, impairments=({"kind": "loss", "direction": "in", "packets": [1]},))
    wires.burst(2)
    assert wires.psns() == [1]
    assert wires.world.fired[1].link == 4


def test_one_can_be_planted_while_the_lab_runs() -> None:
    from nicemu.config.fabric_profile import Impairment

    wires = Wires()
    wires.send()
    wires.run()
    wires.fabric.add(Impairment(kind="loss", packets=(1,)))
    wires.burst(2, 50)
    assert wires.psns() == [0, 2]


def test_draws_are_spread_evenly() -> None:
    for stream, link in ((1, 1), (1, 2), (2, 1)):
        buckets = [0] * 16
        for count in range(1600):
            buckets[int(draw(3, stream, link, count)) >> 28] += 1
        assert min(buckets) > 60
        assert max(buckets) < 145


@pytest.mark.parametrize("limit", [1, 2, 1000, 2**31, 10**12])
def test_a_draw_below_a_limit_stays_below_it(limit: int) -> None:
    assert below(0, limit) == 0
    assert limit * 0.99 - 1 <= below(2**32 - 1, limit) < limit

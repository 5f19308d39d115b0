"""Hostile programs and peers: any bytes in rings, doorbell records and packets. Never a crash, a trap, endless work or
a byte outside what the keys allow.

A program may write anything into the memory it shares with the NIC, also while the NIC works on it.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from nicemu.abi.rings import SEND_WQE, SGE, Doorbell, doorbell_offset
from nicemu.abi.verbs import AsyncEvent, QpState
from nicemu.nic.arrive import MOST_WAITING
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import Rc, connected
from tests.nic.packets import inject
from tests.nic.testbench import ALL, SLOTS, Bench, Mr, Qp

MOST_EVENTS = 60_000
"""A case ends within so many events; one with honest WQEs takes some hundred."""
BIG = (0, 1, 7, 8, 63, 64, 4096, 65536, 1 << 31, (1 << 31) + 1, (1 << 32) - 1)


class Target:
    """An RC pair that may use two regions, beside two that it must not touch."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.rc = connected(self.bench, pages=4, RETRY_CNT=1, RNR_RETRY=1, TIMEOUT=1)
        self.read_only = self.bench.mr(2, 0)
        self.foreign = self.bench.region(2, pd=2)
        self.foreign.frames = self.bench.mr(2).frames
        self.foreign.map()
        self.read_only.fill(8)
        self.foreign.fill(9)
        self.guarded = self.read_only.data, self.foreign.data
        self.regions = [self.rc.local, self.rc.remote, self.read_only, self.foreign]

    def fresh(self) -> Rc:
        """Both QPs as new."""
        rc = self.rc
        for qp in (rc.a, rc.b):
            qp.modify(1, STATE=QpState.RESET)
            qp.record.bytes[:] = 0
            qp.send.bytes[:] = 0
            qp.recv.bytes[:] = 0
        rc.a.connect(rc.b, RETRY_CNT=1, RNR_RETRY=1, TIMEOUT=1)
        rc.b.connect(rc.a, RETRY_CNT=1, RNR_RETRY=1, TIMEOUT=1)
        for cq in (rc.a.cq, rc.b.cq):
            cq.record.word(0, int(self.bench.world.cq[int(self.bench.device.row.cq_base) + cq.number].produced))
            self.bench.world.cq[int(self.bench.device.row.cq_base) + cq.number].overrun = 0
        self.bench.events(2)
        self.bench.events(3)
        return rc

    def check(self, what: str) -> None:
        """Run some time; then everything that must hold."""
        control = self.bench.world.control[0]
        before = int(control.ran)
        self.bench.run_for(3_000_000)
        assert int(control.ran) - before < MOST_EVENTS, f"{what}: {int(control.ran) - before} events"
        assert (self.read_only.data, self.foreign.data) == self.guarded, what
        assert int(control.violations) == 0, what
        for qp in (self.rc.a, self.rc.b):
            row = qp.row()
            assert row.sq_una <= row.sq_next <= row.sq_fetched <= row.sq_una + SLOTS, what


@pytest.fixture(scope="module")
def target() -> Target:
    """One NIC for all cases."""
    return Target()


def address(rng: random.Random, region: Mr) -> int:
    """An address in, near or far from a region."""
    return rng.choice(
        [
            region.va,
            region.va + rng.randrange(region.pages * 4096),
            region.va + region.pages * 4096 - 8,
            region.va - 8,
            0,
            rng.getrandbits(64),
            2**63 - 4,
            2**64 - 8,
        ]
    )


def key(rng: random.Random, target: Target) -> int:
    """A key, right or wrong."""
    region = rng.choice(target.regions)
    return rng.choice([region.key, region.key, region.key, region.key + 1, rng.getrandbits(32), 0])


def wqe(rng: random.Random, target: Target, stride: int) -> bytes:
    """A slot of a send ring."""
    if rng.random() < 0.2:
        return rng.randbytes(stride)
    count = rng.choice([0, 1, 1, 2, 4, 16, 28, 29, 60, 1 << 20, 2**32 - 1])
    head = SEND_WQE.pack(
        rng.getrandbits(64),
        rng.choice([*range(8), rng.getrandbits(32)]),
        rng.getrandbits(rng.choice([2, 4, 32])),
        count,
        rng.getrandbits(32),
        address(rng, rng.choice(target.regions)),
        key(rng, target),
        rng.choice(BIG),
        rng.getrandbits(64),
        rng.getrandbits(64),
        0,
        0,
    )
    sges = b"".join(
        SGE.pack(address(rng, rng.choice(target.regions)), rng.choice([*BIG, rng.randrange(9000)]), key(rng, target))
        for _ in range(min(count, (stride - 64) // 16))
    )
    return (head + sges + rng.randbytes(stride))[:stride]


def counter(rng: random.Random) -> int:
    """A producer counter: sane, too far, absurd."""
    return rng.choice([1, 3, SLOTS, SLOTS + 1, 1000, 5_000_000, 2**31, 2**62, 2**63 - 1, -1, -(2**63)])


def spoil(rng: random.Random, target: Target, qp: Qp) -> None:
    """Fill both rings and the doorbell record of a QP."""
    for slot in range(SLOTS):
        qp.send.view[slot * qp.send_stride : (slot + 1) * qp.send_stride] = wqe(rng, target, qp.send_stride)
    if rng.random() < 0.5:
        qp.recv.bytes[:] = np.frombuffer(rng.randbytes(len(qp.recv.bytes)), np.uint8)
    for slot in range(SLOTS):
        good = SGE.pack(target.rc.remote.va, 8192, target.rc.remote.key)
        if rng.random() < 0.5:
            qp.recv.view[slot * qp.recv_stride + 8 : slot * qp.recv_stride + 32] = (1).to_bytes(8, "little") + good
    qp.record.word(0, rng.choice([counter(rng), rng.randint(1, 12)]))
    qp.record.word(8, rng.choice([counter(rng), rng.randint(0, 12)]))


def ring(target: Target, qp: Qp) -> None:
    """Both doorbells."""
    for bank in (Doorbell.SEND, Doorbell.RECV):
        target.bench.device.write_doorbell(doorbell_offset(bank, qp.number), 0)


@pytest.mark.parametrize("block", range(20))
def test_any_bytes_in_rings_and_doorbell_records(target, block):
    for seed in range(block * 80, block * 80 + 80):
        rng = random.Random(seed)
        rc = target.fresh()
        for qp in rng.choice([(rc.a,), (rc.a, rc.b)]):
            spoil(rng, target, qp)
            ring(target, qp)
        target.check(f"seed {seed}")


@pytest.mark.parametrize("block", range(10))
def test_rings_that_change_while_the_nic_works_on_them(target, block):
    """Checked once is not checked: keys, addresses and lengths flip between two events."""
    for seed in range(block * 10, block * 10 + 10):
        rng = random.Random(seed)
        rc = target.fresh()
        for slot in range(4):
            rc.b.post_recv(slot, rc.remote.sge(6000))
            rc.write(slot, 6000) if slot % 2 else rc.send(slot, 6000)
            rc.read(slot, 6000)
        for _ in range(60):
            if not target.bench.engine_step():
                break
            qp = rng.choice([rc.a, rc.b])
            slot = rng.randrange(8)
            if rng.random() < 0.5:
                at = slot * rc.a.send_stride + 64
                rc.a.send.view[at : at + 16] = SGE.pack(
                    address(rng, rng.choice(target.regions)), rng.choice(BIG), key(rng, target)
                )
            else:
                at = slot * rc.b.recv_stride + 16
                rc.b.recv.view[at : at + 16] = SGE.pack(
                    address(rng, rng.choice(target.regions)), rng.choice(BIG), key(rng, target)
                )
            if rng.random() < 0.1:
                qp.record.word(rng.choice([0, 8]), counter(rng))
        target.check(f"seed {seed}")


@pytest.mark.parametrize("block", range(10))
def test_packets_with_any_fields(target, block):
    """A peer that follows no rule (its lengths fit its bytes: the wire parser sees to that)."""
    for seed in range(block * 40, block * 40 + 40):
        rng = random.Random(seed)
        rc = target.fresh()
        rc.b.post_recv(1, rc.remote.sge(5000))
        rc.read(1, 3000)
        for _ in range(rng.randint(1, 12)):
            source, destination = rng.choice([(rc.a, rc.b), (rc.b, rc.a)])
            inject(
                target.bench,
                source,
                destination,
                psn=rng.choice([0, 1, 2, 3, rng.getrandbits(24)]),
                delay=rng.randint(1, 5000),
                opcode=rng.choice(list(RcOpcode)),
                payload=rng.choice([0, 8, 1024, 952, rng.randrange(4097)]),
                length=rng.choice([*BIG, 1024, 2048, 3000]),
                va=(address(rng, rng.choice(target.regions)) + 2**63) % 2**64 - 2**63,
                rkey=key(rng, target),
                syndrome=rng.getrandbits(8),
                imm=rng.getrandbits(32),
                compare_add=rng.getrandbits(62),
                swap=rng.getrandbits(62),
            )
        target.check(f"seed {seed}")


@pytest.mark.parametrize("ahead", [SLOTS + 1, 5_000_000, 2**40, 2**63 - 1])
def test_a_producer_counter_beyond_the_ring_is_fatal_to_the_qp(rc, ahead):
    rc.a.record.word(0, ahead)
    rc.bench.device.write_doorbell(doorbell_offset(Doorbell.SEND, rc.a.number), 0)
    rc.bench.run()
    assert rc.a.row().state == QpState.ERR
    assert (AsyncEvent.QP_FATAL, rc.a.number) in rc.bench.asyncs()
    assert rc.bench.world.control[0].ran < 1000


@pytest.mark.parametrize("behind", [-1, -5_000_000, -(2**63)])
def test_a_producer_counter_that_goes_back_is_no_work(rc, behind):
    rc.write(1, 8)
    rc.bench.run()
    rc.a.record.word(0, behind)
    rc.bench.device.write_doorbell(doorbell_offset(Doorbell.SEND, rc.a.number), 0)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.a.row().state == QpState.RTS


@pytest.mark.parametrize("consumer", [-1, -(2**62), 2**62])
def test_an_absurd_consumer_counter_of_a_cq(rc, consumer):
    rc.a.cq.record.word(0, consumer)
    for wr_id in range(3):
        rc.write(wr_id, 8)
    rc.bench.run()
    assert rc.bench.world.control[0].trap == 0


def test_more_segments_than_a_packet_holds_is_an_error_of_the_request():
    """60 elements that straddle pages fit a ring slot but no packet."""
    bench = Bench()
    rc = connected(bench, pages=62, PATH_MTU=5, max_sge=60)
    sges = [rc.local.sge(64, 4096 * (page + 1) - 32) for page in range(60)]
    rc.a.post_send(1, 0, *sges, remote=rc.remote.va, rkey=rc.remote.key)
    bench.run()
    assert rc.a.cq.poll()[0]["status"] != 0 and bench.world.control[0].trap == 0


def test_a_wqe_changed_after_its_check_does_not_reach_a_foreign_region(bench):
    rc = connected(bench, local=False)
    secret = bench.region(1, pd=2)
    secret.frames = bench.mr(1).frames
    secret.map()
    secret.fill(9)
    before = rc.remote.data
    rc.write(1, 64)
    token = bench.fault()["token"]
    rc.a.send.view[64:80] = SGE.pack(secret.va, 64, secret.key)
    bench.resume(token)
    bench.run()
    assert rc.a.statuses() == [(1, 4)] and rc.remote.data == before


def test_a_receive_changed_after_its_check_does_not_write_a_read_only_region(bench):
    rc = connected(bench, remote=False)
    protected = bench.mr(1, ALL & ~1)
    before = protected.data
    rc.b.post_recv(5, rc.remote.sge(64))
    rc.send(1, 64)
    token = bench.fault()["token"]
    rc.b.recv.view[16:32] = SGE.pack(protected.va, 64, protected.key)
    bench.resume(token)
    bench.run()
    assert rc.b.statuses() == [(5, 4)] and protected.data == before


def test_a_flood_behind_a_read_waits_in_bounded_space(bench):
    """A peer that goes on sending behind a long READ must not eat the packets of others."""
    rc = connected(bench, pages=64, PATH_MTU=1)
    inject(bench, rc.a, rc.b, opcode=RcOpcode.READ_REQUEST, va=rc.remote.va, rkey=rc.remote.key, length=64 * 4096)
    for i in range(MOST_WAITING + 40):
        inject(bench, rc.a, rc.b, psn=1024 + i, delay=2000, opcode=RcOpcode.WRITE_ONLY)
    bench.run_for(3000)
    assert rc.b.row().read_active and rc.b.row().rx_waiting == MOST_WAITING
    assert bench.device.counters()["packets_dropped"] == 40
    bench.run()
    assert (rc.b.row().rx_waiting, bench.device.row.rx_waiting, rc.b.row().state) == (0, 0, QpState.RTS)

"""Hardware in the loop: another process drives a NIC's rings while this one steps the clock."""

import mmap
import os

import numpy as np

from nicemu.abi import rings
from nicemu.abi.rings import CQE, CQE_BYTES, RECV_WQE, SEND_WQE, SGE, Doorbell
from nicemu.abi.verbs import SendFlag, WrOpcode
from nicemu.config import load_config
from nicemu.driver.ring import Memory
from nicemu.lab import Lab
from nicemu.nic.doorbell import BYTES, PostedWrites
from nicemu.timeline import SteppedClock
from tests.lab.pair import connected_pair

MESSAGES = 8
STEP_NS = 5_000


def shared(size: int) -> Memory:
    """Zeroed memory that a forked process sees too."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)

    array = np.frombuffer(area, np.uint8)
    return Memory(int(array.ctypes.data), memoryview(array))


def other_process(posted: PostedWrites, cq, qps, address: int, lkey: int) -> bool:
    """What the second process does: WQEs, doorbell records, doorbells, then CQEs by their owner words."""
    sender, receiver = qps
    for i in range(MESSAGES):
        at = i * receiver.recv_stride
        RECV_WQE.pack_into(receiver.recv_ring, at, 100 + i, 1, 0)
        SGE.pack_into(receiver.recv_ring, at + rings.RECV_HEADER_BYTES, address + 4096 + i * 64, 64, lkey)
        receiver.record.cast("q")[rings.DB_RECV // 8] = i + 1
        at = i * sender.send_stride
        SEND_WQE.pack_into(sender.send_ring, at, i, WrOpcode.SEND, SendFlag.SIGNALED, 1, 0, 0, 0, 0, 0, 0, 0, 0)
        SGE.pack_into(sender.send_ring, at + rings.SEND_HEADER_BYTES, address + i * 64, 64, lkey)
        sender.record.cast("q")[rings.DB_SEND // 8] = i + 1
        posted.write_doorbell(rings.doorbell_offset(Doorbell.SEND, sender.number), 0)
    seen, owners = [], cq.ring.cast("I")
    for _ in range(10_000_000):
        at = len(seen) % cq.slots * CQE_BYTES
        if owners[at // 4 + rings.CQE_OWNER // 4] == rings.owner(len(seen), cq.slots):
            values = CQE.unpack_from(cq.ring, at)  # the owner word first, then the body
            seen.append((values[0], values[5]))
            if len(seen) == 2 * MESSAGES:
                return sorted(seen) == [(first + i, 0) for first in (0, 100) for i in range(MESSAGES)]
        else:
            os.sched_yield()  # time passes in the other process
    return False


def test_second_process_drives_rings_under_a_stepped_clock():
    clock = SteppedClock()
    clock.step(10**12)
    lab = Lab(load_config(), clock=clock, allocate=shared)
    cq, qps, address, mr = connected_pair(lab)
    lab.endpoint.process.write(address, bytes(range(256)) * 2)
    posted = PostedWrites(shared(BYTES).view)
    clock.hold(lab.world.now)
    started = lab.world.now
    child = os.fork()
    if child == 0:
        os._exit(0 if other_process(posted, cq, qps, address, mr.lkey) else 1)
    steps, ended = 0, (0, 0)
    while ended[0] == 0:
        posted.drain(lab.devices[0])
        clock.step(STEP_NS)
        lab.timeline.pass_time(STEP_NS)
        steps += 1
        ended = os.waitpid(child, os.WNOHANG)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert lab.world.now == started + steps * STEP_NS
    assert lab.endpoint.process.read(address + 4096, 512) == bytes(range(256)) * 2
    lab.close()

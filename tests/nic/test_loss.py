"""Whatever is lost, doubled or late on the wire: same memory, same completions as without."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu.config import NicProfile
from tests.nic.conftest import Rc, connected
from tests.nic.packets import DOUBLE, DROP, LATE, Wire
from tests.nic.testbench import Bench, WrOpcode

PROFILE = NicProfile(retry_cnt_7_infinite=True)
PAGES = 48
HALF = PAGES * 4096 // 2
KINDS = (
    WrOpcode.SEND,
    WrOpcode.SEND_WITH_IMM,
    WrOpcode.RDMA_WRITE,
    WrOpcode.RDMA_WRITE_WITH_IMM,
    WrOpcode.RDMA_READ,
    WrOpcode.ATOMIC_FETCH_AND_ADD,
    WrOpcode.ATOMIC_CMP_AND_SWP,
)
ACTIONS = st.lists(st.sampled_from([None, None, DROP, DOUBLE, LATE]), max_size=80)
PROGRAM = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3000), st.integers(0, 7)), min_size=1, max_size=10)


def post(rc: Rc, program: list[tuple[int, int, int]]) -> None:
    """Each operation has a place of its own on both sides, for packets may be gathered again."""
    for index, (opcode, length, flags) in enumerate(program):
        if opcode >= WrOpcode.ATOMIC_CMP_AND_SWP:
            length = 8
        here = there = index * 3016
        rc.b.post_recv(1000 + index, rc.remote.sge(3000, there))
        if opcode == WrOpcode.RDMA_READ:
            there += HALF
        rc.a.post_send(
            index,
            opcode,
            rc.local.sge(length, here + index % 7),
            remote=rc.remote.va + there,
            rkey=rc.remote.key,
            flags=flags | (2 if index == len(program) - 1 else 0),
            imm=index,
            compare=index,
            swap=99,
        )


def outcome(program, actions, cold: bool = False) -> tuple:
    """(memory, completions) after running the program over a wire that does ``actions`` to its first packets."""
    bench = Bench(PROFILE)
    rc = connected(bench, pages=PAGES, local=not cold, remote=not cold, TIMEOUT=4, MIN_RNR_TIMER=5)
    todo = iter(actions)
    post(rc, program)
    wire = Wire(bench, lambda row: next(todo, None))
    while wire.step():
        for fault in bench.faults():
            region = rc.local if fault["key"] == rc.local.key else rc.remote
            region.map((fault["va"] - region.va) // 4096, 1)
            bench.resume(fault["token"])
    keys = ("wr_id", "status", "opcode", "byte_len", "imm", "flags")
    found = tuple([tuple(cqe[key] for key in keys) for cqe in qp.cq.poll()] for qp in (rc.a, rc.b))
    assert bench.world.control[0].violations == 0
    bench.world.close()
    return rc.local.data, rc.remote.data, found


@given(PROGRAM, ACTIONS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
def test_memory_and_completions_do_not_depend_on_the_wire(program, actions):
    assert outcome(program, actions) == outcome(program, [])


@pytest.mark.parametrize("seed", range(12))
def test_long_programs_on_a_bad_wire(seed):
    rng = random.Random(seed)
    program = [(rng.choice(KINDS), rng.randint(0, 3000), rng.choice([0, 2, 3])) for _ in range(30)]
    actions = [rng.choice([None, None, None, None, DROP, DOUBLE, LATE]) for _ in range(400)]
    assert outcome(program, actions) == outcome(program, []), f"seed {seed}"


@pytest.mark.parametrize("lost", range(40))
def test_any_single_packet_may_be_lost(lost):
    program = [(kind, 2500, 2) for kind in KINDS]
    assert outcome(program, [None] * lost + [DROP]) == outcome(program, [])


@given(PROGRAM, ACTIONS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
def test_nor_on_pages_that_fault_one_by_one_meanwhile(program, actions):
    assert outcome(program, actions, cold=True) == outcome(program, [])


@pytest.mark.parametrize("seed", range(20))
def test_long_programs_on_cold_pages_and_a_bad_wire(seed):
    rng = random.Random(seed)
    program = [(rng.choice(KINDS), rng.randint(0, 3000), rng.choice([0, 2, 3])) for _ in range(30)]
    actions = [rng.choice([None, None, None, None, DROP, DOUBLE, LATE]) for _ in range(300)]
    assert outcome(program, actions, cold=True) == outcome(program, []), f"seed {seed}"

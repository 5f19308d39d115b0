"""Firmware that answers nonsense: time goes forward, no longer than was asked for, and nothing traps."""

import pytest

from nicemu.nic.hooks import Hook
from tests.nic.conftest import connected
from tests.nic.image_files import answering

A_WHILE = 10_000_000


@pytest.mark.parametrize("answer", [-(1 << 62), -1, 1 << 62])
def test_a_device_whose_firmware_answers_nonsense_goes_on(tmp_path, answer):
    rc = connected(answering(tmp_path, **{hook.name.lower(): str(answer) for hook in Hook}), local=False)
    for wr_id in range(4):
        rc.write(wr_id, 8192)
    rc.read(9, 8192)
    began = rc.bench.world.now
    rc.bench.run_for(A_WHILE)
    rc.local.map()
    for fault in rc.bench.faults():
        rc.bench.resume(fault["token"])
    rc.bench.run_for(A_WHILE)
    assert 2 * A_WHILE <= rc.bench.world.now - began < 3 * A_WHILE

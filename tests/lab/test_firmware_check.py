"""Check mode: a hook that writes what it may not, or answers what it may not, ends the run with one line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nicemu.config import load_config
from nicemu.config.errors import ConfigError
from nicemu.config.paths import shipped_names
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.qp import QPAttr
from nicemu.pyverbs.wr import SGE, RecvWR
from nicemu.uverbs import session
from tests.lab.worlds import ACCESS, ON_DEMAND, Ends

PAGE = 4096


def in_lab(scenario: Callable[[Ends], Any], **fields: Any) -> Any:
    """What ``scenario`` gives in a lab with these fields of its configuration."""
    session.reset()
    session.configure(load_config(None, fields))
    ends = Ends()
    try:
        found = scenario(ends)
        ends.ctx.close()
        return found
    except ConfigError as error:
        del ends
        traceback.clear_frames(error.__traceback__)  # objects of the dead device go while it is known to be dead
        raise
    finally:
        session.reset()


def ping_pong(ends: Ends) -> Any:
    """SENDs and a READ between two QPs, into memory whose pages are missing. Time, and the NIC's counters."""
    region = MR(ends.pd, 8 * PAGE, ACCESS | ON_DEMAND)
    a, b = ends.pair(timeout=12, rnr_retry=7, retry_cnt=7)
    for turn in range(2):
        place = region.buf + turn * 2 * PAGE
        b.post_recv(RecvWR(wr_id=100, num_sge=1, sg=[SGE(place, 2 * PAGE, region.lkey)]))
        ends.send(a, ends.out(2 * PAGE))
        assert ends.statuses(ends.near) == [(1, "SUCCESS")]
    ends.post(a, e.IBV_WR_RDMA_READ, SGE(region.buf + 6 * PAGE, 2 * PAGE, region.lkey))
    assert ends.statuses(ends.near) == [(1, "SUCCESS")]
    lab = session.current()
    return lab.world.now, lab.devices[0].counters()


@pytest.mark.parametrize("image", shipped_names("firmware", ".py"))
def test_a_shipped_image_passes_the_check(image: str) -> None:
    checked, plain = (in_lab(ping_pong, firmware=image, check_firmware=on) for on in (True, False))
    assert checked == plain
    assert checked[1]["page_faults"] > 0


ROUGH = {"impairments": [{"kind": "loss", "probability": 0.1}],
         "fabric": {"links": [{"rate_gbps": 5}], "switch": {"ecn": {"kmin_bytes": 0, "kmax_bytes": 1}}}}  # fmt: skip


@pytest.mark.parametrize("image", [name for name in shipped_names("firmware", ".py") if name != "connectx_damming"])
def test_a_shipped_image_passes_the_check_with_loss_and_marks(image: str) -> None:
    """But for the one that gives up at a loss behind a fault."""
    checked, plain = (in_lab(ping_pong, firmware=image, check_firmware=on, **ROUGH) for on in (True, False))
    assert checked == plain
    assert checked[1]["ecn_marked_packets"] > 0 and checked[1]["retransmits"] > 0


def complaint(folder: Path, source: str) -> str:
    """What check mode says about an image in a ping-pong; nothing without check mode."""
    file = folder / "image.py"
    file.write_text(source)
    with pytest.raises(ConfigError) as caught:
        in_lab(ping_pong, firmware=str(file), check_firmware=True)
    text = str(caught.value)
    assert text.startswith(f"{file}:") and "\n" not in text
    return text.removeprefix(f"{file}:")


WRITES = """from nicemu.firmware import cq, fault, jit, nic, qp


@jit
def put(q):
    q.rnr_retry = 3


def fault_pages(world, row, arg):
    {statement}
    return 0
"""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("put(qp(world, row))", "field rnr_retry: 7 -> 3"),
        ("fault(world, arg).pages = 9", "field pages: 0 -> 9"),
        ("nic(world, 1).credits = 9", "given nic row 1 field credits: 0 -> 9"),
        ("cq(world, qp(world, row).send_cq).slots = 9", "given cq row 3 field slots: 64 -> 9"),
        ("qp(world, 1 << 40).next_psn = 9", "expected rows that exist, given a row of table QP out of range"),
    ],
    ids=["qp", "fault", "nic", "cq", "no row"],
)
def test_a_write_is_told_with_table_field_and_time(tmp_path: Path, statement: str, said: str) -> None:
    text = complaint(tmp_path, WRITES.format(statement=statement))
    assert re.match(r"9: hook fault_pages, asked about qp row \d+ of nicemu0 at \d+ ns: expected ", text)
    assert said in text
    assert ("writes to its own state only" in text) == (" -> " in said)


def test_an_answer_out_of_range_is_refused(tmp_path: Path) -> None:
    said = complaint(tmp_path, "def responder_fault(world, row, arg):\n    return 77\n")
    assert said.endswith("expected an answer of -2..31, given 77")


FORGETS = """from nicemu.firmware import qp_state

mine = qp_state("asked")


def fault_pages(world, row, arg):
    mine(world, 1).asked += 1
    return mine(world, 1).asked
"""


def test_an_answer_that_depends_on_more_than_it_sees_is_refused(tmp_path: Path) -> None:
    """Here: on the record of another QP."""
    assert complaint(tmp_path, FORGETS).endswith("expected the same answer and state when asked twice, given 1, then 2")


COUNTS = """from nicemu.firmware import nic_state, qp, qp_state

STEP = {step}
mine = qp_state("asked")
whole = nic_state("asked", "{name}")


def ack_timeout(world, row, arg):
    mine(world, row).asked += STEP
    whole(world, qp(world, row).nic).asked += STEP
    return arg
"""


def write(file: Path, step: int) -> str:
    file.write_text(COUNTS.format(step=step, name=f"of_{file.stem}"))
    return str(file)


@pytest.mark.parametrize("check", [False, True], ids=["plain", "checked"])
def test_two_nics_run_images_of_their_own_with_state_of_their_own(tmp_path: Path, check: bool) -> None:
    images = [write(tmp_path / "one.py", 1), write(tmp_path / "hundred.py", 100)]

    def scenario(ends: Ends) -> Any:
        ping_pong(ends)
        world = session.current().world
        return [int(world.nic_state[row].word0) for row in (1, 2)], session.current().devices

    (near, far), devices = in_lab(scenario, nics=2, firmware=images, check_firmware=check)
    assert [device.image.name for device in devices] == ["one", "hundred"]
    assert 0 < near < 100 and far == 0  # the ping-pong is the first NIC's alone

    (near, far), _ = in_lab(scenario, nics=2, firmware=images[::-1], check_firmware=check)
    assert near >= 100 and near % 100 == 0 and far == 0


@pytest.mark.parametrize("check", [False, True], ids=["plain", "checked"])
def test_the_state_of_a_qp_is_zero_again_after_a_reset(tmp_path: Path, check: bool) -> None:
    def scenario(ends: Ends) -> Any:
        a, _ = ends.pair(timeout=18)
        ends.send(a)
        ends.statuses(ends.near)
        table = session.current().world.qp_state
        row = a.qp_num + int(session.current().world.nic[1].qp_base)
        before = int(table[row].word0)
        a.modify(QPAttr(qp_state=e.IBV_QPS_RESET), e.IBV_QP_STATE)
        return before, int(table[row].word0)

    before, after = in_lab(scenario, firmware=write(tmp_path / "one.py", 1), check_firmware=check)
    assert before > 0 and after == 0


def test_a_number_of_images_that_fits_no_nics_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"field firmware: expected one image, or 3 \(nics\), one for each NIC"):
        load_config(None, {"nics": 3, "firmware": ["default", "rxe"]})

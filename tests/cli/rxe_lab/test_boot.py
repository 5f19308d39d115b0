"""The real guest. Skips, with the reason, where QEMU or the packages cannot be had."""

import shutil
from pathlib import Path

import pytest

from nicemu.cli.rxe_lab import guest, image, lock, qemu
from nicemu.cli.rxe_lab.qemu import Machine
from nicemu.cli.rxe_lab.sources import Unavailable

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _guest_can_be_had() -> None:
    """Any other trouble is a failure: the lab would be broken, not absent."""
    if shutil.which(qemu.PROGRAM) is None:
        pytest.skip(f"THE rxe LAB IS NOT TESTED: there is no {qemu.PROGRAM}")
    try:
        image.ready(lock.read(), lock.read().default_kernel)
    except Unavailable as error:
        pytest.skip(f"THE rxe LAB IS NOT TESTED: {error}")


def test_the_guest_has_rxe0_and_passes_everything_on(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import sys, pyverbs.device as d, pytest\n"
        "print([each.name for each in d.get_device_list()], open('/proc/sys/vm/nr_hugepages').read().strip())\n"
        "print(open('/sys/class/net/eth0/mtu').read().strip(), file=sys.stderr)\n"
        "open('/share/made', 'w').write('here')\n"
        "sys.exit(42)\n"
    )
    streams: dict[str, bytes] = {}

    def take(stream: str, content: bytes) -> None:
        streams[stream] = streams.get(stream, b"") + content

    machine = Machine(share=tmp_path, mtu=9000)
    result = guest.run(["python3", "program.py"], machine, timeout=400, on_output=take, want=["dmesg"])
    assert (result.status, result.reason) == (42, "")
    assert streams["out"] == b"[b'rxe0'] 96\n"
    assert streams["err"] == b"9000\n"
    assert b"rxe0: added eth0" in streams["dmesg"]
    assert (tmp_path / "made").read_text() == "here"


def test_the_device_has_on_demand_paging_and_the_address() -> None:
    out: list[bytes] = []
    script = "ibv_devinfo -v; cat /sys/class/infiniband/rxe0/ports/1/gids/0; ls /dev/infiniband"
    result = guest.run(
        ["sh", "-c", script], Machine(), timeout=400, on_output=lambda s, c: out.append(c) if s == "out" else None
    )
    text = b"".join(out).decode()
    assert result.status == 0
    assert "ODP_SUPPORT" in text or "general_odp_caps" in text
    assert "::ffff:10.0.0.2" in text
    assert {"uverbs0", "rdma_cm", "umad0"} <= set(text.split())

"""Programs written for real NICs: devices by the names they expect, and a server and a client in one process."""

from pathlib import Path

import pytest

from nicemu import lab
from nicemu.config import ConfigError, load_config
from tests.lab.test_main_job import ROOT, nicemu

TWO_PROGRAMS = ROOT / "examples" / "two_programs.py"
SHARED = """
import pyverbs.enums as e
from pyverbs.addr import AHAttr, GID, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR

ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE

def say(sock, line):
    sock.sendall(line.encode() + b"\\n")

def connect(sock, lines, name):
    ctx = Context(name=name)
    pd, cq = PD(ctx), CQ(ctx, 16)
    qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(max_send_wr=4)))
    mr = MR(pd, 64, ACCESS)
    say(sock, f"{ctx.query_gid(1, 1)} {qp.qp_num} {mr.buf} {mr.rkey}")
    gid, *numbers = lines.readline().split()
    qpn, address, rkey = map(int, numbers)
    attr = QPAttr()
    attr.dest_qp_num, attr.path_mtu, attr.qp_access_flags = qpn, e.IBV_MTU_1024, ACCESS
    attr.ah_attr = AHAttr(gr=GlobalRoute(dgid=GID(gid), sgid_index=1), is_global=1, port_num=1)
    qp.to_rts(attr)
    say(sock, "ready")  # a request that comes before is lost, and this QP has no timeout to send it again
    assert lines.readline() == "ready\\n"
    return (ctx, pd), cq, qp, mr, address, rkey
"""
SERVER = """
import socket, sys
from shared import connect
listening = socket.create_server(("127.0.0.1", 0))
open(sys.argv[2], "w").write(str(listening.getsockname()[1]))
sock = listening.accept()[0]
lines = sock.makefile()
kept, cq, qp, mr, address, rkey = connect(sock, lines, sys.argv[1])
assert lines.readline() == "done\\n"
print("server has", mr.read(5, 0).decode())
"""
CLIENT = """
import socket, sys, time
from pathlib import Path
from shared import SGE, SendWR, connect, e, say
while not Path(sys.argv[2]).exists() or not Path(sys.argv[2]).read_text():
    time.sleep(0.01)
sock = socket.create_connection(("127.0.0.1", int(Path(sys.argv[2]).read_text())))
kept, cq, qp, mr, address, rkey = connect(sock, sock.makefile(), sys.argv[1])
mr.write(b"hello", 5)
wr = SendWR(opcode=e.IBV_WR_RDMA_WRITE, num_sge=1, sg=[SGE(mr.buf, 5, mr.lkey)])
wr.set_wr_rdma(rkey, address)
qp.post_send(wr)
while not cq.poll()[0]:
    pass
say(sock, "done")
"""


@pytest.fixture
def pair(tmp_path: Path) -> list[object]:
    """Command line of a server and a client that find each other through a file."""
    for name, text in (("shared", SHARED), ("server", SERVER), ("client", CLIENT)):
        (tmp_path / f"{name}.py").write_text(text)
    port = tmp_path / "port"
    return [tmp_path / "server.py", "mlx5_0", port, "--", tmp_path / "client.py", "mlx5_0", port]


def test_two_programs_talk_in_one_process(pair: list[object]) -> None:
    done = nicemu("--name", "mlx5_0", TWO_PROGRAMS, *pair)
    assert done.returncode == 0, done.stderr
    assert "server has hello" in done.stdout


def test_the_status_counts_the_programs_that_failed(pair: list[object]) -> None:
    done = nicemu("--name", "mlx5_1", TWO_PROGRAMS, *pair)
    assert done.returncode == 2
    assert done.stderr.count("Failed to find device mlx5_0") == 2


def test_a_device_is_called_as_the_program_expects() -> None:
    made = lab.open(load_config(None, {"nics": 3, "names": ["mlx5_0", "mlx5_1"]}))
    assert [device.name for device in made.devices] == ["mlx5_0", "mlx5_1", "nicemu2"]
    made.close()


@pytest.mark.parametrize(
    "names, message",
    [
        (["a/b"], "expected a device's name"),
        (["0x"], "expected a device's name"),
        (["a" * 64], "expected a device's name"),
        (["a", "b", "c"], r"expected at most 2 \(nics\) names, each once"),
        (["a", "a"], "each once"),
        (["nicemu1"], "each once"),
    ],
)
def test_a_name_that_no_device_can_have_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, {"nics": 2, "names": names})


def test_a_program_that_finds_no_device_is_told_how_to_name_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from pyverbs.device import Context\nContext(name='mlx5_7')\n")
    done = nicemu(program)
    assert done.returncode == 1
    assert "Failed to find device mlx5_7\n" in done.stderr
    assert "The emulated devices: nicemu0. `nicemu run --name mlx5_7` gives" in done.stderr

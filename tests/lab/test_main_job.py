"""The main job, as a user runs it: an unmodified pyverbs program with on-demand memory on the emulated NIC."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINGPONG = ROOT / "examples" / "odp_pingpong.py"


def nicemu(*args: object, **environment: str) -> subprocess.CompletedProcess:
    """``nicemu run ARGS``."""
    command = [sys.executable, "-m", "nicemu", "run", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, timeout=900)


def history(path: Path, *args: object, **environment: str) -> bytes:
    """The event log of a ping-pong with forced on-demand memory."""
    done = nicemu("--force-odp", "--stats", "--trace", path, *args, PINGPONG, 4, **environment)
    assert done.returncode == 0, done.stderr
    assert "determined by the seed alone" in done.stderr
    return path.read_bytes()


def test_every_byte_right_and_every_mr_faulted():
    done = nicemu("--force-odp", "--stats", "--stages", PINGPONG)
    assert done.returncode == 0, done.stderr
    assert "all bytes right" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.strip().startswith("mr ")]
    assert len(lines) == 2
    assert all("page_faults " in line for line in lines)
    assert "0 lock reports, 0 DMA violations" in done.stderr
    assert "One page fault" in done.stderr and "One invalidation" in done.stderr


def test_one_seed_one_history(tmp_path):
    first = history(tmp_path / "a")
    assert first.count(b"\n") > 1000
    other = history(tmp_path / "b", PYTHONHASHSEED="77", NICEMU_TEST_ENVIRONMENT="x" * 3000)
    assert other == first


REGISTERS = """
import os, sys
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
mr = MR(PD(Context(name="nicemu0")), 4096, 1)
{fork}
mr.close()
"""


@pytest.mark.parametrize("fork", ["", "if os.fork() == 0: sys.exit()\nos.wait()"], ids=["alone", "with a child"])
def test_the_log_of_a_short_program_is_complete(tmp_path, fork):
    program, path = tmp_path / "registers.py", tmp_path / "log"
    program.write_text(REGISTERS.format(fork=fork))
    done = nicemu("--trace", path, program)
    assert done.returncode == 0, done.stderr
    commands = [line for line in path.read_text().splitlines() if " COMMAND " in line]
    assert [line.split()[3] for line in commands] == [
        "opcode=CREATE_MKEY", "opcode=UPDATE_MTT", "opcode=DESTROY_MKEY"]  # fmt: skip


MAPS = """
import ctypes, mmap, os, sys
from pyverbs import mem_alloc
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
filler = mmap.mmap(-1, int(sys.argv[2]))  # what the kernel maps next lies as much lower
size = 1 << 20
if sys.argv[1] == "file":
    fd = os.memfd_create("memory")
    os.ftruncate(fd, size)
    at = mem_alloc.mmap(length=size, flags=mmap.MAP_SHARED, fd=fd)
else:
    area = mmap.mmap(-1, size)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
mr = MR(PD(Context(name="nicemu0")), size, 1, address=at)
mem_alloc.madvise(at, size)
"""


@pytest.mark.parametrize("lower", [1 << 12, 1 << 19, 1 << 20, 3 << 19])
def test_history_does_not_depend_on_where_the_kernel_would_map_a_file(tmp_path, lower):
    program, logs = tmp_path / "maps.py", []
    program.write_text(MAPS)
    for filler in (4096, lower):
        done = nicemu("--stats", "--trace", tmp_path / "log", program, "file", filler)
        assert done.returncode == 0 and "history    determined by the seed alone" in done.stderr, done.stderr
        logs.append((tmp_path / "log").read_text())
    assert logs[0] == logs[1] and "pte_clear" in logs[0]


def test_memory_that_the_program_mapped_itself_is_said_to_make_the_history(tmp_path):
    program = tmp_path / "maps.py"
    program.write_text(MAPS)
    done = nicemu("--stats", program, "array", 4096)
    assert "not determined by the seed alone: 1 areas of the program's own memory" in done.stderr, done.stderr


def test_history_does_not_depend_on_a_cpu_hog(tmp_path):
    first = history(tmp_path / "a")
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        assert history(tmp_path / "b") == first
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def test_another_seed_is_another_history_with_the_same_data(tmp_path):
    one = history(tmp_path / "a", "--evict", 2, "--seed", 1)
    two = history(tmp_path / "b", "--evict", 2, "--seed", 2)
    assert one != two
    assert one == history(tmp_path / "c", "--evict", 2, "--seed", 1)


REPORTS = {
    "v3.6": {("dontneed", "rcu_read_lock"), ("munmap", "rcu_read_lock"), ("fork", "rcu_read_lock"),
             ("cow", "page_table_lock"), ("reclaim", "page_table_lock")},
    "v3.6+srcu": {("cow", "page_table_lock"), ("reclaim", "page_table_lock")},
    "v3.7-seed": {("cow", "page_table_lock")},
    "v3.7": set(),
    "v6.12": set(),
}  # fmt: skip


@pytest.mark.parametrize("discipline", REPORTS)
def test_each_kernel_era_reports_exactly_its_locks(discipline):
    done = nicemu("--discipline", discipline, "--stats", PINGPONG)
    assert done.returncode == 0, done.stderr
    found = set()
    for line in done.stderr.splitlines():
        if "sleeping function called from invalid context" in line:
            operation = line.partition(" during ")[2].partition(",")[0]
            found.add((operation, line.partition(", ")[2].partition(" held")[0]))
            assert "umem_odp" in line
    assert found == REPORTS[discipline]


@pytest.mark.parametrize("mutant", ["skip_device_wait", "ignore_fork_protect", "zap_without_flush"])
def test_a_broken_driver_or_device_is_caught(mutant):
    done = nicemu("--mutant", mutant, "--stats", PINGPONG, 12)
    assert "DMA VIOLATION" in done.stderr
    assert "0 DMA violations" not in done.stderr


@pytest.mark.parametrize("mutant", ["skip_device_wait", "zap_without_flush"])
def test_without_the_sanitizer_a_broken_driver_gives_wrong_bytes(mutant, tmp_path):
    config = tmp_path / "quiet.yaml"
    config.write_text("sanitizer: false\n")
    done = nicemu("--config", config, "--mutant", mutant, "--stats", PINGPONG, 12)
    assert "0 DMA violations" in done.stderr
    assert done.returncode == 1
    assert "wrong bytes" in done.stderr or "status" in done.stderr


def test_a_plain_program_is_forced_to_fault(tmp_path):
    program = tmp_path / "plain.py"
    source = ROOT / "examples" / "bigger_than_ram.py"
    program.write_text(source.read_text().replace(" | e.IBV_ACCESS_ON_DEMAND", ""))
    pinned = nicemu("--stats", program, 2)
    assert pinned.returncode == 0, pinned.stderr
    assert "page_faults" not in pinned.stderr
    forced = nicemu("--force-odp", "--stats", program, 2)
    assert forced.returncode == 0, forced.stderr
    assert "page_faults" in forced.stderr


def test_unmapping_behind_our_back_is_an_error_completion(tmp_path):
    program = tmp_path / "behind.py"
    text = PINGPONG.read_text()
    text = (
        text[: text.index("def main(")]
        + """
import ctypes
libc = ctypes.CDLL(None)
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
ctx = Context(name=get_device_list()[0].name.decode())
client, server = Side(ctx), Side(ctx)
client.connect(server), server.connect(client)
kind = sys.argv[1]
own = libc.mmap(None, 8192, 3, 0x22, -1, 0) if kind == "own" else client.address
mr = MR(client.pd, 8192, ACCESS, address=own)
wr = SendWR(wr_id=1, num_sge=1, sg=[SGE(own, 8192, mr.lkey)], opcode=e.IBV_WR_RDMA_WRITE)
wr.set_wr_rdma(server.mr.rkey, server.address)
client.qp.post_send(wr)
client.wait("while it is mapped")
assert libc.munmap(own, 8192) == 0
client.qp.post_send(wr)
for _ in range(1000):
    n, wcs = client.cq.poll()
    if n:
        break
print("status", wcs[0].status)
"""
    )
    program.write_text(text)
    for kind in ("own", "arena"):
        done = nicemu(program, kind)
        assert done.returncode == 0, done.stderr
        assert f"status {4}" in done.stdout  # LOC_PROT_ERR


@pytest.mark.slow
def test_a_region_sixteen_times_larger_than_memory():
    done = nicemu("--config", "reclaim", "--stats", ROOT / "examples" / "bigger_than_ram.py", 1024)
    assert done.returncode == 0, done.stderr
    assert "every byte right" in done.stdout
    host = next(line for line in done.stderr.splitlines() if line.strip().startswith("host")).split()
    counters = dict(zip(host[1::2], map(int, host[2::2]), strict=True))
    assert counters["frames_peak"] <= 16384
    assert counters["pswpin"] >= 245_760 and counters["pswpout"] >= 245_760


def test_region_larger_than_memory_works_on_demand_and_not_pinned(tmp_path):
    """examples/four_gib_odp.py at a 256th of its size."""
    config = tmp_path / "small.yaml"
    config.write_text("memory: model\nhost: {ram_pages: 4096, swap_pages: 32768, rlimit_memlock_bytes: 8388608}\n")
    done = nicemu("--config", config, "--stats", ROOT / "examples" / "four_gib_odp.py", "--mebibytes", 40)
    assert done.returncode == 0, done.stderr
    assert "every byte right" in done.stdout
    assert "RLIMIT_MEMLOCK is 8192 KiB: 40960 KiB wanted, 1024 KiB pinned" in done.stdout
    assert done.stdout.count("pinned pages before 256, after 256") == 2
    assert "pins  MR 4 of nicemu0: 10240 pages of process 1 (program)" in done.stderr
    assert "Out of memory: Spared" in done.stderr and "0 DMA violations" in done.stderr


def test_page_that_only_the_nic_uses_looks_idle():
    example = ROOT / "examples" / "nic_only_pages.py"
    for flag, nic in ((None, 11520), ("--young-bits", 0)):
        done = nicemu("--config", "reclaim", example, *([flag] if flag else []))
        assert done.returncode == 0, done.stderr
        last = done.stdout.splitlines()[-1].split()
        assert last[4] == "0" and int(last[7]) == nic, done.stdout


def test_two_program_threads_share_one_timeline(tmp_path):
    program = tmp_path / "threads.py"
    program.write_text(
        PINGPONG.read_text().partition("if __name__")[0]
        + """
from threading import Thread
threads = [Thread(target=main, args=(1,)) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
"""
    )
    done = nicemu(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all bytes right") == 2


def test_two_nics_of_one_host_talk_over_the_fabric(tmp_path):
    program = tmp_path / "two.py"
    text = PINGPONG.read_text()
    text = text.replace("gid = self.ctx.query_gid", "gid = peer.ctx.query_gid")
    text = text.replace("Side(ctx), Side(ctx)", "Side(ctx), Side(Context(name=get_device_list()[1].name.decode()))")
    program.write_text(text)
    done = nicemu("--config", "two_nics", "--stats", program, 2)
    assert done.returncode == 0, done.stderr
    sent = [line.split("packets_sent ")[1].split()[0] for line in done.stderr.splitlines() if "packets_sent" in line]
    assert len(sent) == 2 and all(int(count) > 10 for count in sent)


@pytest.mark.nojit
def test_compiled_code_and_plain_python_have_one_history(tmp_path):
    logs = []
    for disabled in ("0", "1"):
        logs.append(tmp_path / disabled)
        done = nicemu("--force-odp", "--trace", logs[-1], PINGPONG, 1, NUMBA_DISABLE_JIT=disabled)
        assert done.returncode == 0, done.stderr
    assert logs[0].read_bytes() == logs[1].read_bytes()

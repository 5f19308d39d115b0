"""Firmware images by path: they change behaviour, recompile nothing, and are refused in one line. docs/firmware.md says
what the code says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nicemu import _jit
from nicemu.cli.firmware import tables
from nicemu.config.paths import shipped, shipped_names
from nicemu.nic import firmware as images
from tests.lab.test_main_job import PINGPONG, ROOT, nicemu

DOCS = ROOT / "docs" / "firmware.md"


def firmware(*args: object) -> subprocess.CompletedProcess[str]:
    """``nicemu firmware ARGS``."""
    command = [sys.executable, "-m", "nicemu", "firmware", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, timeout=600)


def virtual_ms(text: str) -> float:
    """Virtual time that the summary states."""
    return float(text.partition("After ")[2].partition(" ms")[0])


def example(folder: Path) -> Path:
    """The image that docs/firmware.md has as an example."""
    (source,) = re.findall(r"```python\n(\"\"\"Waits .*?)```", DOCS.read_text(), re.DOTALL)
    file = folder / "eager.py"
    file.write_text(source)
    return file


def cache_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the engine and the default's hooks: other tests compile into the shared cache, earlier runs did."""
    own = folder / "cache"
    for name in (_jit.kernel_digest(), images.load(shipped("firmware") / "default.py").folder):
        shutil.copytree(_jit.cache_root() / name, own / name)
    monkeypatch.setenv("NICEMU_CACHE", str(own))
    return own


def test_an_image_changes_one_policy_and_recompiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The image of docs/firmware.md, by path: no file of the engine's cache changes, and the counters say so."""
    image = example(tmp_path)
    plain = nicemu("--stats", PINGPONG, 2)
    own = cache_of_its_own(tmp_path, monkeypatch)
    before = sorted((own / _jit.kernel_digest()).rglob("*.o"))
    eager = nicemu("--stats", "--check-firmware", "--firmware", image, PINGPONG, 2)
    assert plain.returncode == eager.returncode == 0, eager.stderr
    assert virtual_ms(eager.stderr) < 0.8 * virtual_ms(plain.stderr)
    assert sorted((own / _jit.kernel_digest()).rglob("*.o")) == before
    assert re.search(r"firmware +eager: 1 hook compiled in \d\.\d\d s, 30 from default\n", eager.stderr)
    assert re.search(r"engine +\d+ functions from the cache, 0 compiled\n", eager.stderr)
    assert re.search(r"firmware +default: 31 hooks from the cache\n", plain.stderr)


LOAD = """
import sys, time
from pathlib import Path
from nicemu.config.paths import shipped
from nicemu.nic import firmware
default = firmware.load(shipped("firmware") / "default.py")
default.compile()
started = time.process_time()
firmware.load(Path(sys.argv[1]), default).compile()
print(time.process_time() - started, "numba" in sys.modules)
"""


@pytest.mark.skipif(not _jit.JIT, reason="nothing to compile")
def test_a_new_image_loads_in_a_second_of_processor_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With numba's import and its first compilation, which take the most of it."""
    image = example(tmp_path)
    subprocess.run([sys.executable, "-c", LOAD, str(image)], check=True)  # the default's code is there now
    cache_of_its_own(tmp_path, monkeypatch)  # without the image's
    done = subprocess.run([sys.executable, "-c", LOAD, str(image)], capture_output=True, text=True, check=True)
    seconds, compiled = done.stdout.split()
    assert compiled == "True" and float(seconds) < 1


def test_a_broken_image_is_refused_in_one_line(tmp_path: Path):
    image = tmp_path / "broken.py"
    image.write_text("def rnr_wait(world, row):\n    return 1\n")
    for done in (nicemu("--firmware", image, PINGPONG), firmware("check", image)):
        assert done.returncode == 2
        assert done.stderr.startswith(f"nicemu: error: {image}:1: hook rnr_wait: expected three positional parameters")
        assert done.stderr.count("\n") == 1


def test_a_hook_that_writes_what_it_may_not_ends_the_run_in_one_line(tmp_path: Path):
    image = tmp_path / "writes.py"
    image.write_text("from nicemu.firmware import qp\n\n\ndef rnr_wait(world, row, arg):\n"
                     "    qp(world, row).retry_cnt = 0\n    return arg\n")  # fmt: skip
    done = nicemu("--check-firmware", "--firmware", image, PINGPONG, 2)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"nicemu: error: {image}:4: hook rnr_wait, asked about qp row \d+ of nicemu0 at \d+ ns: expected writes to "
        r"its own state only, given qp row \d+ field retry_cnt: 7 -> 0\n", done.stderr)  # fmt: skip


def test_a_template_is_an_image_that_changes_nothing_yet(tmp_path: Path):
    file = tmp_path / "mine.py"
    assert firmware("new", file).stdout.startswith(f"{file}: 31 hooks.")
    done = firmware("check", file)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"^  changes +(\w+) ", done.stdout, re.MULTILINE)) == set(tables.defaults())
    assert tables.answers(file) == tables.defaults()
    again = firmware("new", file, "--hook", "ack")
    assert again.returncode == 2 and "File exists" in again.stderr and again.stderr.count("\n") == 1


def test_a_template_has_the_hooks_that_were_asked_for():
    text = tables.template(["ack", "rnr_wait"])
    assert re.findall(r"^def (\w+)\(world, row, arg\):$", text, re.MULTILINE) == ["ack", "rnr_wait"]
    assert set(tables.told(text)) == set(tables.TOLD)
    assert "rnr timer, ns" in text.lower() and "In range: 0..1" in text


def test_a_hook_that_is_not_there_is_answered_with_a_near_one():
    done = firmware("hooks", "rnr_wiat")
    assert done.returncode == 2
    assert done.stderr == "nicemu: error: HOOK: expected rnr_wait, given 'rnr_wiat'\n"


@pytest.mark.parametrize("name", shipped_names("firmware", ".py"))
def test_a_shipped_image_says_what_it_imitates_from_where_and_what_is_inferred(name: str):
    doc = dict(tables.docs())[name]
    assert set(tables.told(doc)) == set(tables.TOLD), name
    assert 0 < len(doc.splitlines()[0]) <= 120


@pytest.mark.parametrize(("section", "text"), [("list", tables.images_markdown), ("hooks", tables.hooks_markdown)])
def test_the_tables_of_the_document_are_those_of_the_code(section: str, text):
    assert tables.documented(DOCS)[section] == text(), f"nicemu firmware {section} --markdown, into docs/firmware.md"

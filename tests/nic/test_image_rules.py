"""What a firmware image may say: a broken rule is one line with its place, what was expected and what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicemu import _jit
from nicemu.nic import firmware
from nicemu.nic.hook_table import ASKS, FIELDS
from nicemu.nic.hooks import Hook
from nicemu.tables import records
from tests.nic.testbench import default_image

WAIT = "def rnr_wait(world, row, arg):\n"
API = "from nicemu.firmware import"


def refusal(folder: Path, source: str) -> str:
    """What loading says, without the file's name."""
    file = folder / "image.py"
    file.write_text(source)
    with pytest.raises(firmware.FirmwareError) as caught:
        firmware.load(file, default_image()).compile()
    name, _, text = str(caught.value).partition(":")
    assert name == str(file) and "\n" not in text
    return text


RULES = [
    ("def rnr_wiat(world, row, arg):\n    return 1\n",
     "1: function rnr_wiat: expected the name of a hook, or @jit for a helper, given a name that no hook has; "
     "did you mean rnr_wait?"),
    ("def rnr_wait(world, row):\n    return 1\n",
     "1: hook rnr_wait: expected three positional parameters without defaults, such as (world, row, arg), given "
     "(world, row)"),
    ("def rnr_wait(world, row, arg=1):\n    return 1\n", "given (world, row, arg=1)"),
    ("def rnr_wait(*arguments):\n    return 1\n", "given (*arguments)"),
    ("def rnr_wait(world, row arg):\n    return 1\n", "1: expected a firmware image, given: SyntaxError: "),
    (f"{WAIT}    return {'-' * 5000}1\n", "1: expected a firmware image, given: "),
    (f"{API} jit\n\n\n@jit\n{WAIT}    return 1\n", "5: hook rnr_wait: expected no decorator"),
    (f"{WAIT}    return 'x'\n", "2: hook rnr_wait: expected integers, given 'x'"),
    (f"{WAIT}    return arg * 1.5\n", "2: hook rnr_wait: expected integers, given 1.5"),
    (f"{WAIT}    arg += 1\n    return arg / 2\n", "3: hook rnr_wait: expected integer code that ends, given /, which"),
    (f"{WAIT}    if arg > 3:\n        return 1\n", "expected an answer on every path, given an end without return"),
    (f"{WAIT}    return\n", "2: hook rnr_wait: expected an integer as the answer, given `return`"),
    (f"{WAIT}    return 1, 2\n", "expected an integer as the answer, given `return (1, 2)`"),
    (f"{WAIT}    while arg:\n        arg -= 1\n    return 0\n", "2: hook rnr_wait: expected integer code that ends"),
    (f"{WAIT}    for i in range(arg):\n        row += i\n    return row\n",
     "2: hook rnr_wait: expected a range of constants, so that it ends, given `range(arg)`"),
    (f"N = 4\n{WAIT}    N = arg\n    for i in range(N):\n        row += i\n    return row\n",
     "expected a range of constants"),
    (f"N = 300\n{WAIT}    for i in range(N):\n        for j in range(N):\n            arg += j\n    return arg\n",
     "4: hook rnr_wait: expected at most 65536 turns, given 90000 by `range(N)`"),
    (f"{WAIT}    for i in (1, 2):\n        row += i\n    return row\n", "expected for ... in range(constants)"),
    (f"{API} jit\n\n\n@jit\ndef f(a):\n    return f(a)\n\n\n{WAIT}    return f(arg)\n",
     "5: function f: expected integer code that ends, given a function that calls itself"),
    (f"{API} jit\n\n\n@jit\ndef f(a):\n    return g(a)\n\n\n@jit\ndef g(a):\n    return f(a)\n\n\n"
     f"{WAIT}    return g(1)\n",
     "given a function that calls itself"),
    (f"def _f(a):\n    return a\n\n\n{WAIT}    return _f(arg)\n",
     "6: hook rnr_wait: expected calls of @jit helpers only"),
    (f"{WAIT}    return nosuch + arg\n",
     "2: hook rnr_wait: expected a name that the image defines, or imports, given nosuch"),
    (f"{WAIT}    return print(arg)\n", "given print"),
    (f"import os\n{WAIT}    return 0\n", "1: import: expected from nicemu.firmware import ..., given os"),
    (f"from nicemu.tables.rows import qp\n{WAIT}    return 0\n", "given nicemu.tables.rows"),
    (f"{API} nosuch\n{WAIT}    return 0\n",
     "1: expected a firmware image, given: ImportError: cannot import name 'nosuch'"),
    (f"seen = [0]\n{WAIT}    seen[0] += 1\n    return 0\n",
     "1: seen: expected an int, a tuple of ints, or a record made by nic_state(...) or qp_state(...), given list "
     "`[0]`"),
    (f"RATE = 0.5\n{WAIT}    return 0\n", "1: RATE: expected an int"),
    (f"{WAIT}    global seen\n    return 0\n", "given global"),
    (f"{API} qp_state\na = qp_state('a')\nb = qp_state('b')\n{WAIT}    return 0\n",
     "3: qp_state: expected one record of an image, given a second one"),
    (f"{API} qp_state\n\na = qp_state('a', 'a')\n{WAIT}    return 0\n",
     "3: expected a firmware image, given: ValueError"),
    (f"{API} qp_state\na = qp_state(*[f'w{{i}}' for i in range(33)])\n{WAIT}    return 0\n", "1 to 32 names"),
    (f"{API} qp_state\na = qp_state('a b')\n{WAIT}    return 0\n", "expected names of fields, given 'a b'"),
    (f"mine = qp_state('a')\n{WAIT}    mine(world, row).a = 1\n    return 0\n",
     "1: qp_state: expected from nicemu.firmware import qp_state, given a name that is not imported"),
    (f"@jit\ndef half(a):\n    return a // 2\n\n\n{WAIT}    return half(arg)\n", "given @jit, which is not imported"),
    (f"{API} qp\n{WAIT}    q = qp(world, row)\n    return q.nosuch\n",
     "4: hook rnr_wait: expected a field of qp, given nosuch"),
    (f"{API} qp_state\nmine = qp_state('a')\n{WAIT}    mine(world, row).b = 1\n    return 0\n",
     "4: hook rnr_wait: expected a field of mine, given b"),
    (f"{API} qp\n{WAIT}    return qp(world).next_psn\n",
     "3: hook rnr_wait: expected qp(world, row), given `qp(world)`"),
    (f"{WAIT}    return 1\n\n\n{WAIT}    return 2\n",
     "1: hook rnr_wait: expected one function of this name, given another"),
    (f"ack = 1\n{WAIT}    return 1\n", "1: hook ack: expected a function, given `1`"),
    ("A = 1\n", "1: expected a function named after a hook (nicemu firmware hooks), given none"),
    (f"if True:\n    A = 1\n{WAIT}    return A\n", "1: image: expected imports, constants, state and functions"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "said"), RULES, ids=range(len(RULES)))
def test_a_broken_rule_is_one_line_that_says_where(tmp_path: Path, source: str, said: str) -> None:
    assert said in refusal(tmp_path, source)


@pytest.mark.skipif(not _jit.JIT, reason="only a compiler finds these")
def test_a_matter_of_types_is_told_with_its_line(tmp_path: Path) -> None:
    source = f"{WAIT}    x = 1\n    if arg:\n        x = (1, 2)\n    return x[0]\n"
    assert refusal(tmp_path, source).startswith("5: hook rnr_wait: does not compile: Cannot unify ")


GOOD = f'''"""Everything that is allowed."""

from __future__ import annotations

{API} jit, nic, nic_state, qp, qp_state

STEPS, TABLE = 4, (1, 2, 4)
mine = qp_state("seen", "last")
whole = nic_state("seen")


def _squares(count):
    found = []
    while len(found) < count:
        found.append(len(found) ** 2)
    return tuple(found)


SQUARES = _squares(STEPS)


@jit
def add(state, arg):
    state.seen += arg


def rnr_wait(w, r, a):
    q, total = qp(w, r), 0
    for i in range(STEPS):
        total += TABLE[i % len(TABLE)] + SQUARES[i]
    add(mine(w, r), a)
    whole(w, q.nic).seen += 1
    if nic(w, q.nic).credits:
        return total // 2
    else:
        return total
'''


def test_what_is_allowed_loads_and_compiles(tmp_path: Path) -> None:
    file = tmp_path / "good.py"
    file.write_text(GOOD)
    image = firmware.load(file, default_image())
    image.compile()
    assert image.own == {Hook.RNR_WAIT}
    assert image.doc == "Everything that is allowed."
    assert image.address(Hook.ACK) == default_image().address(Hook.ACK)


def test_every_hook_is_in_the_table_with_fields_that_exist() -> None:
    assert list(ASKS) == list(Hook)
    for ask in ASKS.values():
        assert set(ask.reads.split()) <= set(FIELDS)
    for field in FIELDS:
        table, _, name = field.partition(".")
        assert name in getattr(records, table.upper()).names, field


def test_the_default_image_has_every_hook() -> None:
    assert set(default_image().functions) == set(Hook)

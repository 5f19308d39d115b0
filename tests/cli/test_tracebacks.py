"""Which frames a program is shown of an error."""

import errno
import traceback

import pytest

from nicemu._tracebacks import end_in_the_program, is_meant_for_programs
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.timeline import Quiescent


def test_it_ends_where_the_program_calls_us() -> None:
    with pytest.raises(PyverbsRDMAError) as caught:
        MR(None, 10, 1)
    assert len(traceback.extract_tb(caught.tb)) > 1
    end_in_the_program(caught.tb)
    assert [frame.filename for frame in traceback.extract_tb(caught.tb)] == [__file__]


def test_an_error_of_the_program_itself_keeps_all() -> None:
    def inner() -> None:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        inner()
    end_in_the_program(caught.tb)
    assert [frame.name for frame in traceback.extract_tb(caught.tb)][-1] == "inner"


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (PyverbsUserError("closed"), True),
        (PyverbsRDMAError("Failed", errno.EINVAL), True),
        (Quiescent("nothing left to run"), True),
        (KeyboardInterrupt(), True),
        (AssertionError("ours"), False),
        (TypeError("an integer is required"), False),
    ],
)
def test_what_may_be_a_bug_of_ours_keeps_our_frames(error: BaseException, meant: bool) -> None:
    assert is_meant_for_programs(error) is meant

"""Faults ahead: a queue whose faults go up in equal steps gets a window of pages with each, and a longer one each time.

Imitates: no NIC. It is the readahead of operating systems, whose window doubles, put into firmware.
Source: none.
Inferred: all of it. The third fault of a QP in equal steps upwards asks for FIRST steps' worth of pages; a fault right
behind the window is a success and doubles it, up to LIMIT pages; any other fault ends it. An operation that needs more
than the window gets what it needs.
"""

from nicemu.firmware import fault, qp_state

FIRST, LIMIT = 4, 256
PAGE_SHIFT = 12

mine = qp_state("mkey", "page", "stride", "window")


def fault_pages(world, row, arg):
    """Pages to ask the driver for: the window, or what the operation needs."""
    f = fault(world, arg)
    state = mine(world, row)
    page = f.va >> PAGE_SHIFT
    step = page - state.page if f.mkey == state.mkey else 0
    if step > 0 and step == max(state.window, state.stride):
        ahead = state.window * 2 if state.window > 0 else FIRST * state.stride
        state.window = min(ahead, LIMIT // state.stride * state.stride)
    else:
        state.stride = max(step, 0)
        state.window = 0
    state.mkey = f.mkey
    state.page = page
    whole = (f.op_length >> PAGE_SHIFT) + 1
    return state.window if state.window > whole else 0

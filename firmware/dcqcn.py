"""DCQCN: a QP slows down when receivers report marked packets, and finds its way back by time and by bytes.

Imitates: the notification and reaction points of Zhu et al., "Congestion Control for Large-Scale RDMA Deployments"
(SIGCOMM'15), as NVIDIA adapters since ConnectX-4 have them.

Source: NVIDIA, "DCQCN CC Parameters": alpha and its two updates, the rate falls by alpha / 2, the time between falls,
its parameters' names. The model of the authors' group for ns-3 (rdma-hw.cc): the target stays as it is while the rate
falls several times without a rise between; fast recovery, then additive, then hyper increase. The numbers N, F, K, B, g
and R_AI and that bytes and time count apart are recalled from the paper; R_HAI is chosen.

Inferred: the timer of the rate is the one of alpha (`congestion_timer_ns`), no alpha below one part in 2^20, and the
limit is lifted within 1/128 of the port's rate.
"""

from nicemu.firmware import KEEP_RATE, control, jit, nic, qp, qp_state

ONE = 1 << 20
"""Alpha 1.0."""
GAIN = 8
"""g = 2^-8: alpha's step."""
STAGES = 5
"""F: steps of fast recovery."""
BYTES = 10_000_000
"""B: bytes of a step."""
ADDITIVE_KBPS, HYPER_KBPS = 40_000, 200_000
"""R_AI, R_HAI."""
LEAST_KBPS = 10_000
FALL_NS = 4_000
"""At most one fall in this time (rate_reduce_monitor_period)."""
NOTICE_NS = 50_000
"""N: at most one CNP in this time, and in the profile's `cnp_interval_ns`."""

mine = qp_state("rate", "target", "alpha", "noticed", "fell", "bytes", "byte_steps", "time_steps", "told")


@jit
def port_kbps(world, row):
    """What the port can send."""
    return 8 * 10**9 // nic(world, qp(world, row).nic).ps_per_byte


@jit
def rise(world, row, state):
    """One step up: halfway to the target, which moves up itself after fast recovery. 0: as fast as the port."""
    least, most = min(state.byte_steps, state.time_steps), max(state.byte_steps, state.time_steps)
    port = port_kbps(world, row)
    if least > STAGES:
        state.target += HYPER_KBPS
    elif most > STAGES:
        state.target += ADDITIVE_KBPS
    state.target = min(state.target, port)
    state.rate = (state.rate + state.target) // 2
    if state.rate >= port - port // 128:
        state.rate = 0
    return state.rate


def cc_ecn(world, row, arg):
    """A marked packet: a CNP, if the last one was long enough ago."""
    state = mine(world, row)
    now = control(world, 0).now
    if arg == 0 or (state.told != 0 and now - state.told < NOTICE_NS):
        return 0
    state.told = now
    return 1


def cc_cnp(world, row, arg):
    """A CNP: the rate falls by alpha / 2, soon after the last fall not again."""
    state = mine(world, row)
    now = control(world, 0).now
    state.noticed = 1
    if state.rate == 0:
        state.rate = state.target = port_kbps(world, row)
        state.alpha = ONE
    elif now - state.fell < FALL_NS:
        return KEEP_RATE
    elif state.byte_steps or state.time_steps:
        state.target = state.rate
    state.rate = max(state.rate - (state.rate * state.alpha >> 21), LEAST_KBPS)
    state.fell = now
    state.bytes = state.byte_steps = state.time_steps = 0
    return state.rate


def cc_sent(world, row, arg):
    """Bytes of a limited QP: a step up after enough of them."""
    state = mine(world, row)
    if state.rate == 0:
        return KEEP_RATE
    state.bytes += arg
    if state.bytes < BYTES:
        return KEEP_RATE
    state.bytes = 0
    state.byte_steps += 1
    return rise(world, row, state)


def cc_timer(world, row, arg):
    """A period: alpha grows if a CNP came in it, else it shrinks; a step up."""
    state = mine(world, row)
    state.alpha += (ONE - state.alpha >> GAIN) if state.noticed else -(state.alpha >> GAIN)
    state.noticed = 0
    state.time_steps += 1
    return rise(world, row, state)

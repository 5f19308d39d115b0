"""The QP state table against a second copy of it, written down from the reference row by row: every pair of states,
every type, and every bit missing or too many."""

from __future__ import annotations

import itertools

import pytest

from nicemu.abi.verbs import QpAttrMask, QpState, QpType
from nicemu.driver import qp_state_table

A = QpAttrMask
Row = tuple[str, str]

INIT_CONNECTED, INIT_UD = "PKEY_INDEX PORT ACCESS_FLAGS", "PKEY_INDEX PORT QKEY"
PATH = "AV PATH_MTU DEST_QPN RQ_PSN"
RTR_OPTIONAL = "ALT_PATH ACCESS_FLAGS PKEY_INDEX"
RC_RTS = "TIMEOUT RETRY_CNT RNR_RETRY SQ_PSN MAX_QP_RD_ATOMIC"
UC_RTS_OPTIONAL = "CUR_STATE ALT_PATH ACCESS_FLAGS PATH_MIG_STATE"
RC_RTS_OPTIONAL = UC_RTS_OPTIONAL + " MIN_RNR_TIMER"
RTS_OPTIONAL = {"UD": "CUR_STATE QKEY", "UC": UC_RTS_OPTIONAL, "RC": RC_RTS_OPTIONAL, "XRC_SEND": UC_RTS_OPTIONAL,
                "XRC_RECV": RC_RTS_OPTIONAL, "RAW_PACKET": "RATE_LIMIT"}  # fmt: skip
SQD_UC = "AV ALT_PATH ACCESS_FLAGS PKEY_INDEX PATH_MIG_STATE"

REFERENCE: dict[str, dict[str, Row]] = {
    "RESET INIT": {
        "UD": (INIT_UD, ""), "RC": (INIT_CONNECTED, ""), "UC": (INIT_CONNECTED, ""), "XRC_SEND": (INIT_CONNECTED, ""),
        "XRC_RECV": (INIT_CONNECTED, ""), "RAW_PACKET": ("PORT", ""),
    },
    "INIT INIT": {
        "UD": ("", INIT_UD), "RC": ("", INIT_CONNECTED), "UC": ("", INIT_CONNECTED), "XRC_SEND": ("", INIT_CONNECTED),
        "XRC_RECV": ("", INIT_CONNECTED), "RAW_PACKET": ("", "PORT"),
    },
    "INIT RTR": {
        "UD": ("", "PKEY_INDEX QKEY"), "UC": (PATH, RTR_OPTIONAL), "XRC_SEND": (PATH, RTR_OPTIONAL),
        "RC": (PATH + " MAX_DEST_RD_ATOMIC MIN_RNR_TIMER", RTR_OPTIONAL),
        "XRC_RECV": (PATH + " MAX_DEST_RD_ATOMIC MIN_RNR_TIMER", RTR_OPTIONAL), "RAW_PACKET": ("", ""),
    },
    "RTR RTS": {
        "UD": ("SQ_PSN", RTS_OPTIONAL["UD"]), "UC": ("SQ_PSN", RTS_OPTIONAL["UC"]), "RC": (RC_RTS, RTS_OPTIONAL["RC"]),
        "XRC_SEND": (RC_RTS, RTS_OPTIONAL["XRC_SEND"]), "XRC_RECV": ("TIMEOUT SQ_PSN", RTS_OPTIONAL["XRC_RECV"]),
        "RAW_PACKET": ("", RTS_OPTIONAL["RAW_PACKET"]),
    },
    "RTS RTS": {kind: ("", optional) for kind, optional in RTS_OPTIONAL.items()},
    "RTS SQD": {kind.name: ("", "EN_SQD_ASYNC_NOTIFY") for kind in QpType},
    "SQD RTS": {kind: ("", optional) for kind, optional in RTS_OPTIONAL.items()},
    "SQD SQD": {
        "UD": ("", "PKEY_INDEX QKEY"), "UC": ("", SQD_UC),
        "RC": ("", SQD_UC + " PORT TIMEOUT RETRY_CNT RNR_RETRY MAX_QP_RD_ATOMIC MAX_DEST_RD_ATOMIC MIN_RNR_TIMER"),
        "XRC_SEND": ("", SQD_UC + " PORT TIMEOUT RETRY_CNT RNR_RETRY MAX_QP_RD_ATOMIC"),
        "XRC_RECV": (
            "", "PORT AV TIMEOUT MAX_DEST_RD_ATOMIC ALT_PATH ACCESS_FLAGS PKEY_INDEX MIN_RNR_TIMER PATH_MIG_STATE"),
    },
    "SQE RTS": {"UD": ("", "CUR_STATE QKEY"), "UC": ("", "CUR_STATE ACCESS_FLAGS")},
}  # fmt: skip
"""Section 6.11: transition -> type -> (required, optional). Transitions to RESET and ERR are a rule of their own."""


def mask(names: str) -> QpAttrMask:
    total = A(0)
    for name in names.split():
        total |= A[name]
    return total


def expected(old: QpState, new: QpState, kind: QpType, given: QpAttrMask) -> bool:
    """The rules of the reference, spelt out."""
    if given & A.CUR_STATE and old not in (QpState.RTR, QpState.RTS, QpState.SQD, QpState.SQE):
        return False
    if new == QpState.RESET or (new == QpState.ERR and old != QpState.RESET):
        row: Row | None = ("", "")
    else:
        row = REFERENCE.get(f"{old.name} {new.name}", {}).get(kind.name)
    if row is None:
        return False
    required, optional = mask(row[0]), mask(row[1])
    return given & required == required and not given & ~(required | optional | A.STATE)


def masks_to_try(old: QpState, new: QpState, kind: QpType) -> list[QpAttrMask]:
    """The required set and both sets, each alone, with every bit added and with every bit missing."""
    required, optional = (mask(names) for names in REFERENCE.get(f"{old.name} {new.name}", {}).get(kind.name, ("", "")))
    bases = [required, required | optional, A(0)]
    tried = [base | state for base in bases for state in (A(0), A.STATE)]
    return tried + [base | A.STATE | bit for base in bases for bit in A] + [base & ~bit for base in bases for bit in A]


@pytest.mark.parametrize("kind", list(QpType), ids=lambda kind: kind.name)
@pytest.mark.parametrize(("old", "new"), list(itertools.product(QpState, QpState)), ids=lambda state: state.name)
def test_transition_takes_required_and_optional_bits_and_no_other(old: QpState, new: QpState, kind: QpType) -> None:
    for given in masks_to_try(old, new, kind):
        assert qp_state_table.is_allowed(old, new, kind, given) == expected(old, new, kind, given), f"{given:#x}"


@pytest.mark.parametrize("kind", list(QpType), ids=lambda kind: kind.name)
def test_every_type_reaches_reset_and_err_and_leaves_err_for_these_only(kind: QpType) -> None:
    for old in QpState:
        assert qp_state_table.is_allowed(old, QpState.RESET, kind, A.STATE)
        assert qp_state_table.is_allowed(old, QpState.ERR, kind, A.STATE) == (old != QpState.RESET)
        assert not qp_state_table.is_allowed(QpState.ERR, old, kind, A.STATE) or old in (QpState.RESET, QpState.ERR)


def test_sqe_is_left_by_datagram_types_only() -> None:
    leaves = [k for k in QpType if qp_state_table.is_allowed(QpState.SQE, QpState.RTS, k, A.STATE)]
    assert leaves == [QpType.UC, QpType.UD]


def test_cur_state_is_legal_from_rtr_on_only() -> None:
    legal = [old for old in QpState if qp_state_table.is_allowed(old, QpState.RTS, QpType.UD, A.SQ_PSN | A.CUR_STATE)]
    assert legal == [QpState.RTR]
    assert not qp_state_table.is_allowed(QpState.ERR, QpState.RESET, QpType.RC, A.STATE | A.CUR_STATE)

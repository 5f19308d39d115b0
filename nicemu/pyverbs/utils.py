"""Names and text forms of verbs values."""

from __future__ import annotations

from collections.abc import Mapping

from nicemu.abi.verbs import MTU_BYTES
from nicemu.pyverbs._text import flag_names
from nicemu.pyverbs.libibverbs_enums import ibv_rereg_mr_err_code
from nicemu.pyverbs.pyverbs_error import PyverbsUserError

__all__ = [
    "PyverbsUserError",
    "access_flags_to_str",
    "be64toh",
    "gid_str",
    "gid_str_to_array",
    "ibv_rereg_mr_err_code",
    "mig_state_to_str",
    "mtu_to_str",
    "qp_state_to_str",
    "qp_type_to_str",
    "rereg_error_to_str",
]


def be64toh(num: int) -> int:
    """A big-endian 64-bit value, read as little-endian, in host order; and back."""
    return int.from_bytes(num.to_bytes(8, "little"), "big")


def gid_str(subnet_prefix: int, interface_id: int) -> str:
    """A GID as 8 groups of 4 hex digits; the halves are big-endian values as a little-endian host reads them."""
    digits = f"{be64toh(subnet_prefix):016x}{be64toh(interface_id):016x}"
    return ":".join(digits[i : i + 4] for i in range(0, 32, 4))


def gid_str_to_array(val: str) -> list[str]:
    """The 16 bytes of a GID as 2-digit hex strings. PyverbsUserError unless it has 8 groups of 4 hex digits."""
    groups = val.split(":")
    digits = "".join(groups)
    if len(groups) != 8 or any(len(group) != 4 for group in groups) or not _is_hex(digits):
        raise PyverbsUserError(f"Invalid GID value ({groups})")
    return [digits[i : i + 2] for i in range(0, 32, 2)]


def _is_hex(digits: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in digits)


def _name(names: Mapping[int, str], value: int) -> str:
    return names.get(value, f"Unknown ({value})")


_QP_TYPES = {
    2: "RC", 3: "UC", 4: "UD", 8: "Raw Packet", 9: "XRCD_SEND", 10: "XRCD_RECV", 255: "Driver QP",
}  # fmt: skip
_QP_STATES = {0: "Reset", 1: "Init", 2: "RTR", 3: "RTS", 4: "SQD", 5: "SQE", 6: "Error", 7: "Unknown"}
_MIG_STATES = {0: "Migrated", 1: "Re-arm", 2: "Armed"}
_ACCESS_FLAGS = {
    1: "Local write", 2: "Remote write", 4: "Remote read", 8: "Remote atomic", 16: "MW bind", 32: "Zero based",
    64: "On demand",
}  # fmt: skip


def qp_type_to_str(qp_type: int) -> str:
    """The name of an `ibv_qp_type`."""
    return _name(_QP_TYPES, qp_type)


def qp_state_to_str(qp_state: int) -> str:
    """The name of an `ibv_qp_state`."""
    return _name(_QP_STATES, qp_state)


def mtu_to_str(mtu: int) -> int:
    """Bytes of an `ibv_mtu`; 0 if it is none."""
    return MTU_BYTES.get(mtu, 0)


def access_flags_to_str(flags: int) -> str:
    """The names of access flags, a space after each."""
    return flag_names(flags, _ACCESS_FLAGS)


def mig_state_to_str(mig: int) -> str:
    """The name of an `ibv_mig_state`."""
    return _name(_MIG_STATES, mig)


def rereg_error_to_str(error: int) -> str:
    """The name of an `ibv_rereg_mr_err_code`."""
    return ibv_rereg_mr_err_code(error).name or f"Unknown error ({error})"

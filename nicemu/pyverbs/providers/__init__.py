"""Vendors' own interfaces: importable, so that programs which know them start, and absent as devices.

Whatever of them a program calls raises PyverbsUserError; programs for several vendors, rdma-core's tests among them,
take that for "this device is of another kind".
"""

"""Other simulators, and soft RoCE: two-node flows as near as can be to an RC WRITE of 64 KiB at MTU 4096."""

"""RoCEv2 on the wire: opcodes and what they carry."""

"""`nicemu conformance`: rdma-core's own Python tests on the emulated NIC, one process a test."""

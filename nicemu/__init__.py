"""nicemu: a software RDMA NIC with on-demand paging, the host around it and the verbs API in front of it."""

__version__ = "0.1.0"

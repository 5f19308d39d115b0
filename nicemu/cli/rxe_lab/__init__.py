"""`nicemu lab rxe`: a Linux guest with the kernel's soft-RoCE device rxe0, built from Debian packages, run by QEMU."""

"""NVIDIA (Mellanox) ConnectX devices: the emulated device is none."""

"""Amazon EFA devices: the emulated device is none."""

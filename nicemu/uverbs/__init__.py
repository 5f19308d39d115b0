"""The user/kernel boundary: commands as typed messages, system calls, and the doorbell page."""

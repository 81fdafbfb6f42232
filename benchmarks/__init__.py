"""Measurements: pyoci beside the least C program that does the same, the bare runtimes and podman."""

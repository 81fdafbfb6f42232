"""Measuring: how long containers take on this machine, pyoci's beside those of the bare runtime and of podman. ``pyoci bench`` is the short form; the
long one, in ``benchmarks/`` of the sources, is built on the same rooms: ``place``, ``ways``, ``measure``, ``tables``."""

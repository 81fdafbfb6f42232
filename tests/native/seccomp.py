"""Runs a command where some system calls do not exist: ``python -m tests.native.seccomp clone3,close_range COMMAND…``.

A seccomp filter answers them with ENOSYS, as an old kernel does or docker's older default profile: so the fallbacks really run. ``NAME=NUMBER``
answers with another errno. ``slave`` is mount(2) when it is asked for MS_SLAVE only."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {"clone3": 435, "close_range": 436}
"""The same on every architecture."""
OWN_NUMBERS = {
    "x86_64": {"clone": 56, "mount": 165, "unshare": 272, "inotify_init": 253, "inotify_init1": 294},
    "aarch64": {"clone": 220, "mount": 40, "unshare": 97, "inotify_init1": 26},
}
MS_SLAVE, MOUNT_FLAGS = 0x80000, 16 + 3 * 8
"""A call's arguments stand from byte 16 on in struct seccomp_data, eight bytes each; both architectures have the low half first."""
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def own_numbers() -> dict[str, int]:
    """Those of this machine's architecture."""
    return OWN_NUMBERS[platform.machine()]


def install(names: list[str]) -> None:
    steps = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, ARCHITECTURES[platform.machine()]), (RETURN, 0, 0, ALLOW)]
    numbers = {**NUMBERS, **own_numbers()}
    for rule in names:
        name, _, answer = rule.partition("=")
        refuse = (RETURN, 0, 0, ERRNO | int(answer or errno.ENOSYS))
        steps.append((LOAD, 0, 0, 0))
        if name == "slave":
            steps += [(JUMP_EQUAL, 0, 3, numbers["mount"]), (LOAD, 0, 0, MOUNT_FLAGS), (JUMP_EQUAL, 0, 1, MS_SLAVE), refuse]
        else:
            steps += [(JUMP_EQUAL, 0, 1, numbers[name]), refuse]
    steps.append((RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    install(sys.argv[1].split(","))
    os.execvp(sys.argv[2], sys.argv[2:])

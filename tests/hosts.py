"""Hosts to run on: what a machine cannot be as it stands, a private mount namespace of this process can."""

from __future__ import annotations

import ctypes
import os

from pyoci import cgroups

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2


def become_v1_host() -> None:
    """On a hybrid host crun refuses to work: this process and its children then live where no cgroup2 is mounted. Elsewhere nothing is done.
    Must be called before there are threads."""
    found = cgroups.read()
    if found.layout != "hybrid" or os.geteuid() != 0:
        return
    _private_mounts()
    _libc("umount", "umount2", found.mounts[cgroups.V2].encode(), MNT_DETACH)


def mount_tmpfs(path: str) -> None:
    """A tmpfs that only this process and its children see: state lies in memory on most machines' /run, but not on all."""
    _private_mounts()
    _libc(f"mounting a tmpfs on {path}", "mount", b"tmpfs", path.encode(), b"tmpfs", 0, b"mode=0755")


def _private_mounts() -> None:
    _libc("unshare", "unshare", CLONE_NEWNS)
    _libc("making / private", "mount", None, b"/", None, MS_REC | MS_PRIVATE, None)


def _libc(step: str, name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{step}: {os.strerror(ctypes.get_errno())}")


def umount(path: str) -> None:
    _libc(f"unmounting {path}", "umount2", path.encode(), MNT_DETACH)


def mount_cgroup2(path: str) -> None:
    """The unified hierarchy, at a place of our own; it always exists, mounted or not."""
    _libc(f"mounting cgroup2 on {path}", "mount", b"cgroup2", path.encode(), b"cgroup2", 0, None)

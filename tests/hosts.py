"""Hosts to run on: what a machine cannot be as it stands, a private mount namespace of this process can."""

from __future__ import annotations

import os

from pyoci import cgroups
from tests import machine


def become_v1_host() -> None:
    """On a hybrid host crun refuses to work: this process and its children then live where no cgroup2 is mounted. Elsewhere nothing is done.
    Must be called before there are threads."""
    found = cgroups.read()
    if found.layout != "hybrid" or os.geteuid() != 0:
        return
    machine.unshare(machine.CLONE_NEWNS)
    machine.umount(found.mounts[cgroups.V2])


def mount_tmpfs(path: str) -> None:
    """A tmpfs that only this process and its children see: state lies in memory on most machines' /run, but not on all."""
    machine.unshare(machine.CLONE_NEWNS)
    machine.mount("tmpfs", path, "mode=0755")

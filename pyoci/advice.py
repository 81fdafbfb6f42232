"""What to try when a runtime has failed: its words, and what they mean to somebody who has not read its source. Pure."""

from __future__ import annotations

import re

_USER_NAMESPACES = "user namespaces are forbidden or used up here: `pyoci doctor` tells which switch forbids them"

_ADVICE = {
    r"unable to set memory limit|memory limit could be too low|container init was OOM-killed": (
        "give a larger memory limit: for a moment the runtime itself lives in it, and runc needs a few MiB"
    ),
    r"(unknown (flag|option)|unrecognized option).*--(root|bundle)": "this is no OCI runtime: runtime= takes crun, runc, or another one",
    r"executing hook.*(exit code: -33|broken pipe)": "a hook must read all of its stdin, the container's state: some versions of crun fail else",
    r"hybrid mode not supported": "take runc, or boot with systemd.unified_cgroup_hierarchy=1",
    r"sd-bus|dbus|interactive authentication required": (
        "cgroup_manager='systemd' needs a systemd that answers (`pyoci doctor`); the default, 'cgroupfs', needs none"
    ),
    r"rlimit.*not permitted": "only CAP_SYS_RESOURCE may raise a hard limit: ask for no more than our own (ulimit -H)",
    r"sysctl.*(not namespaced|not in a separate|is not allowed|permission denied)": (
        "a container has sysctls of its own namespaces only: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*"
    ),
    r"sethostname": "a host name has at most 64 characters, and needs a uts namespace of the container's",
    r"apparmor": "is AppArmor on here, and the profile loaded (aa-status)? else leave process.apparmorProfile out",
    r"seccomp": "look at linux.seccomp: this runtime, or its libseccomp, does not know what it asks for",
    r"mount.*not a directory": "one of source and destination is a directory, and the other is not",
    r"mount.*no such file or directory": "the source of a mount must exist on this host",
    r"(unshare|clone|newuidmap|uid_map|setgroups).*(not permitted|no space left|invalid argument)": _USER_NAMESPACES,
    r"no space left on device|disk quota exceeded": "make room where the state directory and the root file system are (df, df -i)",
    r"cgroup.*(permission denied|read-only file system|operation not permitted)": (
        "we may not make cgroups there: `pyoci doctor` tells what is delegated to us; or run as root"
    ),
    r"(mount|mkdir|creat|open).*read-only file system": "where the root file system is read-only, the destination of a mount must be there already",
    r"resource temporarily unavailable|cannot allocate memory": "the limit of processes, or memory, is used up: `pyoci doctor` tells the limits",
    r"too many open files in system": "the whole machine's limit of open files is reached (sysctl fs.file-max)",
    r"too many open files": "raise the limit of open files (ulimit -n)",
    r"pivot_root.*invalid argument": "on a ramdisk pivot_root cannot work: no_pivot=True",
}
"""Patterns of words to what to try; the first that is found counts."""


def on(words: bytes | str) -> str:
    """What to try, as the end of a message; nothing where the words are not known, or say it themselves."""
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    for pattern, advice in _ADVICE.items():
        if re.search(pattern, text[-4096:], re.IGNORECASE):
            return f" (what to try: {advice})"
    return ""

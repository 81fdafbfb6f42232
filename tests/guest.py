"""A whole Debian 12 machine under emulation: systemd as the real process 1, every cgroup v2 controller, every capability, SELinux (permissive).
About 30 times slower than this machine, and without a network."""

from __future__ import annotations

import io
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import trees

SECONDS = 3600
MEMORY = "3072"
ENDED = "pyoci-guest: exit "
LABEL = 'mount -t proc proc "$0/proc" && chroot "$0" setfiles -F -e /proc /etc/selinux/default/contexts/files/file_contexts /'
FILES = {
    "etc/hostname": "pyoci-guest\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/selinux/config": "SELINUX=permissive\nSELINUXTYPE=default\n",
    # What it prints leaves by the first serial line; the console, and at the end its exit code, by the second. The checkout is a tar file on a disk.
    "usr/local/sbin/pyoci-job": f"""#!/bin/sh
tar -xf /dev/vdb -C /
stty -F /dev/ttyS0 -onlcr
(sh /run/job; echo $? >/run/code) </dev/null 2>&1 | cat >/dev/ttyS0
echo "{ENDED}$(cat /run/code)" >/dev/ttyS1
systemctl poweroff --force --force
""",
    "etc/systemd/system/pyoci-job.service": """[Unit]
After=multi-user.target
[Service]
Type=exec
ExecStart=/usr/local/sbin/pyoci-job
""",
}


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Boots it, runs the command in a copy of the checkout, prints what that prints; its exit code."""
    trees.require("qemu-system-x86_64", "qemu-system-x86")
    machine, extension = image(), trees.extension("guest")
    with tempfile.TemporaryDirectory(prefix="pyoci-guest-", dir=trees.CACHE) as work:
        disk, console = f"{work}/checkout.tar", Path(work, "console")
        _pack(disk, extension, command, environment)
        argv = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY]
        argv += ["-nic", "none", "-display", "none"]
        argv += ["-monitor", "none", "-no-reboot", "-serial", "stdio", "-serial", f"file:{console}"]
        argv += [
            "-drive",
            f"file={machine}/disk,if=virtio,format=raw,snapshot=on,cache=unsafe",
            "-drive",
            f"file={disk},if=virtio,format=raw,readonly=on",
        ]
        argv += ["-kernel", f"{machine}/vmlinuz", "-initrd", f"{machine}/initrd"]
        argv += ["-append", "root=/dev/vda rw console=ttyS1 quiet security=selinux selinux=1 enforcing=0 systemd.wants=pyoci-job.service"]
        guest = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            guest.wait(SECONDS)
        except subprocess.TimeoutExpired:
            print(f"hosts: the guest was not done after {SECONDS} s", file=sys.stderr)
        finally:
            guest.send_signal(signal.SIGKILL)
            guest.wait()
        said = console.read_text(errors="replace") if console.exists() else ""
        code = said.rpartition(ENDED)[2].split() if ENDED in said else []
        if code:
            return int(code[0])
        print(f"hosts: the guest ended without a word; its console:\n{said[-4000:]}", file=sys.stderr)
        return 1


def image() -> Path:
    """A directory with its disk, kernel and initial file system; made once."""
    tree = trees.tree("guest")
    path = trees.CACHE / f"image-{trees.digest(tree.name, *FILES, *FILES.values())}"
    with trees.alone("image"):
        if path.exists():
            return path
        trees.require("mke2fs", "e2fsprogs")
        print(f"hosts: making the guest's disk in {path}", file=sys.stderr, flush=True)
        part = Path(tempfile.mkdtemp(prefix=".image-", dir=trees.CACHE))
        try:
            root = part / "root"
            trees.run(["cp", "-a", "--reflink=auto", str(tree), str(root)])
            for name, content in FILES.items():
                (root / name).write_text(content)
            (root / "usr/local/sbin/pyoci-job").chmod(0o755)
            trees.run(["unshare", "--mount", "sh", "-c", LABEL, str(root)])
            for name in ("vmlinuz", "initrd"):
                (kernel,) = (root / "boot").glob(f"{name}*")
                shutil.copy(kernel, part / name)
            trees.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(part / "disk"), "6G"])
            shutil.rmtree(root)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return path


def _pack(disk: str, extension: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    list_files = ["git", "-C", str(trees.ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(list_files, capture_output=True, text=True, check=True).stdout.split("\0")
    variables = [f"{name}={value}" for name, value in environment.items()]
    job = f"cd {shlex.quote(str(trees.ROOT))} && exec {shlex.join(['env', '-i', *variables, *command])}\n"
    with tarfile.open(disk, "w") as archive:
        for path in (trees.ROOT / name for name in names if name):
            if path.exists():  # one that was deleted is listed until that is committed
                archive.add(path)
        archive.add(extension, f"{trees.ROOT}/pyoci/_native.abi3.so")
        archive.add(trees.ROOT / "pyoci" / "_warm")  # static: good in any tree
        entry = tarfile.TarInfo("run/job")
        entry.size = len(job.encode())
        archive.addfile(entry, io.BytesIO(job.encode()))

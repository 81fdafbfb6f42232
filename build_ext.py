"""Builds ``pyoci._native`` with cffi: csrc/pyoci.h is both the declaration that cffi reads and the header that the C files include."""

import os
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).parent / "csrc"
SOURCES = ("cgroups.c", "files.c", "io.c", "mount_thread.c", "network.c", "pidfd.c", "spawn.c", "spawn_child.c", "thread.c")


def declarations() -> str:
    """csrc/pyoci.h without the preprocessor lines that cffi does not take; ``#define NAME value`` stays."""
    lines = (CSRC / "pyoci.h").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("#") or line.startswith("#define"))


ffi = FFI()
ffi.cdef(declarations())
ffi.set_source(
    "pyoci._native",
    '#include "pyoci.h"\n#include "lock.h"',
    sources=[os.path.relpath(CSRC / name, Path(__file__).parent) for name in SOURCES],
    include_dirs=[str(CSRC)],
    depends=[str(path) for path in CSRC.glob("*.h")],
    extra_compile_args=["-std=gnu17", "-O2", "-fvisibility=hidden", *os.environ.get("PYOCI_CFLAGS", "").split()],
    extra_link_args=os.environ.get("PYOCI_LDFLAGS", "").split(),
    py_limited_api=True,
)

if __name__ == "__main__":
    ffi.compile(verbose=True)

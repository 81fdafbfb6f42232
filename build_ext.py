"""Builds ``pyoci._native`` with cffi: csrc/pyoci.h is both the declaration that cffi reads and the header that the C files include. And
``pyoci/_warm``, a static program, of csrc/warm.c: what containers of a warm pool start with."""

import os
from pathlib import Path
from typing import Any

from cffi import FFI
from setuptools.command.build_ext import build_ext

CSRC = Path(__file__).parent / "csrc"
SOURCES = ("cgroups.c", "files.c", "io.c", "mount_thread.c", "network.c", "pidfd.c", "spawn.c", "spawn_child.c", "thread.c")

PROGRAM = "_warm"
PROGRAM_FLAGS = ("-std=gnu17", "-Os", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-fno-asynchronous-unwind-tables")
PROGRAM_LINK = ("-static", "-nostdlib", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-s")


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


class Build(build_ext):
    """The compiled module, and the program beside it."""

    def run(self) -> None:
        super().run()
        directories = [Path(self.build_lib, "pyoci")]
        if self.inplace:  # an editable install
            directories.append(Path(__file__).parent / "pyoci")
        for directory in directories:
            self.build_program(directory)

    def build_program(self, directory: Path) -> None:
        compiler: Any = self.compiler
        source = os.path.relpath(CSRC / "warm.c")
        try:
            objects = compiler.compile([source], output_dir=self.build_temp, extra_postargs=list(PROGRAM_FLAGS))
            compiler.link_executable(objects, PROGRAM, output_dir=str(directory), extra_postargs=list(PROGRAM_LINK))
        except Exception as error:  # another machine, or a compiler that has no such flags: all else works without
            self.warn(f"no warm pools: {source} could not be built: {error}")

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), os.path.join(self.build_lib, "pyoci", PROGRAM)]


if __name__ == "__main__":
    ffi.compile(verbose=True)

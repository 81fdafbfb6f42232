"""``spec`` and ``features``."""

from __future__ import annotations

import json
import os

from pyoci import spec as specs
from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.ociruntime.words import Given

CGROUPS = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
"""As runc's spec has it, for its users to edit."""


def spec(given: Given) -> int:
    """config.json in the bundle: a shell on a terminal, in ``rootfs``."""
    bundle = given.text("bundle") or "."
    path = os.path.join(bundle, "config.json")
    rootless = given.flag("rootless")
    config = specs.build(["sh"], rootfs="rootfs", read_only=True, hostname="pyoci", mounts=[] if rootless else [CGROUPS])
    config["root"]["path"] = "rootfs"
    config["process"]["terminal"] = True
    if rootless:
        from pyoci.rootless import adapt

        config = adapt(config)
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(config, file, indent=4)
            file.write("\n")
    except FileExistsError:
        raise InvalidOption(f"File {path} exists. Remove it first") from None
    except OSError as error:
        raise InvalidOption(f"{path}: {error.strerror}") from None
    return 0


def features(given: Given) -> int:
    from pyoci import runtimes
    from pyoci.ociruntime import common
    from pyoci.waiting import drive

    env = common.environment()
    print(json.dumps(drive(runtimes.features(common.runtime_path(given, env), env)), indent=4))
    return 0

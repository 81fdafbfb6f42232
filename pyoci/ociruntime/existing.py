"""The verbs for a container that is there: ``start``, ``state``, ``kill``, ``delete``, ``list``, ``ps``, ``pause``, ``resume``."""

from __future__ import annotations

import json
import os
from signal import SIGKILL

from pyoci import lifecycle, processes, spec
from pyoci.errors import ContainerNotFound, ContainerStateError, Error, InvalidID, InvalidOption
from pyoci.ociruntime import common
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyoci.lifecycle import Life
    from pyoci.ociruntime.words import Given


def start(given: Given, id: str) -> int:
    life = common.load(given, id)
    try:
        drive(lifecycle.start(life))
    except ContainerStateError as error:
        why = "cannot start a container that has stopped" if error.state == "stopped" else "cannot start an already running container"
        raise ContainerStateError(f"{why}: {error}", error.state) from None
    return 0


def state(given: Given, id: str) -> int:
    print(json.dumps(_state(common.load(given, id)), indent=2))
    return 0


def _state(life: Life) -> dict[str, Any]:
    """The runtime-spec's (runtime.md, "State"), and what runc adds."""
    status: str = drive(lifecycle.state(life))
    if status == "configured":
        status = "stopped"
    config = spec.load(life.directory)
    found: dict[str, Any] = {
        "ociVersion": config["ociVersion"],
        "id": life.id,
        "pid": life.init.pid if life.init is not None and status != "stopped" else 0,
        "status": status,
        "bundle": life.bundle or life.directory,
        "rootfs": config["root"]["path"],
        "created": _created(life),
    }
    if config.get("annotations"):
        found["annotations"] = config["annotations"]
    return {**found, "owner": ""}


def _created(life: Life) -> str:
    from time import gmtime, strftime

    seconds, rest = divmod(os.stat(f"{life.directory}/record.json").st_mtime_ns, 1_000_000_000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{rest:09}Z"


def kill(given: Given, id: str, signal: str = "TERM") -> int:
    life = common.load(given, id)
    number = 0 if signal == "0" else spec.signal_number(signal)
    # A first process that is none of a pid namespace takes nobody with it.
    everything = given.flag("all") or (number == SIGKILL and not life.own_pid_namespace)
    try:
        drive(lifecycle.kill(life, number, everything))
    except ContainerStateError as error:
        if not everything:
            raise ContainerStateError(f"container not running: {error}", error.state) from None
    return 0


def delete(given: Given, id: str) -> int:
    force = given.flag("force")
    try:
        life = common.load(given, id)
        if not force and not life.has_ended() and not lifecycle.is_created(life):
            raise ContainerStateError(f"cannot delete container {id} that is not stopped: running", "running")
        drive(lifecycle.delete(life, force=True))
    except ContainerNotFound:
        if not force:
            raise
    return 0


def pause(given: Given, id: str) -> int:
    return _switch(given, id, lifecycle.pause, "container not running")


def resume(given: Given, id: str) -> int:
    return _switch(given, id, lifecycle.resume, "container not paused")


def _switch(given: Given, id: str, operation: Any, words: str) -> int:
    life = common.load(given, id)
    try:
        drive(operation(life))
    except ContainerStateError as error:
        raise ContainerStateError(f"{words}: {error}", error.state) from None
    return 0


def list(given: Given) -> int:
    format = _format(given)
    store = common.store(given)
    if given.flag("quiet"):
        print(*store.ids(), sep="\n", end="\n" if store.ids() else "")
        return 0
    rows = []
    for id in store.ids():
        try:
            rows.append(_state(lifecycle.load(store, id)))
        except (ContainerNotFound, InvalidID):
            continue  # deleted meanwhile, about to be created, or nothing of ours
        except Error as error:
            rows.append({"id": id, "pid": 0, "status": "unknown", "bundle": "", "created": "", "owner": str(error)})
    for row in rows:
        row["owner"] = row["owner"] or _owner(store.path(row["id"]))
    if format == "json":
        print(json.dumps(rows, separators=(",", ":")) if rows else "null")
    else:
        _table([["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], *([str(row[name]) for name in _COLUMNS] for row in rows)])
    return 0


_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")


def _owner(directory: str) -> str:
    import pwd

    uid = os.stat(directory).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _format(given: Given) -> str:
    format = given.text("format") or "table"
    if format not in ("table", "json"):
        raise InvalidOption(f"invalid format option {format!r}: table and json are known")
    return format


def ps(given: Given, arguments: Sequence[str]) -> int:
    """The whole table is ps's own (ps(1)), of which the container's lines are kept."""
    format = _format(given)
    id, *options = arguments
    life = common.load(given, id)
    pids = [process.pid for process in processes.of(life)]  # as runc: of what has ended there are none
    if format == "json":
        print(json.dumps(pids))
        return 0
    import subprocess

    argv = ["ps", *(options or ["-ef"])]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InvalidOption(f"ps cannot be run ({error.strerror}); --format json does without it") from None
    if done.returncode != 0:
        raise InvalidOption(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise InvalidOption(f"{' '.join(argv)}: couldn't find PID field in ps output")
    place = head.split().index("PID")
    print(head)
    for line in lines:
        fields = line.split()
        if len(fields) > place and fields[place].isdecimal() and int(fields[place]) in pids:
            print(line)
    return 0

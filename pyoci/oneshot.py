"""``pyoci.run``: subprocess.run for containers.

The container's stdio are our own pipes (conmon's ``passthrough`` log driver hands its stdio on), so that conmon is not in the way of the
data and no log is written. Whatever stands on stderr before the start is the runtime's, not the program's.
"""

from __future__ import annotations

import os
import subprocess
from codecs import lookup_error
from time import perf_counter_ns

from pyoci import ids, lifecycle, rootfs, runtimes, spec
from pyoci.errors import CreateError, Error, InvalidOption, OutputTooLong, Timeout
from pyoci.observing import observed
from pyoci.options import CALLER, path
from pyoci.process import Descriptor
from pyoci.runtime import RuntimeBase
from pyoci.streams import DEVNULL, PIPE, STDOUT, Pump, descriptor, pipe
from pyoci.templates import prepare
from pyoci.waiting import deadline_in, drive, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, TypeAlias, TypedDict, Unpack

    from pyoci.lifecycle import Host, Life
    from pyoci.networks import Network
    from pyoci.options import Options
    from pyoci.templates import Template
    from pyoci.waiting import Operation
    from pyoci.warm import Claim, PoolBase

    Source: TypeAlias = "New | Claim"

    class TemplateOptions(TypedDict, total=False):
        """Those options of run() that say what a container is like, whatever it runs."""

        rootfs: str | os.PathLike[str] | None
        cwd: str | None
        env: Mapping[str, str] | None
        user: str | int | None
        mounts: Sequence[str | Mapping[str, Any]]
        hostname: str | None
        memory: int | str | None
        pids: int | None
        cpus: float | None
        read_only: bool | None
        network: str | Network | None
        runtime: str | os.PathLike[str] | RuntimeBase | None
        state_dir: str | os.PathLike[str] | None
        monitor: str | None

    class RunOptions(TemplateOptions, total=False):
        """The options of run(); ``plan`` says what each means."""

        input: bytes | str | None
        stdin: Any
        stdout: Any
        stderr: Any
        text: bool
        encoding: str | None
        errors: str | None
        timeout: float | None
        check: bool
        max_output: int | None
        id: str | None
        pool: PoolBase | None
        on_start: Callable[[], object] | None


class CompletedProcess(subprocess.CompletedProcess["Any"]):
    """What subprocess.run returns, and more. ``returncode`` is the container's exit code, ``-N`` if signal N killed it (None: nobody knows);
    127: there is no such program in the container, 126: it cannot be executed.

    ``id``: the container's id. ``oom_killed``: the kernel killed something in it for lack of memory. ``timings``: seconds for ``create``,
    ``start``, ``wait``, ``delete`` and ``total``."""

    def __init__(
        self,
        args: Sequence[str],
        returncode: int | None,
        stdout: Any,
        stderr: Any,
        *,
        id: str,
        oom_killed: bool,
        timings: dict[str, float],
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)  # type: ignore[arg-type]
        self.id = id
        self.oom_killed = oom_killed
        self.timings = timings

    def check_returncode(self) -> None:
        """Raises RunFailed, which is also a subprocess.CalledProcessError, unless the exit code is 0."""
        if self.returncode != 0:
            raise RunFailed(self)


class RunFailed(Error, subprocess.CalledProcessError):
    """``check=True`` and another exit code than 0. ``completed`` is what run() would have returned."""

    def __init__(self, completed: CompletedProcess) -> None:
        subprocess.CalledProcessError.__init__(self, completed.returncode, completed.args, completed.stdout, completed.stderr)
        self.completed = completed

    def __str__(self) -> str:
        if self.returncode is None:
            return f"the container of {self.cmd!r:.400}, {self.completed.id!r}, ended, and nobody knows how"
        return subprocess.CalledProcessError.__str__(self)


class RunTimeout(Timeout, subprocess.TimeoutExpired):  # type: ignore[misc]
    """The container, ``id``, was killed at the timeout. ``stdout`` and ``stderr`` hold what it had written by then."""

    def __init__(self, args: Sequence[str], timeout: float, stdout: Any, stderr: Any, *, id: str) -> None:
        Timeout.__init__(self, f"{list(args)!r:.400} took longer than {timeout:g} s; its container {id!r} was killed", timeout)
        self.id: str = id
        self.cmd: list[str] = list(args)
        self.stdout = stdout
        self.stderr = stderr

    def __str__(self) -> str:
        return str(self.args[0])


class Stdio(Pump):
    """The container's three streams: their far ends for conmon, our ends to feed and to drain.

    conmon refuses terminals with passthrough, so a terminal of the caller's is served through a pipe as well. stderr always is: before the
    start it is the runtime that writes there, and what it says is wanted even where the program's own words go elsewhere."""

    def __init__(self, input: bytes | None, stdin: Any, stdout: Any, stderr: Any, limit: int | None) -> None:
        super().__init__(limit)
        if type(stdin) is int and stdin == PIPE:
            raise InvalidOption("stdin=PIPE: nobody could write to it while run() waits: give input=, or use OCIRuntime.create")
        self._words = bytearray()  # the runtime's, on their way to an stderr that is not captured
        self._started = False
        self._theirs: list[Descriptor] = []
        self.fds: list[int] = [-1, -1, -1]
        if input is None:
            # Nothing by default, rather than ours: a container is no part of our terminal's session.
            self.fds[0] = descriptor(DEVNULL if stdin is None else stdin, 0)
        is_terminal = self.fds[0] >= 0 and os.isatty(self.fds[0])
        if input is not None or is_terminal:
            ours, far = pipe(0)
            self._theirs.append(far)
            self.feed(ours, input or b"", self.fds[0] if is_terminal else -1)
            self.fds[0] = far.fd
        self.fds[1] = self._output(stdout, 1)
        self.fds[2] = self.fds[1] if stderr == STDOUT else self._output(stderr, 2)

    def _output(self, wanted: Any, number: int) -> int:
        to = -1 if wanted == PIPE else descriptor(wanted, number)
        if wanted != PIPE and number == 1 and (to < 0 or not os.isatty(to)):
            return to
        ours, far = pipe(number)
        self._theirs.append(far)
        if wanted == PIPE:
            self.capture(number, ours)
        else:
            self.forward(ours, to)
        return far.fd

    def close_theirs(self) -> None:
        """Once conmon has them: otherwise the pipes would never end."""
        for end in self._theirs:
            end.close()

    def forwarding(self, data: bytes) -> None:
        if not self._started:
            self._words += data

    def started(self) -> None:
        """From here on it is the program that writes."""
        self.close_theirs()
        self._started = True

    def words(self) -> bytes:
        """What the runtime said when it could not create the container."""
        self.close_theirs()
        self.drain_all()
        return self.result(2) or bytes(self._words) or self.result(1) or b""

    def close(self) -> None:
        self.close_theirs()
        super().close()


class Text:
    """How output is told: as bytes, or as text as subprocess decodes it."""

    def __init__(self, text: bool, encoding: str | None, errors: str | None) -> None:
        self.encoding: str | None = encoding or ("utf-8" if text or errors else None)
        self.errors: str = errors or "strict"
        if self.encoding is not None:
            try:
                "".encode(self.encoding, self.errors)
                lookup_error(self.errors)
            except (LookupError, TypeError):
                raise InvalidOption(f"encoding={encoding!r:.200}, errors={errors!r:.200}: see the module codecs for what there is") from None

    def encode(self, input: bytes | str | None) -> bytes | None:
        if isinstance(input, str):
            if self.encoding is None:
                raise InvalidOption("input is a str: give bytes, or text=True")
            try:
                return input.encode(self.encoding, self.errors)
            except UnicodeEncodeError as error:
                raise InvalidOption(f"input cannot be encoded: {error}; give bytes, or errors=") from None
        if input is not None and not isinstance(input, bytes | bytearray | memoryview):
            raise InvalidOption(f"input must be bytes, or a str with text=True, not {type(input).__name__}")
        return input

    def decode(self, data: bytes | None, errors: str | None = None) -> Any:
        if data is None or self.encoding is None:
            return data
        return data.decode(self.encoding, errors or self.errors).replace("\r\n", "\n").replace("\r", "\n")


_hosts: dict[tuple[str | None, str | None], Host] = {}


def _host(runtime: str | os.PathLike[str] | RuntimeBase | None, state_dir: str | os.PathLike[str] | None) -> Host:
    """The runtime as given, or made once per process for this name and state directory."""
    if isinstance(runtime, RuntimeBase):
        if state_dir is not None:
            raise InvalidOption("state_dir belongs to the runtime object that was given; leave one of them out")
        return runtime._host
    key = (None if runtime is None else path("runtime", runtime), None if state_dir is None else path("state_dir", state_dir))
    if key not in _hosts:
        _hosts[key] = RuntimeBase(runtime, state_dir=state_dir)._host
    return _hosts[key]


def plan(
    args: Sequence[str],
    *,
    rootfs: str | os.PathLike[str] | None = None,
    input: bytes | str | None = None,
    stdin: Any = None,
    stdout: Any = PIPE,
    stderr: Any = PIPE,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    timeout: float | None = None,
    check: bool = False,
    max_output: int | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    user: str | int | None = None,
    mounts: Sequence[str | Mapping[str, Any]] = (),
    hostname: str | None = None,
    memory: int | str | None = None,
    pids: int | None = None,
    cpus: float | None = None,
    read_only: bool | None = None,
    network: str | Network | None = None,
    id: str | None = None,
    runtime: str | os.PathLike[str] | RuntimeBase | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    monitor: str | None = None,
    pool: PoolBase | None = None,
    on_start: Callable[[], object] | None = None,
) -> Operation[CompletedProcess]:
    """Checks the options of run() and gives the operation; nothing has been started by then."""
    args = spec.arguments(args)
    if input is not None and stdin is not None:
        raise InvalidOption("input and stdin cannot both be given")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0):
        raise InvalidOption(f"timeout must be a number of seconds, not {timeout!r:.200}")
    if on_start is not None and not callable(on_start):
        raise InvalidOption(f"on_start must be something that can be called, not {on_start!r:.200}")
    manner = Text(text, encoding, errors)
    fed = manner.encode(input)
    template: dict[str, Any] = {
        "rootfs": rootfs,
        "user": user,
        "mounts": mounts,
        "hostname": hostname,
        "memory": memory,
        "pids": pids,
        "cpus": cpus,
        "read_only": read_only,
        "network": network,
        "runtime": runtime,
        "state_dir": state_dir,
        "monitor": monitor,
    }
    source: Source
    if pool is None:
        checked_id = ids.new() if id is None else ids.check(id)
        host, prepared_template, how = prepared(args, cwd=cwd, env=env, **template)
        stdio = Stdio(fed, stdin, stdout, stderr, max_output)  # last, because it opens descriptors; from here on the operation closes them
        try:
            options = host.options(log_driver="passthrough", log_path=None, stdio=stdio.fds, **how)
        except BaseException:
            stdio.close()
            raise
        source = New(host, checked_id, prepared_template, options, args)
    else:
        fixed = [name for name, value in {**template, "id": id}.items() if value not in (None, ())]
        if fixed:
            raise InvalidOption(f"{', '.join(fixed)}: what comes from a warm pool was created before, as the pool says; give it to WarmPool")
        stdio = Stdio(fed, stdin, stdout, stderr, max_output)
        try:
            source = pool._claiming(args, env, cwd, stdio.fds)
        except BaseException:
            stdio.close()
            raise
    return _operation(source, list(args), stdio, timeout, check, manner, on_start or (lambda: None))


def prepared(
    args: Sequence[str],
    *,
    runtime: str | os.PathLike[str] | RuntimeBase | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    monitor: str | None = None,
    rootfs: str | os.PathLike[str] | None = None,
    read_only: bool | None = None,
    cwd: str | None = None,
    network: str | Network | None = None,
    **options: Any,
) -> tuple[Host, Template, dict[str, Any]]:
    """What these options mean: where and how a container is created, and from which template."""
    host = _host(runtime, state_dir)
    if isinstance(network, bytes | os.PathLike):
        raise InvalidOption(f"network must be text or a network, not {network!r:.200}: give a path as str")
    config = spec.build(
        args,
        rootfs=_rootfs(rootfs),
        read_only=read_only,
        cwd="/" if cwd is None else cwd,
        network=network if isinstance(network, str) else "private",
        **options,
    )
    if (monitor or host.defaults.get("monitor")) == CALLER:
        raise InvalidOption("monitor='caller': run() waits for the end, which only this process or conmon would learn")
    how: dict[str, Any] = {"bound": True}
    if monitor is not None:
        how["monitor"] = monitor
    if network is not None:
        how["network"] = None if isinstance(network, str) else network
    return host, prepare(config), how


def _rootfs(given: str | os.PathLike[str] | None) -> str:
    return rootfs.builtin() if given is None else path("rootfs", given)


class New:
    """Where a command's container comes from: created for it. (Or from a warm pool: ``warm.Claim``.)"""

    __slots__ = ("_args", "_host", "_options", "_template", "id")

    def __init__(self, host: Host, id: str, template: Template, options: Options, args: Sequence[str]) -> None:
        self.id: str = id
        self._host = host
        self._template = template
        self._options = options
        self._args = args

    @property
    def runtime_name(self) -> str:
        return self._host.runtime.name

    def create(self, deadline: int) -> Operation[Life]:
        return lifecycle.create(self._host, self.id, self._template, self._options, deadline)

    def start(self, life: Life, _deadline: int) -> Operation[Life]:
        yield from lifecycle.start(life)
        return life

    def refused(self, error: CreateError, said: bytes) -> int:
        """The exit code, as shells have it, when it is the program that the runtime does not like; else raises CreateError. What the runtime
        said went where the program's stderr goes."""
        program = self._args[0]
        code = runtimes.says_program(said, program)
        if code is None:
            silent = f"without a word: is {self._host.runtime.path} an OCI runtime?".encode()
            raise CreateError(f"creating {self.id!r}: the runtime failed", said or error.stderr or silent) from None
        if code == 126 and program.startswith("/") and not os.path.lexists(self._template.config["root"]["path"] + program):
            return 127
        return code


@observed("run", lambda source, *_: (source.id, source.runtime_name))
def _operation(
    source: Source,
    args: list[str],
    stdio: Stdio,
    timeout: float | None,
    check: bool,
    manner: Text,
    on_start: Callable[[], object],
) -> Operation[CompletedProcess]:
    """The whole life of one short container. Nothing is left of it at the end, whatever the end is."""
    began = at = perf_counter_ns()
    deadline = deadline_in(timeout)
    timings: dict[str, float] = {}
    life: Life | None = None

    def lap(phase: str) -> None:
        nonlocal at
        now = perf_counter_ns()
        timings[phase], at = (now - at) / 1e9, now
        timings["total"] = (now - began) / 1e9

    def completed(code: int | None, *, oom_killed: bool = False) -> CompletedProcess:
        out, err = manner.decode(stdio.result(1)), manner.decode(stdio.result(2))
        return CompletedProcess(args, code, out, err, id=source.id, oom_killed=oom_killed, timings=timings)

    def partial() -> tuple[Any, Any]:
        return manner.decode(stdio.result(1), "replace"), manner.decode(stdio.result(2), "replace")

    try:
        try:
            life = yield from source.create(deadline)
            lap("create")
            life = yield from source.start(life, deadline)
        except Timeout:
            if passed(deadline) and timeout is not None:
                raise RunTimeout(args, timeout, *partial(), id=source.id) from None
            raise
        except CreateError as error:
            code = source.refused(error, stdio.words())
            lap("create")
            result = completed(code)
        else:
            stdio.started()
            lap("start")
            on_start()
            killed_for = yield from _attend(life, stdio, deadline)
            status = yield from lifecycle.wait(life, None)
            stdio.drain_all()
            lap("wait")
            yield from lifecycle.delete(life, force=False)
            lap("delete")
            if killed_for == "timeout" and timeout is not None:
                raise RunTimeout(args, timeout, *partial(), id=source.id)
            if killed_for == "output" or stdio.over_limit():
                raise OutputTooLong(f"{args!r:.400} wrote more than {stdio.limit} bytes; its container {source.id!r} was killed", *partial())
            result = completed(-status.signal if status.signal else status.code, oom_killed=status.oom_killed)
    except BaseException:
        if life is not None:
            yield from lifecycle.leave(life, failed=True)
        raise
    finally:
        stdio.close()
        if life is not None:
            life.close()
    if check:
        result.check_returncode()
    return result


def _attend(life: Life, stdio: Stdio, deadline: int) -> Operation[str | None]:
    """Feeds and drains until the container's init is dead; tells why it had to be killed, if it had to."""
    init = life.init
    assert init is not None  # it was created here
    ready: set[int] = set()
    while init.pidfd not in ready:
        if passed(deadline) or stdio.over_limit():
            why = "output" if stdio.over_limit() else "timeout"
            yield from lifecycle.stop(life, 0, None)
            return why
        ready = yield stdio.wait((init.pidfd,), deadline)
        stdio.serve(ready)
    return None


def run(args: Sequence[str], **options: Unpack[RunOptions]) -> CompletedProcess:
    """Runs a command in a new container, waits for its end, removes the container, and returns a CompletedProcess: as subprocess.run does,
    with the output captured unless told otherwise.

    ``args``: the command, a list of strings. ``rootfs``: a directory with the container's root file system; None takes a small built-in one
    made from this machine's static busybox, read-only. ``input``: bytes (str with ``text``) for its stdin, which is empty otherwise.
    ``stdin``, ``stdout``, ``stderr``: DEVNULL, a descriptor or a file; None for our own stdout and stderr; stderr=STDOUT joins the two.
    ``text``, ``encoding``, ``errors``: output as str. ``timeout``: seconds after which the container is killed; RunTimeout then keeps the
    output so far. ``check``: RunFailed unless the exit code is 0. ``max_output``: bytes of each stream; more ends it with OutputTooLong.

    ``cwd``, ``env``, ``user``, ``mounts``, ``hostname``, ``memory``, ``pids``, ``cpus``, ``read_only``: see ``spec.build``. ``network``:
    "private", "host" or a path, as there; or a ``NetworkNamespace``, a ``NetworkPool`` or a ``Bridge``; None: the runtime object's, else "private".
    ``id``, ``runtime`` (a name, a path, or an OCIRuntime), ``state_dir``: see ``OCIRuntime``. ``monitor``: "conmon" or "direct", see
    ``options.Options``; None: the runtime object's. ``on_start``: called, without arguments, when the
    container has been started. ``pool``: a WarmPool to take the container from; ``env`` is then added to what the pool's containers have, and what
    makes a container (``rootfs``, ``memory``, ``runtime`` …) is the pool's to say.

    A program that does not exist in the container gives 127 and one that cannot be executed 126, with the runtime's words on stderr. Raises
    InvalidOption, InvalidSpec and what ``OCIRuntime.create`` raises; nothing is left behind."""
    return drive(plan(args, **options))


def check_names(options: Iterable[str]) -> None:
    """Raises TypeError, as a call would, for a name that is no option of run()."""
    known = plan.__kwdefaults__ or {}
    for name in options:
        if name not in known:
            from difflib import get_close_matches

            close = get_close_matches(name, known, 1)
            raise TypeError(f"run() has no option {name!r}{f'; did you mean {close[0]!r}?' if close else ''}")


plan.__qualname__ = "run"  # which is what somebody called who reads of an unexpected argument
# help() and inspect.signature() show the options one by one.
run.__wrapped__ = plan  # type: ignore[attr-defined]

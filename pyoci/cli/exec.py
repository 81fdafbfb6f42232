"""``pyoci exec``."""

from __future__ import annotations

from pyoci.cli import UsageError
from pyoci.cli.output import print_json
from pyoci.cli.shared import command_of, container_of, environment, exit_code, json_lines, one_id, preserved, state_dir, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from pyoci.container import ExecSession
    from pyoci.waiting import Operation


def arguments(parser: argparse.ArgumentParser) -> None:
    from argparse import REMAINDER

    parser.usage = "pyoci exec [options] ID [--] CMD [ARG …]"
    parser.epilog = "Examples:\n  pyoci exec -it job-7 sh\n  pyoci exec -e A=b -w /tmp job-7 -- env"
    state_dir(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="print the session's id and leave the program running, without input and output")
    parser.add_argument("-i", "--interactive", action="store_true", help="pass our stdin on; else the program reads nothing")
    parser.add_argument("-t", "--tty", action="store_true", help="a terminal for it")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="environment; NAME alone takes ours (repeatable)")
    parser.add_argument("-w", "--cwd", metavar="DIR", help="working directory (default: the container's)")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help="names or numbers (default: the container's)")
    parser.add_argument("--cap", action="append", default=[], metavar="CAP", help="one more capability (repeatable)")
    parser.add_argument("--no-new-privs", action="store_true", default=None, help="no privileges by set-user-ID programs")
    parser.add_argument("--preserve-fds", type=int, default=0, metavar="N", help="pass on N descriptors of ours, from 3 on")
    parser.add_argument("--session-id", metavar="ID", help="the session's id; else a new one")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the program after this time; the exit code is then 124")
    json_lines(parser, "capture its output, and print one object at the end: session, code, signal, stdout, stderr")
    one_id(parser)
    parser.add_argument("command", nargs=REMAINDER, metavar="CMD …", help="the command and its arguments")


def main(options: argparse.Namespace) -> int:
    from pyoci.options import seconds
    from pyoci.streams import DEVNULL, PIPE

    command = command_of(options.command)
    if not command:
        raise UsageError("exec needs a command: pyoci exec [options] ID [--] CMD [ARG …]")
    if options.json and (options.tty or options.detach):
        raise UsageError("--json captures the output: it is not for --tty and --detach")
    if options.detach and (options.tty or options.interactive or options.timeout is not None):
        raise UsageError("--detach leaves the program alone: --tty, --interactive and --timeout are not for it")
    if options.timeout is not None:
        seconds("--timeout", options.timeout)
    output = DEVNULL if options.detach else PIPE if options.json else None
    given = {
        "cwd": options.cwd,
        "env": environment(options.env),
        "user": options.user,
        "capabilities": options.cap,
        "no_new_privs": options.no_new_privs,
        "preserve_fds": preserved(options),
        "session_id": options.session_id,
    }
    container = container_of(options)
    if options.tty:
        from pyoci import terminal
        from pyoci.cli.attaching import attended_exec

        session = container.exec(command, tty=True, size=terminal.size(), **given)
        return attended_exec(session, interactive=options.interactive, timeout=options.timeout)
    stdin = 0 if options.interactive else DEVNULL
    session = container.exec(command, stdin=stdin, stdout=output, stderr=output, **given)
    return left_alone(session) if options.detach else seen_through(session, options)


def left_alone(session: ExecSession) -> int:
    from pyoci.execs import FIRST_LOOK
    from pyoci.waiting import Wait, deadline_in, drive

    def begun() -> Operation[None]:
        """The runtime tells nobody when the program runs: looked for as ``execs`` does."""
        while session.pid is None and session.poll() is None:
            yield Wait((session.fileno(),), (), deadline_in(FIRST_LOOK))

    drive(begun())
    status = session.exit_status
    if status is not None and status.code in (126, 127) and session.runtime_words:
        return refused(session, status.code)
    try:
        print(session.id, flush=True)
    except OSError:
        session.stop(0)  # nobody knows of it
        raise
    return 0


def seen_through(session: ExecSession, options: argparse.Namespace) -> int:
    from pyoci.cli.signals import Passing
    from pyoci.terminal import Interrupted

    out, err = None, None
    try:
        with Passing(session.kill):
            out, err = session.communicate(timeout=options.timeout)
    except Interrupted as interrupt:
        session.stop(0)
        return 128 + interrupt.signal
    status = session.wait()
    if options.json:
        words = {"stdout": (out or b"").decode("utf-8", "replace"), "stderr": (err or b"").decode("utf-8", "replace")}
        print_json({"session": session.id, **told(status), **words})
    if options.json and status.code in (126, 127) and session.runtime_words:
        return refused(session, status.code)  # else the runtime has said it on our stderr
    return exit_code(session.id, status.code)


def refused(session: ExecSession, code: int) -> int:
    from pyoci.cli import complain
    from pyoci.errors import ExecError

    complain(ExecError(f"the program of exec session {session.id!r} could not be started", session.runtime_words))
    return code

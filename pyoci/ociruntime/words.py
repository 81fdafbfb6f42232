"""The words of the command line: verbs, options, and reading them as runc does (urfave/cli, on Go's flag package): ``--name VALUE``,
``--name=VALUE``, one dash or two, switches with ``=true`` or ``=false``. argparse knows neither that nor the messages, and costs more to import
than all of this. Pure."""

from __future__ import annotations

from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SWITCH, TEXT, NUMBER, LIST = "", "VALUE", "N", "VALUE …"
"""The kinds of options."""

Options = dict[str, str]
"""name → kind; ``alias|name`` gives both."""

GLOBAL: Options = {
    "root": TEXT,
    "log": TEXT,
    "log-format": TEXT,
    "systemd-cgroup": SWITCH,
    "cgroup-manager": TEXT,
    "debug": SWITCH,
    "rootless": TEXT,
    "runtime": TEXT,
    "v|version": SWITCH,
}

_CREATE: Options = {
    "b|bundle": TEXT,
    "f|config": TEXT,
    "pid-file": TEXT,
    "console-socket": TEXT,
    "preserve-fds": NUMBER,
    "no-pivot": SWITCH,
    "no-new-keyring": SWITCH,
}

_EXEC: Options = {
    "p|process": TEXT,
    "d|detach": SWITCH,
    "t|tty": SWITCH,
    "console-socket": TEXT,
    "pid-file": TEXT,
    "cwd": TEXT,
    "e|env": LIST,
    "u|user": TEXT,
    "g|additional-gids": LIST,
    "c|cap": LIST,
    "no-new-privs": SWITCH,
    "apparmor": TEXT,
    "process-label": TEXT,
    "preserve-fds": NUMBER,
    "cgroup": LIST,
    "ignore-paused": SWITCH,
}


class Verb:
    """``shape``: of the arguments, of which there are ``least`` to ``most``. ``lacking``: options that runc has. ``mixed``: options may follow
    arguments. ``spread``: its function takes the arguments one by one."""

    __slots__ = ("about", "lacking", "least", "mixed", "most", "options", "shape", "spread")

    def __init__(
        self,
        shape: str,
        about: str,
        options: Options | None = None,
        *,
        least: int = 1,
        most: int = 1,
        lacking: Sequence[str] = (),
        mixed: bool = True,
        spread: bool = True,
    ) -> None:
        self.shape: str = shape
        self.about: str = about
        self.options: Options = options or {}
        self.least: int = least
        self.most: int = most
        self.lacking: Sequence[str] = lacking
        self.mixed: bool = mixed
        self.spread: bool = spread


MANY = 1 << 20

VERBS: dict[str, Verb] = {
    "create": Verb("ID", "create a container; its program waits for start", _CREATE, lacking=["pidfd-socket"]),
    "run": Verb("ID", "create and start one", {**_CREATE, "d|detach": SWITCH}, lacking=["pidfd-socket", "no-subreaper", "keep"]),
    "start": Verb("ID", "start the program of one that was created"),
    "state": Verb("ID", "print its state, as the runtime-spec has it, in JSON"),
    "kill": Verb("ID [SIGNAL]", "send a signal (TERM) to its first process", {"a|all": SWITCH}, most=2),
    "delete": Verb("ID", "remove one that has stopped", {"f|force": SWITCH}),
    "exec": Verb("ID [COMMAND …]", "run another program in one", _EXEC, most=MANY, lacking=["pidfd-socket"], mixed=False, spread=False),
    "list": Verb("", "list the containers of this root", {"f|format": TEXT, "q|quiet": SWITCH}, least=0, most=0),
    "ps": Verb("ID [OPTION OF ps …]", "list the processes in one", {"f|format": TEXT}, most=MANY, mixed=False, spread=False),
    "pause": Verb("ID", "freeze its processes"),
    "resume": Verb("ID", "thaw them"),
    "spec": Verb("", "write a config.json to begin with", {"b|bundle": TEXT, "rootless": SWITCH}, least=0, most=0),
    "features": Verb("", "print what the runtime below can do, in JSON", least=0, most=0),
}
LACKING = ("checkpoint", "restore", "events", "update")


class Given:
    """What was given, by the options' names."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        self._values.setdefault(name, []).append(value)

    def __iter__(self) -> Iterator[str]:
        """The names of what was given."""
        return iter(self._values)

    def update(self, others: Given) -> None:
        """What both know is ours."""
        self._values = {**others._values, **self._values}

    def flag(self, name: str) -> bool:
        return self.text(name) == "true"

    def text(self, name: str) -> str | None:
        """The last one; None when it was not given."""
        return self._values[name][-1] if name in self._values else None

    def number(self, name: str) -> int:
        value = self.text(name) or "0"
        if not (value.isascii() and value.isdecimal() and len(value) < 6):
            raise InvalidOption(f"--{name} must be a whole number, not {value!r:.200}")
        return int(value)

    def texts(self, name: str) -> list[str]:
        return self._values.get(name, [])


def parse(words: Sequence[str], options: Mapping[str, str], *, mixed: bool, lacking: Sequence[str] = (), verb: str = "") -> tuple[Given, list[str]]:
    """(options, arguments). Raises InvalidOption."""
    known = {alias: (names.rpartition("|")[2], kind) for names, kind in options.items() for alias in names.split("|")}
    known |= {"h": ("help", SWITCH), "help": ("help", SWITCH)}
    given, arguments = Given(), list[str]()
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return given, arguments + left
        if len(word) < 2 or word[0] != "-":
            arguments.append(word)
            if not mixed:
                return given, arguments + left
            continue
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name in lacking:
            raise InvalidOption(f'"{verb}" has no --{name} here, which runc has')
        if name not in known:
            raise InvalidOption(f"flag provided but not defined: -{name}")
        name, kind = known[name]
        if kind == SWITCH:
            if equals and value.lower() not in ("true", "false", "1", "0"):
                raise InvalidOption(f"--{name} is true or false, not {value!r:.200}")
            value = "false" if equals and value.lower() in ("false", "0") else "true"
        elif not equals:
            if not left:
                raise InvalidOption(f"flag needs an argument: -{name}")
            value = left.pop(0)
        given.add(name, value)
    return given, arguments


def usage(name: str) -> str:
    verb = VERBS[name]
    lines = [f"NAME:\n   pyoci-runtime {name} - {verb.about}\n", f"USAGE:\n   pyoci-runtime {name} [OPTION …] {verb.shape}".rstrip()]
    return "\n".join([*lines, *_table(verb.options)])


def overview() -> str:
    lines = ["NAME:\n   pyoci-runtime - the command line of an OCI runtime, by pyoci\n", "USAGE:\n   pyoci-runtime [OPTION …] VERB …"]
    width = max(map(len, VERBS))
    lines += ["\nVERBS:", *(f"   {name:<{width}}  {verb.about}" for name, verb in VERBS.items())]
    return "\n".join([*lines, *_table(GLOBAL)])


def _table(options: Mapping[str, str]) -> list[str]:
    shown = [f"   {', '.join(('--' if len(n) > 1 else '-') + n for n in names.split('|')[::-1])} {kind}".rstrip() for names, kind in options.items()]
    return ["\nOPTIONS:", *shown] if shown else []


def version() -> str:
    """As tools read it: the name and the version in the first line, the version of the runtime-spec in the second."""
    from pyoci import __version__
    from pyoci.spec import VERSION

    return f"pyoci-runtime version {__version__}\nspec: {VERSION}"

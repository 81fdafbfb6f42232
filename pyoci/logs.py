"""What a container has written, from where conmon keeps it: a file in Kubernetes' format, or the journal.

conmon writes a line of the file for each line of output, or several when it got the line in pieces: ``TIME stdout|stderr P|F TEXT``, where P says
that more of the line follows. An entry here is the whole line. At its size limit (``log_size_max``) conmon renames a new file over the old one,
which a follower reads to its end first.
"""

from __future__ import annotations

import os
import re
from collections import deque

from pyoci import _ffi
from pyoci.errors import InvalidOption, StateDirError
from pyoci.process import Descriptor
from pyoci.streams import read_now
from pyoci.waiting import NEVER, Wait, deadline_in, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import Any, TypedDict

    from pyoci.lifecycle import Life
    from pyoci.waiting import Operation

    class LogOptions(TypedDict, total=False):
        """The options of ``Container.logs``; ``reader`` says what each means."""

        follow: bool
        tail: int | None
        since: datetime | float | None
        stream: str | None


STREAMS = ("stdout", "stderr")
CHUNK = 64 * 1024
LONGEST = 1024 * 1024
"""Bytes of one entry: a line that has grown longer is told in parts."""
LAST_WORDS = 2.0
"""Seconds after the container's end in which its conmon must have written what is left, and ended."""
JOURNAL_LAG = 0.5
"""Seconds after conmon's end in which the journal must have taken its messages in; nobody tells."""
LOOK_AGAIN = 0.1
"""Seconds, where no inotify instance is to be had (fs.inotify.max_user_instances): the file is looked at as often."""

LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP])(?::\S*)?(?: |$)", re.ASCII)


class LogEntry:
    """A line of output. ``time_ns``: when conmon read it (its end), in nanoseconds since the epoch. ``stream``: "stdout" or "stderr" (a terminal's
    is stdout). ``data``: its bytes, without the newline. ``is_whole``: it had one; False for the last words of a program that ended without, and
    for parts of a line of more than 1 MiB."""

    __slots__ = ("data", "is_whole", "stream", "time_ns")

    def __init__(self, time_ns: int, stream: str, data: bytes, is_whole: bool = True) -> None:
        self.time_ns: int = time_ns
        self.stream: str = stream
        self.data: bytes = data
        self.is_whole: bool = is_whole

    @property
    def text(self) -> str:
        """Its text; what is not UTF-8 stands there as U+FFFD."""
        return self.data.decode("utf-8", "replace")

    @property
    def time(self) -> datetime:
        """In UTC, to the microsecond."""
        from datetime import UTC, datetime, timedelta

        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self.time_ns // 1000)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogEntry) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int, str, bytes, bool]:
        return self.time_ns, self.stream, self.data, self.is_whole

    def __repr__(self) -> str:
        return f"LogEntry({self.time.isoformat()}, {self.stream}, {self.data!r})"


def parse_line(line: bytes) -> tuple[int, str, bytes, bool] | None:
    """(nanoseconds, stream, text, whether the line of output ends here) of a line of the file; None for what conmon has not written."""
    match = LINE.match(line)
    if match is None:
        return None
    seconds = _seconds(match[1], match[3])
    if seconds is None:
        return None
    return seconds * 1_000_000_000 + int((match[2] or b"0").ljust(9, b"0")), match[4].decode(), line[match.end() :], match[5] == b"F"


_last_time: tuple[tuple[bytes, bytes], int | None] = ((b"", b""), None)


def _seconds(moment: bytes, zone: bytes) -> int | None:
    """Since the epoch; the last answer is kept, because many lines come in one second."""
    global _last_time
    if _last_time[0] != (moment, zone):
        from datetime import datetime

        try:
            seconds = int(datetime.fromisoformat((moment + zone).decode()).timestamp())
        except (ValueError, OverflowError):
            seconds = None
        _last_time = (moment, zone), seconds
    return _last_time[1]


def reader(life: Life, *, follow: bool = False, tail: int | None = None, since: datetime | float | None = None, stream: str | None = None) -> Reader:
    """Reads a container's log. ``follow``: goes on with what is written from now on, until the container has ended and all is read. ``tail``: only
    the last so many entries of what is there; the beginning is not read. ``since``: only entries from then on: a datetime with a time zone, or
    seconds since the epoch. ``stream``: only "stdout", or only "stderr".

    Raises InvalidOption, also where the container keeps no log, StateDirError when the log cannot be opened."""
    if tail is not None and (type(tail) is not int or tail < 0):
        raise InvalidOption(f"tail must be a whole number from 0 on, not {tail!r:.200}")
    if stream is not None and stream not in STREAMS:
        raise InvalidOption(f'stream must be "stdout" or "stderr", not {stream!r:.200}')
    kind = {"k8s-file": FileReader, "journald": JournalReader}.get(life.log_driver)
    if kind is None:
        raise InvalidOption(f"the container {life.id!r} keeps no log: its log_driver is {life.log_driver!r}, and k8s-file or journald is needed")
    return kind(life, follow is True, tail, _since_ns(since), stream)


reader.__qualname__ = "logs"  # which is what somebody called who reads of an unexpected argument


def _since_ns(since: datetime | float | None) -> int:
    if since is None:
        return 0
    if isinstance(since, int | float):
        if not isinstance(since, bool) and abs(since) < 1e11:
            return int(since * 1_000_000_000)
    elif getattr(since, "tzinfo", None) is not None:
        return int(since.timestamp() * 1_000_000) * 1000
    raise InvalidOption(f"since must be a datetime with a time zone, or seconds since the epoch, not {since!r:.200}")


class Reader:
    """Reads entries in batches; where they come from is the subclass's."""

    def __init__(self, life: Life, follow: bool, tail: int | None, since_ns: int, stream: str | None) -> None:
        self._life = life
        self._follow = follow
        self._since_ns = since_ns
        self._stream = stream
        self._pieces: dict[str, tuple[int, bytearray]] = {}
        self._tail = None if tail is None else deque[LogEntry](maxlen=tail)  # while what is there already is read
        self._deadline = NEVER  # for the last words, once the container has ended
        self._is_over = False

    def more(self) -> Operation[list[LogEntry]]:
        """The next entries, waiting for them when following; none at the end."""
        while not self._is_over:
            ended = self._has_ended()
            entries, at_end = self._read()
            if at_end and (ended or not self._follow):
                self._is_over = True
                entries += self._rest()
            if self._tail is not None:
                self._tail.extend(entries)
                entries = list(self._tail) if at_end else []
                self._tail = None if at_end else self._tail
            if entries:
                return entries
            if at_end and not self._is_over:
                yield self._wait()
        self.close()
        return []

    def _read(self) -> tuple[list[LogEntry], bool]:
        """Entries, and whether there are no more of them now."""
        raise NotImplementedError

    def _watched(self) -> int:
        """What becomes readable with more entries; -1: nothing, look again after LOOK_AGAIN."""
        raise NotImplementedError

    def close(self) -> None:
        self._is_over = True

    def _has_ended(self) -> bool:
        """Nothing more will be written: the container has ended, and its conmon has, or takes too long."""
        life = self._life
        if life.removed or life.init is None:
            return True
        if not life.init.has_ended():
            return False
        if self._deadline == NEVER:
            self._deadline = deadline_in(LAST_WORDS)
        return life.conmon is None or life.conmon.has_ended() or passed(self._deadline)

    def _wait(self) -> Wait:
        life, watched = self._life, self._watched()
        awaited = life.init if life.init is not None and not life.init.has_ended() else life.conmon
        fds = [fd for fd in (watched, -1 if awaited is None else awaited.pidfd) if fd >= 0]
        return Wait(fds, (), deadline_in(LOOK_AGAIN) if watched < 0 else self._deadline)

    def _joined(self, time_ns: int, stream: str, data: bytes, is_whole: bool) -> Iterator[LogEntry]:
        """The entry that a piece completes, if it does."""
        if time_ns < self._since_ns or self._stream not in (None, stream):
            return
        _, pieces = self._pieces.get(stream, (0, bytearray()))
        pieces += data
        if is_whole or len(pieces) > LONGEST:
            self._pieces.pop(stream, None)
            yield LogEntry(time_ns, stream, bytes(pieces), is_whole)
        else:
            self._pieces[stream] = time_ns, pieces

    def _rest(self) -> list[LogEntry]:
        """Lines that were never ended."""
        left = [LogEntry(time_ns, stream, bytes(pieces), is_whole=False) for stream, (time_ns, pieces) in self._pieces.items()]
        self._pieces.clear()
        return sorted(left, key=lambda entry: entry.time_ns)


class FileReader(Reader):
    """Of conmon's file. What is no line of conmon's, as after a full disk, is passed over."""

    def __init__(self, life: Life, follow: bool, tail: int | None, since_ns: int, stream: str | None) -> None:
        super().__init__(life, follow, tail, since_ns, stream)
        self._path = life.log_path
        self._line = b""
        self._watch: Descriptor | None = None
        try:
            self._file = self._open()
        except StateDirError:
            life.check_current()
            raise
        if tail is not None:
            os.lseek(self._file.fd, start_of_tail(self._file.fd, tail, stream), os.SEEK_SET)

    def _open(self) -> Descriptor:
        try:
            file = Descriptor(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY))
        except OSError as error:
            raise StateDirError(error.errno, f"opening the log of {self._life.id!r}, {self._path}: {error.strerror}", self._path) from None
        if self._follow:
            try:
                self._watch = Descriptor(_ffi.watch_file(file.fd))
            except OSError:
                self._watch = None  # every instance is taken
        return file

    def _read(self) -> tuple[list[LogEntry], bool]:
        if self._watch is not None:
            read_now(self._watch)  # what it has told so far, before we look: so nothing is missed
        chunk = os.read(self._file.fd, CHUNK)
        entries: list[LogEntry] = []
        if chunk:
            *lines, self._line = (self._line + chunk).split(b"\n")
            if len(self._line) > LONGEST:
                self._line = b""
            for line in lines:
                if (piece := parse_line(line)) is not None:
                    entries += self._joined(*piece)
        return entries, not chunk and not (self._follow and self._begins_anew())

    def _begins_anew(self) -> bool:
        """At the end of a file: another one has taken its place, or it has become shorter."""
        ours = os.fstat(self._file.fd)
        try:
            named = os.stat(self._path)
            if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
                self._file = self._open()
                self._line = b""
                return True
        except (FileNotFoundError, StateDirError):
            return False  # removed: what was written to it has been read
        if ours.st_size < os.lseek(self._file.fd, 0, os.SEEK_CUR):
            os.lseek(self._file.fd, 0, os.SEEK_SET)
            self._line = b""
            return True
        return False

    def _watched(self) -> int:
        return -1 if self._watch is None else self._watch.fd

    def close(self) -> None:
        super().close()
        self._file.close()
        if self._watch is not None:
            self._watch.close()


class JournalReader(Reader):
    """Of the journal, through systemd-python (the extra ``journal``). Messages of an earlier container with this id are left out."""

    def __init__(self, life: Life, follow: bool, tail: int | None, since_ns: int, stream: str | None) -> None:
        try:
            from systemd import journal
        except ImportError:
            raise InvalidOption(
                "reading a log from the journal needs systemd-python: install pyoci-runtime[journal], or Debian's python3-systemd"
            ) from None
        try:
            born_ns = os.stat(f"{life.directory}/config.json").st_mtime_ns
        except FileNotFoundError:
            born_ns = 0
        super().__init__(life, follow, tail, max(since_ns, born_ns), stream)
        self._silent_until = NEVER
        try:
            self._journal: Any = journal.Reader(flags=journal.LOCAL_ONLY | journal.SYSTEM)
            self._event_fd: int = self._journal.fileno()
        except OSError as error:
            raise StateDirError(error.errno or 0, f"opening the journal for the log of {life.id!r}: {error.strerror}") from None
        self._journal.add_match(CONTAINER_ID_FULL=life.id)
        self._journal.seek_realtime(self._since_ns / 1e9)

    def _read(self) -> tuple[list[LogEntry], bool]:
        self._journal.process()
        entries: list[LogEntry] = []
        for _ in range(1000):
            message = self._journal.get_next()
            if not message:
                return entries, True
            entries += self._joined(*journal_piece(message))
        return entries, False

    def _has_ended(self) -> bool:
        if not super()._has_ended():
            return False
        if self._silent_until == NEVER:
            self._silent_until = deadline_in(JOURNAL_LAG)
        return passed(self._silent_until)

    def _wait(self) -> Wait:
        if self._silent_until != NEVER:
            return Wait((self._event_fd,), (), self._silent_until)
        return super()._wait()

    def _watched(self) -> int:
        return self._event_fd

    def close(self) -> None:
        super().close()
        self._journal.close()


def journal_piece(message: dict[str, Any]) -> tuple[int, str, bytes, bool]:
    """As ``parse_line``, of a message of conmon's: PRIORITY 3 is stderr, CONTAINER_PARTIAL_MESSAGE says that more follows."""
    text = message.get("MESSAGE", "")
    data = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
    time_ns = int(message["__REALTIME_TIMESTAMP"].timestamp() * 1_000_000) * 1000
    stream = "stderr" if message.get("PRIORITY") == 3 else "stdout"
    return time_ns, stream, data.removesuffix(b"\n"), message.get("CONTAINER_PARTIAL_MESSAGE") != "true"


def start_of_tail(fd: int, tail: int, stream: str | None) -> int:
    """Where to begin to read a log, so that its last ``tail`` entries are told whole: behind the end of the one before them, or where a line of
    the other stream began that was not ended there. Reads backwards from the end, no more than is needed."""
    size = os.fstat(fd).st_size
    pieces = re.compile(rb"^\S+ (%s) ([FP])(?:[: ].*)?\n" % (stream.encode() if stream else b"stdout|stderr"), re.MULTILINE)
    window = CHUNK
    while True:
        start = max(size - window, 0)
        content = os.pread(fd, size - start, start)
        first = content.find(b"\n") + 1 if start else 0  # of the whole lines
        found = [(match.end(), match[1], match[2] == b"F") for match in pieces.finditer(content, first)]
        ends = deque((i for i, (_, _, is_end) in enumerate(found) if is_end), maxlen=tail + 1)
        if len(ends) > tail:
            # For each stream, the start of the line that it was in by then. One that began before the window is cut: nobody can tell how far.
            unended: dict[bytes, int] = {}
            at = found[ends[0]][0]
            before = first
            for end, name, is_end in found[: ends[0] + 1]:
                if is_end:
                    unended.pop(name, None)
                else:
                    unended.setdefault(name, before)
                before = end
            return start + min(at, *unended.values()) if unended else start + at
        if start == 0:
            return 0
        window *= 4

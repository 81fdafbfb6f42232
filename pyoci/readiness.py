"""Readiness: telling whoever waits for a container that it is ready (sd_notify(3)).

The runtime, whose ``start`` waits for the container's READY=1, passes it on and ends at once. That does not always reach systemd, which looks
a sender up by its pid: nobody of that pid may be left by then, and with NotifyAccess=main, which is what a unit of Type=notify has, only its main
process counts. So it is said once more, by this process, and waited for.
"""

from __future__ import annotations

import os

from pyoci.process import Descriptor
from pyoci.waiting import Wait, deadline_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.waiting import Operation

TIMEOUT = 2.0
"""Seconds for whoever listens to read it. systemd takes a millisecond."""


def tell(path: str) -> Operation[None]:
    """Sends READY=1 to this notification socket (``@``: an abstract name), and waits until it has been read (sd_notify_barrier(3)). Who does not
    listen any more has heard it of the runtime."""
    import socket

    try:
        ours, theirs = map(Descriptor, os.pipe2(os.O_CLOEXEC))
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            sender.connect(f"\0{path[1:]}" if path.startswith("@") else path)
            sender.send(b"READY=1", socket.MSG_NOSIGNAL)
            socket.send_fds(sender, [b"BARRIER=1"], [theirs.fd], socket.MSG_NOSIGNAL)
    except OSError as error:
        import logging

        logging.getLogger("pyoci").debug("READY=1 was not said once more to %s: %s", path, error.strerror)
        return
    with ours:
        yield Wait((ours.fd,), (), deadline_in(TIMEOUT))

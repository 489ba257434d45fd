"""PID 1 of a container that an OCI runtime starts a job in: it collects orphans and knows whether any is left.

Its PID namespace must belong to the job's user namespace: a runtime joins that one first, and has no right over the
PID namespace of the host's root afterwards (setns(2); runc before 1.2 knows no other order). So it is born by a child
that has entered the user namespace, and is nothing but a user of it: no capability, no descriptor but its socket, an
empty directory as its root, undumpable, the job's filter on itself.

    monitor                                   reaper (PID 1)
       ├──────────── begin ──────────────────►│  the one that bore it has left, so the monitor is its parent
       │      ◄───── done, or ! errno ────────┤  confined
       ├──────────── alone? ─────────────────►│
       │      ◄───── 1 or 0 ──────────────────┤  whether no process is left but itself
"""

import os
import signal
import socket

from dayfly.jobs.errors import HostError
from dayfly.runtime import init, syscalls
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.shape import Privileges
from dayfly.runtime.title import set_title
from dayfly.runtime.users import ROOT

_BEGIN, _DONE, _FAILED, _ALONE, _YES, _NO = b"b", b"d", b"!", b"?", b"1", b"0"
_NOTHING = Privileges(capabilities=0)


class Reaper:
    """PID 1 as the monitor sees it, whose child it is."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._socket = connection

    @classmethod
    def fork(cls, namespaces: Namespaces, ids: IdMap, program: bytes) -> "Reaper":
        """Have PID 1 born in the stage's empty directory. Raises `HostError`.

        The caller must be the reaper of orphans below itself (PR_SET_CHILD_SUBREAPER).
        """
        own, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _bear(namespaces, ids, its, program)
        its.close()
        first = int(_heed(own))
        os.waitpid(pid, 0)
        own.send(_BEGIN)
        _heed(own)
        return cls(first, own)

    def fork_within(self) -> int:
        """os.fork(), the child being born into its PID namespace."""
        own, its = (os.open(f"/proc/{who}/ns/pid", os.O_RDONLY | os.O_CLOEXEC) for who in ("self", self.pid))
        syscalls.setns(its, syscalls.CLONE_NEWPID)
        pid = os.fork()
        if pid:
            syscalls.setns(own, syscalls.CLONE_NEWPID)
        os.close(own)
        os.close(its)
        return pid

    def is_alone(self) -> bool:
        """Whether no process of the job is left; no, if it was killed itself."""
        try:
            self._socket.send(_ALONE)
            return self._socket.recv(1) == _YES
        except OSError:  # EPIPE, ECONNRESET: it is dying, and all others with it
            return False

    def end(self) -> None:
        """Kill it, and so every process of the job; returns when all are gone (pid_namespaces(7)).

        It goes last, after those of its namespace that are the caller's children: these are reaped here too.
        """
        os.kill(self.pid, signal.SIGKILL)
        while os.wait()[0] != self.pid:
            pass


def _heed(own: socket.socket) -> bytes:
    """What the other side says. Raises `HostError` when it is how it failed, or nothing."""
    said = own.recv(16)
    if not said or said.startswith(_FAILED):
        number = int(said[1:] or 0) or None
        raise HostError("make the first process of the job's PID namespace", None, number, "see `dayfly doctor`")
    return said


def _bear(namespaces: Namespaces, ids: IdMap, connection: socket.socket, program: bytes) -> None:
    """Leave for the job's user namespace, bear PID 1 there, tell its number, end. Never returns."""
    try:
        init.close_all_but(connection.fileno(), namespaces.user)
        os.chroot("empty")
        os.chdir("/")
        init.become_container_root(namespaces, ids)
        syscalls.unshare(syscalls.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            _reap(ids, connection, program)
        else:
            connection.send(b"%d" % pid)
    except OSError as error:
        connection.send(b"%b%d" % (_FAILED, error.errno or 0))
    finally:
        os._exit(0)


def _reap(ids: IdMap, connection: socket.socket, program: bytes) -> None:
    """The life of PID 1. It ends with the monitor, whose end of the socket closes then."""
    set_title("dayfly: init")
    init.close_all_but(connection.fileno())
    connection.recv(1)  # from here on the monitor is its parent, whose death it will hear of
    init.become(ROOT, ids, _NOTHING, program)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects them (wait(2), "NOTES")
    connection.send(_DONE)
    while connection.recv(1) == _ALONE:
        connection.send(_NO if _has_children() else _YES)


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True

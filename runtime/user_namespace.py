"""How an ordinary user's worker comes by the rights that a container takes: a user namespace of its own.

In it the process has every capability, over what belongs to the namespace and over nothing of the host. With newuidmap
and newgidmap (Debian's `uidmap`) and a range in /etc/subuid and /etc/subgid it maps

    0 … 65535   the user's subordinate ids: these are the jobs', as they see them
    65536       the user: this process, and what it keeps below DAYFLY_HOME

so that no id of a job is the user's own. Without them the user's id is all there is (user_namespaces(7) lets anybody
map that one), and it is the job's root as well.

The process stays what it was: same pid, same descriptors, its files are the user's. Its capabilities are ambient ones,
so that they outlive the exec of the launcher (capabilities(7)).
"""

import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from dayfly.jobs.errors import Unsupported
from dayfly.runtime import capabilities, syscalls
from dayfly.runtime.idrange import OWN_ID, RANGE_SIZE, own_id_map
from dayfly.runtime.user_namespace_limits import what_forbids

_STEP = "enter a user namespace"
_ADD_RANGE = "usermod --add-subuids 200000-265535 --add-subgids 200000-265535"
_REMEDY = "see `dayfly doctor`, or run the worker as root"


@dataclass(frozen=True, slots=True)
class Subordinates:
    """A user's ranges of subordinate ids, (first, count) each, of 65,536 ids together."""

    uids: tuple[tuple[int, int], ...]
    gids: tuple[tuple[int, int], ...]


def enter() -> None:
    """Become capable of making containers; nothing to do for root, and the second time.

    Only while this process has one thread. Raises `Unsupported`.
    """
    if os.geteuid() == 0 or own_id_map() is not None:
        return
    found = find_subordinates()
    try:
        if isinstance(found, str):
            _enter_alone()
        else:
            _enter_with(found)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        capabilities.make_ambient()
    except OSError as error:
        raise Unsupported(_STEP, error.filename, error.errno, what_forbids() or _REMEDY) from error


def find_subordinates() -> Subordinates | str:
    """The subordinate ids of this process's user; or why there are none, with the remedy."""
    for program in ("newuidmap", "newgidmap"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install uidmap"
    ranges = [_ranges(path) for path in ("/etc/subuid", "/etc/subgid")]
    for path, found in zip(("/etc/subuid", "/etc/subgid"), ranges, strict=True):
        if sum(count for _, count in found) < RANGE_SIZE:
            return f"{path} has no {RANGE_SIZE} ids for this user: {_ADD_RANGE} {_names()[-1]}"
    return Subordinates(*ranges)


def _ranges(path: str) -> tuple[tuple[int, int], ...]:
    """subuid(5): `NAME:FIRST:COUNT`, or the uid in the name's place. As many as make up what we want."""
    found, missing = [], RANGE_SIZE
    for first, count in _entries(path):
        taken = min(count, missing)
        missing -= taken
        if taken > 0:
            found.append((first, taken))
    return tuple(found)


def _entries(path: str) -> Iterator[tuple[int, int]]:
    names = _names()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if name in names and first.isdecimal() and count.isdecimal():
            yield int(first), int(count)


def _names() -> tuple[str, ...]:
    """What this user may be called there."""
    uid = os.getuid()
    try:
        return str(uid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return (str(uid),)


def _enter_alone() -> None:
    """user_namespaces(7): one's own id may be mapped without a capability, once setgroups(2) has been given up."""
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{OWN_ID} {uid} 1"), ("gid_map", f"{OWN_ID} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _enter_with(subordinates: Subordinates) -> None:
    """The maps are written from outside, by a child that was born before we left."""
    uid_map = _id_map(subordinates.uids, os.getuid())
    gid_map = _id_map(subordinates.gids, os.getgid())
    mapper = _Mapper.fork(os.getpid(), uid_map, gid_map)
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    finally:
        said = mapper.write_maps()
    if said:
        raise Unsupported(_STEP, reason=said, remedy=what_forbids() or _REMEDY)


def _id_map(ranges: tuple[tuple[int, int], ...], own: int) -> list[str]:
    inside, words = 0, []
    for first, count in ranges:
        words += [str(inside), str(first), str(count)]
        inside += count
    return [*words, str(OWN_ID), str(own), "1"]


class _Mapper:
    """A child that stays in the namespace we come from, and runs newuidmap and newgidmap for us there."""

    def __init__(self, pid: int, start_fd: int, report_fd: int) -> None:
        self._pid = pid
        self._start_fd = start_fd
        self._report_fd = report_fd

    @classmethod
    def fork(cls, target: int, uid_map: list[str], gid_map: list[str]) -> "_Mapper":
        (start_r, start_w), (report_r, report_w) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(start_w)
                os.read(start_r, 1)
                os.dup2(report_w, 2)
                _run("newuidmap", target, uid_map)
                _run("newgidmap", target, gid_map)
            finally:
                os._exit(0)
        os.close(start_r)
        os.close(report_w)
        return cls(pid, start_w, report_r)

    def write_maps(self) -> str:
        """Have the maps written; what was said against it, "" when all went well."""
        os.close(self._start_fd)
        with open(self._report_fd, encoding="utf-8", errors="replace") as report:
            said = report.read().strip()
        os.waitpid(self._pid, 0)
        return said


def _run(program: str, target: int, id_map: list[str]) -> None:
    child = os.posix_spawnp(program, [program, str(target), *id_map], os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        os.write(2, f"{program} ended with {status}\n".encode())

"""Runs a command as an ordinary user who does not exist outside of it, and leaves nothing of that user.

    python tests/rootless/as_user.py [--single] [--inside] COMMAND…

--single   the user has no subordinate ids
--inside   in the user namespace that a worker of that user enters, with its capabilities

Everything is made in a mount namespace of its own: /etc/passwd, /etc/subuid and their like are covered there, and so is
root's home, but for the interpreter if it lies below. Where control groups have version 2 the user gets one, as systemd
gives it (`user.delegate`). Started by somebody who is not root, it is that user who runs the command.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import sys
from pathlib import Path
from typing import NoReturn

from dayfly.runtime import syscalls, user_namespace

UID = 12345
NAME = "dayfly-test"
FIRST_SUBORDINATE = 200_000
_PROCESSES = 1500  # what no control group stops must stop somewhere: the tests have fork bombs
_ROOTS_HOME = Path("/root")
_TUN = "/dev/net/tun"
_CGROUPS = Path("/sys/fs/cgroup")
_CLONE = Path(__file__).resolve().parent.parent.parent


def main(words: list[str]) -> None:
    options = set()
    while words and words[0].startswith("--"):
        options.add(words.pop(0))
    if os.geteuid() != 0:
        _execute(words, options)
    group = _CGROUPS / NAME if (_CGROUPS / "cgroup.controllers").exists() else None
    child = os.fork()
    if child == 0:
        _become(group, has_ids="--single" not in options)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
        _execute(words, options)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if group is not None:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # what the user started goes on in it: the last command takes it away
                os.rmdir(directory)
    sys.exit(status if status >= 0 else 128 - status)


def _execute(words: list[str], options: set[str]) -> NoReturn:
    if "--inside" in options:
        user_namespace.enter()
    os.execvp(words[0], words)


def _become(group: Path | None, *, has_ids: bool) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    _close_roots_home()
    _open_tun()
    _cover("/etc/passwd", f"{NAME}:x:{UID}:{UID}::/nonexistent:/bin/sh\n", keeps=True)
    _cover("/etc/group", f"{NAME}:x:{UID}:\n", keeps=True)
    for path in ("/etc/subuid", "/etc/subgid"):
        _cover(path, f"{NAME}:{FIRST_SUBORDINATE}:65536\n" if has_ids else "", keeps=False)
    if group is not None:
        _delegate(group)
    resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def _close_roots_home() -> None:
    """Nobody else may enter it, so what must be seen of it is shown in an empty one."""
    paths = {Path(sys.prefix), Path(sys.base_prefix), _CLONE}
    shown = [path for path in paths if path.is_relative_to(_ROOTS_HOME) and not paths & set(path.parents)]
    trees = {path: syscalls.open_tree(syscalls.AT_FDCWD, str(path), syscalls.OPEN_TREE_CLONE) for path in shown}
    syscalls.mount("tmpfs", str(_ROOTS_HOME), "tmpfs", 0, "mode=755")
    for path, tree in trees.items():
        path.mkdir(parents=True)
        syscalls.move_mount(tree, "", syscalls.AT_FDCWD, str(path), syscalls.MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)


def _open_tun() -> None:
    """As udev has it on every distribution (50-udev-default.rules): for everybody. A machine without udev may not."""
    if os.path.exists(_TUN) and os.stat(_TUN).st_mode & 0o666 != 0o666:
        node = _ROOTS_HOME / "tun"
        os.mknod(node, stat.S_IFCHR, os.stat(_TUN).st_rdev)
        node.chmod(0o666)
        syscalls.mount(str(node), _TUN, None, syscalls.MS_BIND)


def _cover(path: str, text: str, *, keeps: bool) -> None:
    cover = _ROOTS_HOME / Path(path).name
    cover.write_text((Path(path).read_text() if keeps else "") + text)
    cover.chmod(0o644)
    syscalls.mount(str(cover), path, None, syscalls.MS_BIND)


def _delegate(mine: Path) -> None:
    """As systemd does it for a user's manager (org.freedesktop.systemd1, Delegate=yes): cgroups(7), "Delegation"."""
    (mine / "inner").mkdir(parents=True, exist_ok=True)
    os.setxattr(mine, "user.delegate", b"1")
    with contextlib.suppress(OSError):  # the top of the tree may hold processes, as it does here
        (_CGROUPS / "cgroup.subtree_control").write_text("+cpu +memory +pids +io")
    for directory in (mine, mine / "inner"):
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(directory / name, UID, UID)
    (mine / "inner/cgroup.procs").write_text(str(os.getpid()))


main(sys.argv[1:])

"""What is particular to a job that an OCI runtime starts, beyond what the container's own tests say of each."""

from __future__ import annotations

import base64
import hashlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime import capabilities, seccomp
from dayfly.runtime.capabilities import DEFAULT_MASK
from dayfly.runtime.cgroups.devices import STANDARD
from dayfly.runtime.container import Container, Host
from dayfly.runtime.oci.programs import find, version
from dayfly.runtime.rootfs import BUNDLE
from dayfly.runtime.shape import ContainerPlan, Device, Privileges, Process, Secret, Shape

pytestmark = [pytest.mark.kernel, pytest.mark.each_runtime]

Run = Callable[..., Any]
_DEADLINE_SECONDS = 30.0
_I386_GETPID = """
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))  # mov eax, 20; int 0x80; ret
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))())
"""
_FUSE = Device("c", 10, 229, "rw", "/dev/own/fuse")


@pytest.fixture
def start(host: Host, shape: Shape) -> Iterator[Callable[..., Container]]:
    """`start("sh", "-c", "…")`: a container whose command runs."""
    made: list[Container] = []

    def start(*argv: str, values: dict[str, bytes] | None = None, **fields: Any) -> Container:
        container = Container.prepare(host, shape, os.urandom(8).hex())
        made.append(container)
        process = Process(argv=argv, env={"PATH": "/usr/bin:/bin"})
        told = {name: base64.b64encode(value).decode() for name, value in (values or {}).items()}
        assert container.start(ContainerPlan(shape=shape, process=process, **fields), signal.SIGTERM, told) is None
        return container

    yield start
    for container in made:
        container.discard()


def _await(fd: int) -> None:
    assert select.select([fd], [], [], _DEADLINE_SECONDS)[0]


@pytest.mark.parametrize(("content", "code"), [("#!/no/such/interpreter\n", 127), ("\0" * 100, 126), ("\x7fELF", 126)])
def test_what_the_kernel_cannot_execute_is_told(
    run: Run, shape: Shape, tmp_path: Path, content: str, code: int
) -> None:
    """Only execve(2) knows of a missing interpreter or a file of no known kind; a runtime has no word for it."""
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "program").write_text(content)
    (layer / "program").chmod(0o755)
    ran = run("/program", image_layers=(str(layer), *shape.image_layers))
    assert (ran.exit_code, ran.end) == (code, None)


def test_masks_stay_even_for_a_job_that_may_mount(run: Run, host: Host) -> None:
    """They come from a mount namespace of the host root's, so they are locked (mount_namespaces(7))."""
    added = DEFAULT_MASK | capabilities.mask({"SYS_ADMIN"})
    own = Privileges(capabilities=added, filter_path=seccomp.cached(host.home, added))
    script = """
umount /proc/keys; umount -l /proc/keys; umount -R /proc; mount -o remount,rw /proc/sys; mount -o remount,rw,bind /sys
wc -c < /proc/keys; echo 1 > /proc/sys/kernel/domainname || echo read-only
"""
    ran = run("sh", "-c", script, privileges=own)
    assert ran.stdout == "0\nread-only\n", ran.stderr


@pytest.mark.attack("r1")
def test_the_runtimes_program_cannot_be_overwritten(run: Run, host: Host, shape: Shape, tmp_path: Path) -> None:
    """CVE-2019-5736: an entrypoint that is the runtime itself, and a job that looks for it, change nothing of it.

    No control: a runtime executes a copy of itself, and the file is the host root's, whom no job has a name for.
    """
    program = sys.executable if host.oci is None else host.oci.program
    before = hashlib.sha256(Path(program).read_bytes()).hexdigest()
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "evil").symlink_to("/proc/self/exe")
    (layer / "script").write_text("#!/proc/self/exe\n")
    (layer / "script").chmod(0o755)
    look = """
import os
for pid in [name for name in os.listdir("/proc") if name.isdigit() and name != str(os.getpid())]:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        try: print(pid, os.open(f"/proc/{pid}/exe", flags))
        except OSError: pass
"""
    for argv in (("/evil", "init"), ("/script",), ("python3", "-c", look)):
        ran = run(*argv, image_layers=(str(layer), *shape.image_layers))
        assert ran.stdout == ""
    assert hashlib.sha256(Path(program).read_bytes()).hexdigest() == before


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="i386 calls are x86_64's")
@pytest.mark.attack("r15")
def test_i386_calls_are_closed(run: Run, host: Host) -> None:
    """getpid(2) by `int 0x80` is ENOSYS by our own filter; by libseccomp's it is the end of the process."""
    bit = int(run("python3", "-c", _I386_GETPID, privileges=Privileges(capabilities=DEFAULT_MASK)).stdout)
    ran = run("python3", "-c", _I386_GETPID)
    if bit < 0:  # user-mode Linux takes the number for an x86_64 call's
        assert ran.stdout == f"{bit}\n"
    elif host.oci is None:
        assert ran.stdout == "-38\n"
    else:
        assert (ran.stdout, ran.end.signal) == ("", signal.SIGSYS)


def test_a_file_at_stdin_is_read_whole_and_stays_the_hosts(run: Run, tmp_path: Path) -> None:
    """crun would give it to the job's root; what is not read keeps nobody waiting."""
    file = tmp_path / "stdin"
    file.write_bytes(os.urandom(1 << 20))
    ran = run("sha256sum", stdin=str(file), user="1000:1000")
    assert ran.stdout.split()[0] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert run("true", stdin=str(file)).exit_code == 0
    assert (file.stat().st_uid, file.stat().st_gid) == (0, 0)


def test_dev_is_what_we_made_of_it(run: Run, shape: Shape) -> None:
    """Terminals, and /dev/shm of the size that was asked for: no runtime hides or replaces them."""
    script = "import os; os.openpty(); print(os.statvfs('/dev/shm').f_blocks * 4096, sorted(os.listdir('/dev')))"
    ours = "['fd', 'full', 'mqueue', 'null', 'ptmx', 'pts', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', "
    assert run("python3", "-c", script).stdout == f"{shape.shm_bytes} {ours}'urandom', 'zero']\n"


def test_a_stop_is_heard_by_the_whole_process_group(start: Callable[..., Container]) -> None:
    """As Ctrl-C would be."""
    container = start("sh", "-c", "trap 'echo stopped; exit 5' TERM; echo up; while :; do sleep 1; done")
    _await(container.init.stdout)
    container.init.stop()
    _await(container.init.end_fd)
    assert container.init.end().exit_code == 5


def test_a_kill_leaves_no_process(start: Callable[..., Container]) -> None:
    """Whatever left the session and ignores signals is dead when the container's end is told."""
    container = start("sh", "-c", "trap '' TERM; setsid sleep 300 & echo up; sleep 300")
    _await(container.init.stdout)
    container.init.kill()
    _await(container.init.end_fd)
    end = container.init.end()
    container.init.reap()
    assert (end.exit_code, end.signal, end.is_alone) == (None, signal.SIGKILL, False)
    assert container._cgroup.is_empty()


def test_a_killed_first_parent_takes_everything_along(start: Callable[..., Container]) -> None:
    """SIGKILL of the process that stands between keeper and job ends the job and frees what it had mounted."""
    container = start("sh", "-c", "setsid sleep 300 & echo up; sleep 300")
    _await(container.init.stdout)
    os.kill(container.init.pid, signal.SIGKILL)
    _await(container.init.end_fd)
    assert container.init.end().signal == signal.SIGKILL
    assert container._cgroup.wait_empty(time.monotonic() + _DEADLINE_SECONDS)


def test_the_list_of_devices_is_ours(run: Run, host: Host) -> None:
    """A runtime that rewrites the group's list leaves no device in it that we have not put there."""
    ran = run("true", devices=(_FUSE,))
    if host.hierarchy.version == 1:  # version 2 has programs instead, of which every one must agree
        listed = Path(ran.container._cgroup._directories["devices"], "devices.list").read_text()
        ours = {f"{each.major}:{'*' if each.minor is None else each.minor}" for each in (*STANDARD, _FUSE)}
        assert {line.split()[1] for line in listed.splitlines()} == ours


def test_a_device_that_was_given_is_there_from_the_first_moment(run: Run) -> None:
    """While we take out of the list what the runtime has put there, the job runs already."""
    count = (
        "denied=0 n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); true < /dev/own/null || denied=$((denied + 1)); done"
    )
    own = Device("c", 1, 3, "rw", "/dev/own/null")
    assert run("sh", "-c", f"{count}; echo $denied", devices=(own,)).stdout == "0\n"


def test_a_secret_reaches_the_command_and_stays_nowhere(start: Callable[..., Container]) -> None:
    """The bundle in which a runtime was told of it has gone from the set-up's mounts when the command runs."""
    given = Secret(name="token", env="TOKEN")
    container = start("sh", "-c", 'echo "$TOKEN"; sleep 300', secrets=(given,), values={"token": b"canary-\xc3\xa9"})
    _await(container.init.stdout)
    assert os.read(container.init.stdout, 100) == b"canary-\xc3\xa9\n"
    # Ours has its own root there; the host's /run is not on a tmpfs with a bundle in either.
    seen = Path(f"/proc/{container.init.pid}/mountinfo").read_text()
    assert BUNDLE not in seen
    assert not Path(f"/proc/{container.init.pid}/root{BUNDLE}/config.json").exists()


def test_what_json_cannot_hold_is_refused(host: Host, shape: Shape) -> None:
    """A runtime would be told something else. Our own init hands any bytes on."""
    container = Container.prepare(host, shape, os.urandom(8).hex())
    process = Process(argv=("true",), env={"PATH": "/usr/bin:/bin"})
    plan = ContainerPlan(shape=shape, process=process, secrets=(Secret(name="raw", env="RAW"),))
    try:
        refusal = container.start(plan, signal.SIGTERM, {"raw": base64.b64encode(b"\xff").decode()})
        assert (refusal is None) is (host.oci is None)
        if refusal is not None:
            assert refusal.exit_code == 126
            assert refusal.message.startswith("the variable RAW is not UTF-8")
    finally:
        container.discard()


def test_a_runtime_that_fails_is_told_in_its_own_words(host: Host, shape: Shape, tmp_path: Path) -> None:
    """The host's fault, with the program's path and what it said; nothing is left of the attempt."""
    if host.oci is None:
        return
    broken = tmp_path / "broken"
    broken.write_text(
        '#!/bin/sh\nwhile [ "$1" != --log ]; do shift; done\necho \'{"level":"error","msg":"no"}\' > $2\nexit 1'
    )
    broken.chmod(0o755)
    other = replace(host, oci=replace(host.oci, program=str(broken)))
    container = Container.prepare(other, shape, os.urandom(8).hex())
    try:
        with pytest.raises(HostError, match=f"cannot have the job started by {broken}: no$"):
            container.start(ContainerPlan(shape=shape, process=Process(argv=("true",), env={})), signal.SIGTERM)
    finally:
        container.discard()


def test_a_runtime_is_found_by_name_and_path(need_tool: Callable[[str], str]) -> None:
    """By a path of ours, not the caller's; without links, since the runtime sees another /run."""
    program = need_tool("runc")
    assert find("runc") == find(program) == os.path.realpath(program)
    assert version(program).startswith("runc version ")
    for name in ("no-such-runtime", "bin/runc", "/etc/passwd"):
        with pytest.raises(HostError, match="cannot find the OCI runtime"):
            find(name)

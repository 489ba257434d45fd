"""Hosts that lack something: each is a real one, made of this host with mount(2) or seccomp(2) in front of the worker.

A worker that can run jobs in part says so and does; one that can make no container at all says why and ends with 125.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

# Each is a shell script in a mount namespace of its own that ends in the command it was given.
_BEGIN = "set -e; mount --make-rprivate /; "
_END = '; exec "$@"'
# A /dev as in a container: the devices that every program needs and none of the host's.
_NO_LOOPS = """
mount -t tmpfs tmpfs /mnt
for each in null zero full random urandom tty; do touch /mnt/$each; mount --bind /dev/$each /mnt/$each; done
mkdir /mnt/pts /mnt/shm; mount --bind /dev/pts /mnt/pts; mount --bind /dev/shm /mnt/shm
ln -s /proc/self/fd /mnt/fd; ln -s pts/ptmx /mnt/ptmx
mount --move /mnt /dev"""
_NO_MKE2FS = 'for each in /sbin/mke2fs /usr/sbin/mke2fs; do mount --bind /dev/null "$(readlink -f $each)"; done'
_NO_CGROUPS = """
for each in $(grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f5); do mount -o remount,bind,ro $each; done"""
_HOME_ON_OVERLAY = """
mkdir -p "$DAYFLY_HOME"; mount -t tmpfs tmpfs /mnt; mkdir /mnt/u /mnt/w
mount -t overlay overlay -o lowerdir=/usr/lib,upperdir=/mnt/u,workdir=/mnt/w "$DAYFLY_HOME"
"""
# As Docker's own filter has it: no new user namespaces.
_NO_USER_NAMESPACES = """
import os, sys
from dayfly.runtime import bpf, seccomp, syscalls
CLONE_NEWUSER, EPERM = 0x10000000, 1
clone, unshare = (56, 272) if os.uname().machine == "x86_64" else (220, 97)
program = bpf.Program()
allow, refuse = program.result(bpf.ALLOW), program.result(bpf.errno(EPERM))
check = program.load(bpf.argument(0), program.if_any_bit(CLONE_NEWUSER, refuse, allow))
program.load(bpf.NUMBER, program.if_equal(clone, check, program.if_equal(unshare, check, allow)))
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install(program.assemble())
os.execvp(sys.argv[1], sys.argv[1:])
"""

Host = Any


def lacking(*scripts: str) -> list[str]:
    """What to put before a command that shall see a host without these."""
    return ["unshare", "--mount", "sh", "-c", _BEGIN + "\n".join(scripts) + _END, "sh"]


# The embedded stack that the command started may be seen from there only.
_THEN_DOWN = '"$@"; code=$?; "$1" -m dayfly down >/dev/null 2>&1; exit $code'


@pytest.fixture
def dayfly(host: Host) -> Callable[..., Any]:
    """`dayfly(under, "run", …)`: the command on a poor host, to its end; its embedded stack ends with it."""

    def run(under: list[str], *arguments: str) -> Any:
        environment = {name: value for name, value in host.environment.items() if name != "DAYFLY_URL"}
        command = [*under, "sh", "-c", _THEN_DOWN, "sh", sys.executable, "-m", "dayfly", *arguments]
        return subprocess.run(
            command, env=environment, cwd=host.here, check=False, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.fixture
def worker_under(host: Host, dayfly: Callable[..., Any]) -> Callable[[list[str]], Any]:
    """`worker_under(under)`: a worker on a poor host that is to give up, to its end."""
    flags = [part for name, value in host.flags.items() for part in (f"--{name}", value)]
    return lambda under: dayfly(under, "worker", "--url", host.url, *flags)


@pytest.mark.parametrize("under", [lacking(_NO_LOOPS), lacking(_NO_MKE2FS)], ids=["no loop devices", "no mke2fs"])
def test_a_job_without_a_disk_limit_runs_where_none_can_be_enforced_and_says_so(host: Host, under: list[str]) -> None:
    """Unlimited and told, with its artifacts; a stated limit is refused with the reason; nothing is left."""
    host.start(under)
    script = "mkdir -p /opt/made deep/er; echo one > deep/er/file; ln -s / /opt/made/link; head -c 2M /dev/zero > big"
    done = host.dayfly("run", "--json", "--artifact", "deep/**", "--", "sh", "-ec", script)
    result = json.loads(done.stdout)
    assert (result["outcome"], done.returncode) == ("succeeded", 0), done.stderr
    assert any("the job's disk was not limited" in warning for warning in result["warnings"]), result["warnings"]
    assert result["limits"]["disk_bytes"] is None
    assert (host.here / "deep/er/file").read_text() == "one\n"
    refused = host.dayfly("run", "--disk", "64M", "--", "true")
    assert refused.returncode == 125
    assert re.search(r"limits\.disk: this worker cannot enforce it: cannot .*(loop|mke2fs)", refused.stderr)
    assert '"no disk limits"' in host.worker_log.read_text()


def test_what_a_killed_job_leaves_on_a_disk_without_a_limit_is_swept(host: Host) -> None:
    """The disk bears the token of its keeper, whose death the worker sees."""
    host.start(lacking(_NO_LOOPS))
    job = host.submit(script="echo x > /opt/file; sleep 600", retry={"max": 0})
    host.await_state(job, "running")
    disk = host.home / "disks" / json.loads((host.home / "jobs" / job.id / "record.json").read_text())["token"]
    host.until((disk / "root/upper/opt/file").exists)
    os.kill(host.keeper_of(job.id), signal.SIGKILL)
    assert job.wait(60).outcome == "lost"
    host.until(lambda: not disk.exists() and not os.listdir(host.home / "trash"))


def test_files_of_a_job_on_a_disk_without_a_limit_belong_to_the_job(host: Host) -> None:
    """Owners are mapped as on the other kind of disk, and the root is copy-on-write."""
    host.start(lacking(_NO_LOOPS))
    script = "stat -c %u:%g /tmp . ; touch /opt/made; chown 7:8 /opt/made; stat -c %u:%g /opt/made"
    done = host.dayfly("run", "--", "sh", "-ec", script)
    assert done.stdout.split() == ["0:0", "0:0", "7:8"], done.stderr
    assert not Path("/opt/made").exists()


_FAULTS = {
    "cgroups are read-only": (lacking(_NO_CGROUPS), r"cgroup.*[Rr]ead-only file system; .*mount it read-write"),
    "no user namespaces": (
        [sys.executable, "-c", _NO_USER_NAMESPACES],
        r"make the job's user, network, IPC and UTS namespaces: Operation not permitted; see `dayfly doctor`",
    ),
    "home on overlayfs": (
        lacking(_HOME_ON_OVERLAY, _NO_LOOPS),
        r"map the owners of the job's disk below DAYFLY_HOME: Invalid argument; have DAYFLY_HOME on ext4",
    ),
}


@pytest.mark.parametrize(("under", "said"), _FAULTS.values(), ids=_FAULTS)
def test_a_host_that_can_make_no_container_says_why(worker_under: Any, under: list[str], said: str) -> None:
    """The worker ends with 125 and one line that names the remedy, and takes its things with it."""
    done = worker_under(under)
    assert done.returncode == 125, done.stderr
    assert re.search(rf"^dayfly: .*{said}", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("under", "said"), _FAULTS.values(), ids=_FAULTS)
def test_run_does_not_wait_for_a_host_that_can_make_no_container(dayfly: Any, under: list[str], said: str) -> None:
    """The embedded worker's reason is the client's, with 125."""
    done = dayfly(under, "run", "--", "true")
    assert done.returncode == 125, done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def kernel_without_overlay() -> None:
    """Only a kernel that was built or booted so: nothing in front of a program can take a file system away."""
    if "\toverlay\n" in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has overlay; tests/guest/test_guest.py boots one that has not")


@pytest.mark.usefixtures("kernel_without_overlay")
def test_a_kernel_without_overlay_is_named(dayfly: Any, worker_under: Any) -> None:
    """By the worker, by run with the embedded one, and by doctor."""
    said = r"mount an overlay of 1 layers at root.*: No such device; this kernel lacks the file system"
    for done in (worker_under([]), dayfly([], "run", "--", "true")):
        assert done.returncode == 125, done.stderr
        assert re.search(said, done.stderr), done.stderr
        assert "Traceback" not in done.stderr
    found = json.loads(dayfly([], "doctor", "--json").stdout)
    assert "overlay" in {each["name"] for each in found if each["verdict"] == "missing"}


@pytest.mark.parametrize(("under", "said"), _FAULTS.values(), ids=_FAULTS)
def test_doctor_names_what_is_missing(dayfly: Any, under: list[str], said: str) -> None:
    """Before any job does: something is missing, with a remedy, and the exit code is 1."""
    done = dayfly(under, "doctor", "--json")
    missing = {each["name"] for each in json.loads(done.stdout) if each["verdict"] == "missing"}
    assert done.returncode == 1
    assert missing & {"control groups", "namespaces", "disk without limit"}, done.stdout

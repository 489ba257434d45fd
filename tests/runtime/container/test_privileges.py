"""What the switches of a job open, and that they open no more than that."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime import capabilities, loop, seccomp
from dayfly.runtime.capabilities import DEFAULT_MASK, NUMBERS
from dayfly.runtime.container import Host
from dayfly.runtime.shape import Device, Privileges

pytestmark = pytest.mark.kernel

Run = Callable[..., Any]
_EVERYTHING = (1 << len(NUMBERS)) - 1
_PRIVILEGED = {"is_privileged": True, "privileges": Privileges(capabilities=_EVERYTHING, gains=True)}
_SETS = "grep -E '^Cap|NoNewPrivs|Seccomp:' /proc/self/status"
_FUSE = Device("c", 10, 229, "rw", "/dev/own/fuse")


def _status(text: str) -> dict[str, int]:
    return {name: int(value, 16) for name, value in (line.split(":\t") for line in text.splitlines())}


def _only(host: Host, names: set[str], **more: Any) -> Privileges:
    mask = capabilities.mask(names)
    return Privileges(capabilities=mask, filter_path=seccomp.cached(host.home, mask), **more)


@pytest.mark.each_runtime
def test_a_dropped_capability_is_gone_from_every_set(run: Run, host: Host) -> None:
    """cap_drop: root without CHOWN cannot chown, and without any capability is an ordinary user of id 0."""
    ran = run("sh", "-c", f"{_SETS}; chown 7 /tmp", privileges=_only(host, {"KILL"}))
    status = _status(ran.stdout)
    kill = capabilities.mask({"KILL"})
    assert [status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")] == [kill, kill, kill, 0, 0]
    assert (status["NoNewPrivs"], status["Seccomp"]) == (1, 2)
    assert "Operation not permitted" in ran.stderr
    assert run("chown", "7", "/tmp").exit_code == 0


@pytest.mark.each_runtime
def test_an_added_capability_opens_its_system_calls(run: Run, host: Host) -> None:
    """cap_add: SYS_ADMIN over its own namespaces, and the filter lets its calls through; the mounts stay."""
    added = _only(host, {*(name for name in NUMBERS if DEFAULT_MASK >> NUMBERS[name] & 1), "SYS_ADMIN"})
    script = "hostname other && hostname; unshare -m mount -t tmpfs x /tmp && echo mounted; mount -t tmpfs x /tmp"
    ran = run("sh", "-c", script, privileges=added)
    assert ran.stdout == "other\nmounted\n"
    # Of our own, the mounts are the host root's. A runtime makes the job a mount namespace of its own.
    assert ("permission denied" in ran.stderr.lower()) is (host.oci is None)
    assert run("hostname", "other").exit_code != 0


@pytest.mark.each_runtime
def test_a_user_who_is_not_root_has_what_was_added_by_name(run: Run, host: Host) -> None:
    """As Podman gives it: ambient, so that it survives the execve; and nothing of root's default set."""
    bind = capabilities.mask({"NET_BIND_SERVICE"})
    own = _only(host, {"NET_BIND_SERVICE", "CHOWN"}, ambient=bind)
    script = "import socket; socket.create_server(('127.0.0.1', 80)); print(open('/proc/self/status').read())"
    ran = run("python3", "-c", script, user="1000:1000", privileges=own)
    status = _status("\n".join(line for line in ran.stdout.splitlines() if line.startswith("Cap")))
    assert {status[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {bind}
    assert run("python3", "-c", script, user="1000:1000").exit_code == 1


@pytest.mark.each_runtime
def test_unconfined_is_without_the_filter_and_nothing_else(run: Run) -> None:
    """seccomp: unconfined opens calls; capabilities, no_new_privs and the owners stay as they are."""
    ran = run("sh", "-c", f"{_SETS}; unshare -U id -u", privileges=Privileges(capabilities=DEFAULT_MASK))
    *status, inner = ran.stdout.splitlines()
    seen = _status("\n".join(status))
    assert (seen["Seccomp"], seen["NoNewPrivs"], seen["CapEff"], inner) == (0, 1, DEFAULT_MASK, "65534")
    assert run("unshare", "-U", "id", "-u").exit_code != 0


@pytest.mark.each_runtime
def test_a_privileged_job_can_nest_containers(run: Run) -> None:
    """Namespaces of its own within, with a /proc and a tmpfs that it mounts: what a container builder needs."""
    script = "unshare -mpf sh -c 'mount -t proc proc /proc && mount -t tmpfs tmpfs /tmp && echo $$ && touch /tmp/x'"
    ran = run("sh", "-c", script, **_PRIVILEGED)
    assert ran.stdout == "1\n", ran.stderr
    assert run("sh", "-c", script).exit_code != 0


@pytest.mark.host_root("its ids are others; tests/rootless asks from outside")
@pytest.mark.each_runtime
def test_a_privileged_job_is_not_the_hosts_root(run: Run) -> None:
    """No device, no kernel setting, no look at its init, no clock, no other limits: all of it is the host's."""
    script = """
id -u; cat /proc/self/uid_map | awk '{print ($2 > 1000000)}'
for path in sys/kernel/core_pattern sys/vm/drop_caches sysrq-trigger 1/mem
do echo x > /proc/$path && echo wrote $path; done
cat /proc/kmsg /proc/1/environ && echo read
mknod /tmp/mem c 1 1 && echo made
unshare -mC sh -c 'mount -t cgroup2 x /mnt && echo max > /mnt/pids.max && echo unlimited'
unshare -mC sh -c 'mount -t cgroup -o pids x /mnt && echo max > /mnt/pids.max && echo unlimited'
date -s 2001-01-01 >/dev/null && echo set
"""
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    ran = run("sh", "-c", script, **_PRIVILEGED)
    assert ran.stdout == "0\n1\n"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


@pytest.mark.each_runtime
def test_a_privileged_job_sees_what_others_have_masked(run: Run) -> None:
    """Nothing is hidden and setuid programs count: as far as it is the job's, it is its own to change."""
    script = "wc -c < /proc/cmdline; echo 1 > /proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward"
    size, forwards = run("sh", "-c", script, **_PRIVILEGED).stdout.split()
    assert (int(size) > 0, forwards) == (True, "1")
    masked = run("sh", "-c", script)
    assert (masked.stdout, "Read-only" in masked.stderr or "read-only" in masked.stderr) == ("0\n", True)


@pytest.mark.each_runtime
def test_setuid_programs_count_in_a_privileged_job_only(run: Run) -> None:
    """sudo works there; everywhere else no_new_privs and nosuid say no."""
    script = """
import os, shutil
shutil.copy("/usr/bin/id", "/tmp/id"); os.chmod("/tmp/id", 0o4755)
os.setgid(7); os.setuid(7); os.execv("/tmp/id", ["id", "-u"])
"""
    assert run("python3", "-c", script, **_PRIVILEGED).stdout == "0\n"
    assert run("python3", "-c", script).stdout == "7\n"


@pytest.mark.host_root("devices are given by host root, which alone lists them")
@pytest.mark.each_runtime
@pytest.mark.parametrize("user", ["", "1000:1001"])
def test_a_device_is_the_jobs_users_and_no_one_elses(run: Run, host: Host, user: str) -> None:
    """Its node belongs to the job's user whatever the host's says; without it there is none."""
    script = (
        "stat -c '%u:%g %a %t:%T' /dev/own/fuse; (exec 3<>/dev/own/fuse) && echo open; echo > /dev/null && echo null"
    )
    ran = run("sh", "-c", script, user=user, devices=(_FUSE,))
    if "No such device" in ran.stderr:  # the kernel has no fuse: the node was there all the same
        assert "open" not in ran.stdout
    else:
        assert "open" in ran.stdout
    assert ran.stdout.splitlines()[0] == f"{user or '0:0'} 660 a:e5"
    assert "null" in ran.stdout
    assert run("ls", "/dev/own").exit_code != 0


@pytest.mark.host_root("devices are given by host root, which alone lists them")
@pytest.mark.each_runtime
def test_standard_devices_and_terminals_work_beside_a_list(run: Run) -> None:
    """null, zero, random and a pseudo terminal open for a job with devices as for any other."""
    look = """
import os, pty
for name in ("null", "zero", "full", "random", "urandom"):
    os.open(f"/dev/{name}", os.O_RDONLY)
pty.openpty()
print(sorted(os.listdir("/dev")))
"""
    listed = run("python3", "-c", look, devices=(_FUSE,)).stdout
    assert "'own'" in listed
    assert listed.replace("'own', ", "") == run("python3", "-c", look).stdout


@pytest.fixture
def loop_device(tmp_path: Path, lacks: Callable[[str], None]) -> Iterator[str]:
    """A block device of 1 MiB that begins with `canary`; detached by the kernel when it is closed."""
    if not os.path.exists("/dev/loop-control"):
        lacks("loop devices")
    backing = tmp_path / "disk"
    backing.write_bytes(b"canary".ljust(1 << 20, b"\0"))
    with open(backing, "r+b") as file:
        fd, device = loop.attach(file.fileno(), "dayfly:test")
    yield device
    os.close(fd)


@pytest.mark.host_root("devices are given by host root, which alone lists them")
def test_a_block_device_reaches_its_job_and_not_another(run: Run, loop_device: str) -> None:
    """A disk of the host given to one job: it reads the host's bytes and writes them; the next job has none of it."""
    number = os.stat(loop_device).st_rdev
    disk = Device("b", os.major(number), os.minor(number), "rw", "/dev/disk")
    assert stat.S_ISBLK(os.stat(loop_device).st_mode)
    script = "head -c 6 /dev/disk; printf DAYFLY | dd of=/dev/disk conv=notrunc status=none"
    assert run("sh", "-c", script, devices=(disk,)).stdout == "canary"
    assert Path(loop_device).read_bytes()[:6] == b"DAYFLY"
    assert run("head", "-c", "6", "/dev/disk").exit_code == 1


@pytest.mark.host_root("devices are given by host root, which alone lists them")
def test_a_device_for_reading_is_not_written_to(run: Run, loop_device: str) -> None:
    """Not even after the job's root has changed the node's mode, which it may: the list holds."""
    number = os.stat(loop_device).st_rdev
    disk = Device("b", os.major(number), os.minor(number), "r", "/dev/disk")
    look = "stat -c %a /dev/disk; chmod 666 /dev/disk; head -c 6 /dev/disk; echo x >> /dev/disk"
    ran = run("sh", "-c", look, devices=(disk,))
    assert ran.stdout == "440\ncanary"
    assert "Operation not permitted" in ran.stderr


@pytest.mark.host_root("devices are given by host root, which alone lists them")
def test_a_list_does_not_open_what_the_filter_closes(run: Run) -> None:
    """A job with devices cannot make nodes: mknod(2) is the host root's, whatever `m` says."""
    maker = Device("c", 1, 7, "rwm", "/dev/x")
    look = "import os\ntry: os.mknod('/tmp/y', 0o20666, os.makedev(1, 7))\nexcept OSError as error: print(error.errno)"
    assert run("python3", "-c", look, devices=(maker,)).stdout == f"{errno.EPERM}\n"

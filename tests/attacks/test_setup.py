"""What an image or a job can try while its container is being made: R1 to R14 of the list in docs/security.md."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime import capabilities, container, users

pytestmark = pytest.mark.kernel

Attack = Callable[..., Any]
Run = Callable[..., Any]


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _layer(tmp_path: Path, name: str = "layer") -> Path:
    layer = tmp_path / name
    layer.mkdir()
    return layer


def test_r1_the_workers_program_cannot_be_overwritten(
    attack: Attack, run: Run, tally: Any, tmp_path: Path, shape: Any
) -> None:
    """CVE-2019-5736: an entrypoint that is /proc/self/exe, and a job that looks for it, change nothing of it."""
    layer = _layer(tmp_path)
    (layer / "evil").symlink_to("/proc/self/exe")
    (layer / "script").write_text("#!/proc/self/exe\n")
    (layer / "script").chmod(0o755)
    program = """
tries_all = []
for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
    for flags in (os.O_RDONLY, os.O_WRONLY):
        tries_all.append(tries(os.open, f"/proc/{pid}/exe", flags) if pid == "1" else -1)
tell([each for each in tries_all if each != -1])
"""
    before = _sha256(sys.executable)
    layers = (str(layer), *shape.image_layers)
    for name in ("/evil", "/script"):
        run(name, "-c", "import os; os.open('/proc/self/exe', os.O_WRONLY)", image_layers=layers)
    held = attack(program)
    bit = attack(program, without=("undumpable", "user namespace", "capabilities", "bounding"))
    assert _sha256(sys.executable) == before
    tally.judge(held=held == [errno.EACCES] * 2, bit=bit[0] == 0, seen=(held, bit))


def test_r2_no_descriptor_of_the_worker_is_inherited(attack: Attack, tally: Any, tmp_path: Path) -> None:
    """CVE-2024-21626: a directory left open and inheritable is not among the job's descriptors."""
    program = "tell([fd for fd in range(3, 1024) if tries(os.fstat, fd) == 0])"
    fd = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        held, bit = attack(program), attack(program, without=("close_range",))
    finally:
        os.close(fd)
    tally.judge(held=held == [], bit=fd in bit, seen=(held, bit))


@pytest.mark.each_runtime
@pytest.mark.parametrize("cwd", ["/proc/self/fd/7", "/proc/1/cwd", "/proc/self/cwd/../../..", "/proc/1/root/etc/.."])
def test_r2_a_working_directory_outside_is_refused(run: Run, cwd: str) -> None:
    """CVE-2024-21626: a working directory by way of /proc is refused, or lies inside."""
    ran = run("sh", "-c", "pwd; stat -c %d /", cwd=cwd)
    if ran.refusal is None:
        assert "unreachable" not in ran.stdout
        assert ran.stdout.split()[1] != str(os.stat("/").st_dev)
    else:
        assert ran.refusal.exit_code == 126


@pytest.mark.each_runtime
@pytest.mark.parametrize("point", ["proc", "sys", "dev"])
def test_r5_r6_links_at_mount_points_lead_nowhere(
    attack: Attack, tally: Any, tmp_path: Path, shape: Any, point: str
) -> None:
    """CVE-2019-19921, CVE-2026-41579: /proc, /sys or /dev as a link to the host is covered, not followed."""
    canary = tmp_path / "canary"
    canary.mkdir()
    layer = _layer(tmp_path)
    (layer / point).symlink_to(canary)
    program = f"tell(os.path.islink('/{point}'))"
    layers = (str(layer), *shape.image_layers)
    held = attack(program, image_layers=layers)
    assert list(canary.iterdir()) == []
    real = container.layout
    with pytest.MonkeyPatch.context() as patch:  # a disk without the points, so that the image's own are there
        patch.setattr(
            container, "layout", lambda trees: tuple(each for each in real(trees) if each.path != f"root/upper/{point}")
        )
        try:
            bit = attack(program, image_layers=layers)
        except HostError as error:
            bit = str(error)
    tally.judge(held=held is False, bit=bit is not False, seen=(held, bit))


@pytest.mark.each_runtime
def test_r9_capabilities_do_not_come_back(attack: Attack, tally: Any, tmp_path: Path, shape: Any) -> None:
    """CVE-2022-24769: a program with file capabilities, of the image or of the job's making, gives a user nothing."""
    capability, revision, effective = 1 << capabilities.NUMBERS["NET_BIND_SERVICE"], 0x02000000, 1
    value = struct.pack("<5I", revision | effective, capability, capability, 0, 0)
    layer = _layer(tmp_path)
    shutil.copy(os.path.realpath("/usr/bin/python3"), layer / "able")
    os.setxattr(layer / "able", "security.capability", value)
    program = f"""
import shutil
shutil.copy("/able", "/tmp/own")
os.setxattr("/tmp/own", "security.capability", {value!r})
look = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')])"
os.setgid(1000); os.setuid(1000)
def run(path):
    reader, writer = os.pipe()
    os.waitpid(os.posix_spawn(path, ["able", "-c", look], {{}}, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)]), 0)
    return eval(os.read(reader, 4096))
tell([run("/able"), run("/tmp/own")])
"""
    layers = (str(layer), *shape.image_layers)
    held = attack(program, image_layers=layers)
    bit = attack(program, image_layers=layers, without=("no_new_privs", "nosuid", "seccomp"))
    tally.judge(
        held={int(word, 16) for sets in held for word in sets[:3]} == {0},  # inheritable, permitted, effective
        bit={int(sets[2], 16) for sets in bit} == {capability},
        seen=(held, bit),
    )


@pytest.mark.each_runtime
def test_r10_setuid_programs_give_nothing(attack: Attack, tally: Any) -> None:
    """A setuid-root program run by uid 1000 stays uid 1000 (no_new_privs)."""
    program = """
import shutil
shutil.copy("/usr/bin/python3", "/tmp/root")
os.chmod("/tmp/root", 0o4755)
os.setgid(1000); os.setuid(1000)
reader, writer = os.pipe()
pid = os.posix_spawn("/tmp/root", ["root", "-c", "import os; print(os.geteuid())"], {},
                     file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
os.waitpid(pid, 0)
tell(int(os.read(reader, 64)))
"""
    held, bit = attack(program), attack(program, without=("no_new_privs", "nosuid", "seccomp"))
    tally.judge(held=held == 1000, bit=bit == 0, seen=(held, bit))


def test_r11_no_group_of_the_host_is_left(attack: Attack, tally: Any) -> None:
    """CVE-2022-36109: a job's groups are its own gid and nothing of the worker's."""
    program = "tell([os.getgroups(), os.getgid()])"
    before = os.getgroups()
    os.setgroups([4242])
    try:
        held = attack(program, user="1000:1000")
        bit = attack(program, user="1000:1000", without=("groups",))
    finally:
        os.setgroups(before)
    tally.judge(held=held == [[1000], 1000], bit=bit[0] not in ([1000], []), seen=(held, bit))


@pytest.mark.each_runtime
@pytest.mark.parametrize("user", ["4294967296", "-1", "0 ", "root\n", "1000:99999999999", "x" * 5000])
def test_r12_a_user_that_is_no_user_is_refused(run: Run, user: str) -> None:
    """CVE-2026-46680: numbers too large, and names that are none, are the job's fault, said at once."""
    assert run("true", user=user).refusal.exit_code == 126


def test_r12_a_passwd_that_is_a_trap_reads_nothing_of_the_host(tmp_path: Path, tally: Any) -> None:
    """CVE-2024-9676, CVE-2026-47262: a link to the host's, a FIFO, two gigabytes of nothing: refused, and soon."""
    host = tmp_path / "host-passwd"
    host.write_text("canary:x:4242:4242::/:/bin/sh\n")
    outcomes = {}
    for trap in ("link", "fifo", "sparse"):
        etc = tmp_path / trap / "etc"
        etc.mkdir(parents=True)
        if trap == "link":
            (etc / "passwd").symlink_to(host)
        elif trap == "fifo":
            os.mkfifo(etc / "passwd")
        else:
            os.truncate(os.open(etc / "passwd", os.O_CREAT | os.O_WRONLY), 2 << 30)
        begin = time.monotonic()
        try:
            outcomes[trap] = str(users.look_up("canary", str(tmp_path / trap)))
        except users.UnknownUserError:
            outcomes[trap] = "refused"
        assert time.monotonic() - begin < 5
    with pytest.MonkeyPatch.context() as patch:  # an ordinary open follows the link out of the image
        patch.setattr(users.syscalls, "openat2", lambda above, path, flags, **_: os.open(path, flags, dir_fd=above))
        bit = users.look_up("canary", str(tmp_path / "link"))
    tally.judge(held=set(outcomes.values()) == {"refused"}, bit=bit.uid == 4242, seen=(outcomes, bit))


@pytest.mark.host_root("the owner of a device of the host cannot be seen there")
@pytest.mark.each_runtime
def test_r14_devices_of_the_host_keep_their_owner(run: Run) -> None:
    """A job as an ordinary user whose input is /dev/null leaves the host's /dev/null to root."""
    run("true", user="1000:1000", stdin="/dev/null")
    facts = os.stat("/dev/null")
    assert (facts.st_uid, facts.st_gid) == (0, 0)


def test_s2_nothing_of_the_workers_environment(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's environment, and its init's, hold the declared names and not what the worker was started with."""
    monkeypatch.setenv("REDIS_PASSWORD", "canary-of-the-worker")
    program = """
def read(path):
    try:
        return open(path).read()
    except OSError:
        return ""
tell([sorted(os.environ), "canary-of-the-worker" in read("/proc/1/environ") + read("/proc/self/environ")])
"""
    names, is_there = attack(program)
    assert set(names) <= {"PATH", "HOME", "LC_CTYPE"}
    assert not is_there

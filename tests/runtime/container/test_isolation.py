"""What a job can see and do in a container, each with the attack it stops."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime import init, syscalls
from dayfly.runtime.capabilities import DEFAULT_MASK
from dayfly.runtime.container import Host
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.shape import Mount, Quotas, Workspace

pytestmark = [pytest.mark.kernel, pytest.mark.each_runtime]

Run = Callable[..., Any]


def test_job_has_a_namespace_of_every_kind_to_itself(run: Run) -> None:
    """No namespace of the job is the host's."""
    ran = run("sh", "-c", "readlink /proc/self/ns/*")
    own = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")}
    assert len(ran.stdout.split()) >= 8
    assert not own & set(ran.stdout.split())


@pytest.mark.host_root("all jobs share one range there; tests/rootless asks from outside")
def test_root_in_the_job_is_nobody_on_the_host(run: Run) -> None:
    """uid 0 inside maps to an unprivileged id outside."""
    inside, outside, count = run("cat", "/proc/self/uid_map").stdout.split()
    assert inside == "0"
    assert int(outside) >= 1 << 30
    assert count == "65536"


def test_job_holds_the_default_capabilities_and_no_others(run: Run) -> None:
    """Permitted, effective and bounding are the default; inheritable and ambient are empty (CVE-2022-24769)."""
    status = dict(line.split(":\t") for line in run("cat", "/proc/self/status").stdout.splitlines() if ":\t" in line)
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {f"{DEFAULT_MASK:016x}"}
    assert {status[name] for name in ("CapInh", "CapAmb")} == {"0000000000000000"}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_ordinary_user_of_the_job_holds_no_capability(run: Run) -> None:
    """A job that runs as a user has nothing permitted."""
    ran = run("sh", "-c", "id -u; id -g; grep CapPrm /proc/self/status", user="1000:1001")
    assert ran.stdout.split() == ["1000", "1001", "CapPrm:", "0000000000000000"]


def test_job_inherits_no_descriptor(run: Run, tmp_path: Path) -> None:
    """A directory that the keeper left open and inheritable is not there in the job (CVE-2024-21626)."""
    fd = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        look = "import os\nfor fd in range(1024):\n try: print(os.fstat(fd) and fd)\n except OSError: pass"
        assert run("python3", "-c", look).stdout.split() == ["0", "1", "2"]
    finally:
        os.close(fd)


def test_init_cannot_be_looked_at(run: Run) -> None:
    """PID 1 is the host's python: its program, memory and descriptors are closed to the job (CVE-2019-5736)."""
    ran = run("sh", "-c", "for f in exe root cwd fd/0 mem maps environ; do cat /proc/1/$f && echo open; done")
    assert "open" not in ran.stdout


def test_the_command_line_of_init_tells_nothing(run: Run) -> None:
    """It is readable for everybody (proc(5)), and would be that of the process which init was forked from."""
    assert run("cat", "/proc/1/cmdline").stdout.rstrip("\0") == "dayfly: init"


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"])
def test_telling_files_of_proc_are_empty(run: Run, path: str) -> None:
    """Docker's masked paths read as nothing."""
    assert run("cat", path).stdout == ""


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run"])
def test_kernel_cannot_be_written_to(run: Run, path: str) -> None:
    """What changes the kernel is read-only or not the job's."""
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    assert run("sh", "-c", f"echo x > {path}").exit_code != 0
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_masks_cannot_be_taken_off(run: Run) -> None:
    """umount, remount and a new mount are refused, also in a new user namespace (CVE-2022-0492)."""
    script = "umount /proc/kcore || mount -o remount,rw /proc/sys || unshare -Ur true || mount -t tmpfs x /tmp"
    assert run("sh", "-c", script).exit_code not in (0, None)


@pytest.mark.parametrize("point", ["proc", "sys", "dev"])
def test_symlink_at_a_mount_point_leads_nowhere(run: Run, tmp_path: Path, shape: Any, point: str) -> None:
    """An image whose /proc, /sys or /dev is a link to the host writes nothing there (CVE-2019-19921)."""
    canary = tmp_path / "canary"
    canary.mkdir()
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / point).symlink_to(canary)
    ran = run("sh", "-c", f"stat -c %F /{point}", image_layers=(str(layer), *shape.image_layers))
    assert ran.stdout == "directory\n"
    assert list(canary.iterdir()) == []


@pytest.mark.limits
def test_fork_bomb_stops_at_the_pids_limit(run: Run) -> None:
    """A fork bomb meets EAGAIN, and the host lives."""
    ran = run("sh", "-c", "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done; wait")
    assert ran.exit_code != 0
    assert ran.container.usage().pids_peak in (None, 64)


def test_a_fork_bomb_ends_without_control_groups_too(run: Run, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no group counts is bounded for all jobs together; with the bound far off the same job forks on."""
    if "pids" not in host.hierarchy.lacking:
        pytest.skip("rootless: this user was given control groups" if host.ids else "only without control groups")
    script = "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done; echo all; kill $(jobs -p)"
    assert run("sh", "-c", script).stdout == "all\n"
    monkeypatch.setattr(init, "PROCESSES_AT_MOST", 60)
    ran = run("sh", "-c", script)
    assert ran.stdout == ""
    assert ran.exit_code != 0


@pytest.mark.limits
def test_memory_hog_is_killed_and_named(run: Run) -> None:
    """Too much memory kills the hog alone, and not an init that is as large; its name is told."""
    quotas = Quotas(memory_bytes=400 << 20, swap_bytes=0)  # init is a fork of this very process, and as large as it
    script = "python3 -c 'bytearray(1 << 30)'; end=$?; cat /proc/1/oom_score_adj /proc/self/oom_score_adj; exit $end"
    ran = run("sh", "-c", script, quotas=quotas)
    assert ran.exit_code == 128 + signal.SIGKILL
    assert ran.stdout.split() == [Path("/proc/self/oom_score_adj").read_text().strip(), "1000"]
    oom = ran.container.oom()
    assert oom.events >= 1
    assert "python3" in {victim.name for victim in oom.victims}


@pytest.mark.host_root("a disk is a directory there, without a limit")
def test_disk_filler_meets_its_quota_only(run: Run, host: Host) -> None:
    """Filling the disk fails at the quota, is seen, and takes the root's and the workspace's writes together."""
    before = os.statvfs(host.home).f_bavail
    ran = run("sh", "-c", "head -c 48M /dev/zero > /tmp/a && head -c 48M /dev/zero > /workspace/b")
    assert "No space left" in ran.stderr
    ran.container.disk.look()
    assert ran.container.disk.was_full()
    assert before - os.statvfs(host.home).f_bavail < (96 << 20) // 4096


def test_command_not_found_is_127_and_not_executable_126(run: Run) -> None:
    """As a shell has it, with a sentence."""
    missing = run("no-such-command")
    assert missing.exit_code == 127
    assert "not found" in missing.refusal.message
    assert run("/etc/passwd").exit_code == 126


def test_unknown_user_is_the_jobs_fault(run: Run) -> None:
    """A user that the image lacks, or a number too large for it (CVE-2026-46680), is refused with its name."""
    for user in ("nosuchuser", "70000"):
        assert user in run("true", user=user).refusal.message


def test_directory_is_seen_and_not_changed(run: Run, tmp_path: Path) -> None:
    """The job's changes to its directory go to its own layer."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "kept").write_text("old")
    facts = source.stat()
    given = Workspace(source=str(source), device=facts.st_dev, inode=facts.st_ino)
    ran = run("sh", "-c", "pwd; cat kept; echo new > kept; touch more; cat kept; id -u", workspace=given)
    assert ran.stdout == "/workspace\noldnew\n0\n"
    assert [path.name for path in source.iterdir()] == ["kept"]
    assert (source / "kept").read_text() == "old"


def test_directory_of_a_user_belongs_to_the_job(run: Run, tmp_path: Path) -> None:
    """A directory owned by an ordinary user is the job's own inside, whoever the job runs as."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    for path in (source, source / "file"):
        os.chown(path, 1234, 1234)
    for user, uid in (("", "0"), ("1000", "1000")):
        ran = run("stat", "-c", "%u", "file", workspace=Workspace(source=str(source)), user=user)
        assert ran.stdout.strip() == uid, ran


def test_directory_that_cannot_be_mapped_is_copied(run: Run, tmp_path: Path) -> None:
    """A directory on overlayfs reaches the job as a copy, without what it ignores, and the job is told."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "sub").mkdir()
    (tmp_path / "lower" / "sub" / "file").write_text("content")
    (tmp_path / "lower" / "secret").write_text("no")
    (tmp_path / "lower" / ".dayflyignore").write_text("secret\n")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    source = str(tmp_path / "merged")
    syscalls.mount("overlay", source, "overlay", 0, options)
    try:
        given = Workspace(source=source, is_live=True)
        ran = run("sh", "-c", "ls; cat sub/file; stat -c %u sub/file; echo > sub/file", workspace=given, user="7")
    finally:
        syscalls.umount2(source)
    assert ran.stdout == "sub\ncontent7\n"
    assert any("was copied" in note for note in ran.container.init.notes)
    assert (tmp_path / "lower" / "sub" / "file").read_text() == "content"


def test_mount_is_read_only_unless_asked(run: Run, tmp_path: Path) -> None:
    """A mount shows the host's path; writing needs `rw`."""
    source = tmp_path / "data"
    source.mkdir()
    source.chmod(0o777)  # a rootless worker's jobs have other ids than its user
    (source / "in").write_text("data")
    shown = Mount(source=str(source), target="/data/here")
    ran = run("sh", "-c", "cat /data/here/in; touch /data/here/out", mounts=(shown,))
    assert ran.stdout == "data"
    assert "Read-only" in ran.stderr
    writable = Mount(source=str(source), target="/data/here", writable=True, own_group=0)
    assert run("touch", "/data/here/out", mounts=(writable,)).exit_code == 0
    assert (source / "out").stat().st_uid == 0
    own = run("sh", "-c", "touch /data/here/mine && stat -c %u:%g /data/here/mine", mounts=(writable,), user="7:8")
    assert own.stdout == "7:8\n", own.stderr
    owner = ((source / "mine").stat().st_uid, (source / "mine").stat().st_gid)
    assert owner == ((0, 0) if own_id_map() is None else (7, 8))  # a rootless worker has no mapped mounts


def test_link_put_in_place_of_a_source_is_not_followed(run: Run, tmp_path: Path) -> None:
    """What was allowed when the job was planned cannot be swapped for a link to something else."""
    (tmp_path / "link").symlink_to("/etc")
    for fields in (
        {"mounts": (Mount(source=str(tmp_path / "link"), target="/data"),)},
        {"workspace": Workspace(source=str(tmp_path / "link"))},
    ):
        with pytest.raises(HostError, match="Too many levels of symbolic links"):
            run("ls", **fields)


@pytest.mark.host_root("a rootless worker has no mapped mounts")
@pytest.mark.parametrize("own_group", [1234, None])
def test_a_group_of_the_owners_number_is_given_to_the_job_only_if_it_is_the_owners_alone(
    run: Run, tmp_path: Path, own_group: int | None
) -> None:
    """Else it is another one's, whose files the job's root, which may have any group, could read."""
    source = tmp_path / "data"
    source.mkdir()
    (source / "groups").write_text("content")
    for path, owner, group in ((source, 1234, 100), (source / "groups", 0, 1234)):
        os.chown(path, owner, group)
    (source / "groups").chmod(0o640)
    mount = Mount(source=str(source), target="/data", writable=True, own_group=own_group)
    script = "import os; os.setgroups([65534, 65533]); print(open('/data/groups').read())"
    ran = run("python3", "-c", script, mounts=(mount,))
    assert ran.stdout == ("content\n" if own_group else ""), ran.stderr
    assert run("touch", "/data/made", mounts=(mount,), user="7:8").exit_code == 0
    assert ((source / "made").stat().st_uid, (source / "made").stat().st_gid) == (1234, 100)


@pytest.mark.host_root("a rootless worker gives nobody's files away")
def test_a_mount_that_was_swapped_since_it_was_allowed_is_refused(run: Run, tmp_path: Path) -> None:
    """Who owns the directory around two others exchanges them after the check: the job gets neither, and the host is
    well. Left alone it is mounted (the negative control)."""
    for name, owner in (("cache", 1234), ("roots", 0)):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, owner, owner)
    facts = (tmp_path / "cache").stat()
    seen = {"device": facts.st_dev, "inode": facts.st_ino, "owner": facts.st_uid, "own_group": facts.st_uid}
    mount = Mount(source=str(tmp_path / "cache"), target="/data", writable=True, **seen)
    assert run("touch", "/data/file", mounts=(mount,)).end.exit_code == 0
    os.chown(tmp_path / "cache", 0, 0)
    with pytest.raises(HostError, match="given to another user") as given_away:
        run("true", mounts=(mount,))
    (tmp_path / "cache").rename(tmp_path / "aside")
    (tmp_path / "roots").rename(tmp_path / "cache")
    with pytest.raises(HostError, match="something else has taken its place") as swapped:
        run("true", mounts=(mount,))
    assert given_away.value.is_jobs_own
    assert swapped.value.is_jobs_own


@pytest.mark.limits
def test_no_process_survives_the_command(run: Run) -> None:
    """A daemon that left the session and ignores SIGTERM is dead when init is."""
    ran = run("sh", "-c", "setsid sh -c 'trap \"\" TERM; sleep 300' >/dev/null 2>&1 & echo started")
    assert ran.stdout == "started\n"
    assert not ran.end.is_alone
    assert ran.container.current().cpu_seconds is not None
    assert ran.container._cgroup.is_empty()


def test_loopback_is_up_and_the_only_link(run: Run) -> None:
    """network: none has lo, and it works."""
    script = """
import socket, os
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())
print(os.listdir("/sys/class/net"))
"""
    assert run("python3", "-c", script).stdout == "['lo']\n"


def test_host_network_brings_the_hosts_names(run: Run) -> None:
    """network: host shares the links and the name lookup of the host."""
    ran = run("sh", "-c", "readlink /proc/self/ns/net; cat /etc/hosts", network="host")
    assert ran.stdout == os.readlink("/proc/self/ns/net") + "\n" + Path("/etc/hosts").read_text()

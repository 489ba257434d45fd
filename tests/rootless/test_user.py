"""`dayfly run` by an ordinary user: what works as it does for root, what does not and is said."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime.user_namespace_limits import what_forbids

pytestmark = [pytest.mark.kernel, pytest.mark.host_root("it makes the ordinary user itself")]

_SUBORDINATE, _OWN = 200_000, 12_345  # as as_user.py has them
_DEADLINE_SECONDS = 60.0


def _until(is_true: Callable[[], Any]) -> Any:
    """Look until something is there, with a deadline: not all of it is told to anybody."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not (found := is_true()):
        assert time.monotonic() < deadline, "it did not become true in time"
        select.select([], [], [], 0.01)
    return found


def _left(user: Any) -> list[str]:
    """What jobs have left in the user's home."""
    return [str(path) for name in ("jobs", "disks", "trash") for path in (user.dayfly_home / name).glob("*")]


def test_run_gives_the_jobs_output_exit_code_and_artifacts(user: Any) -> None:
    """A job in the current directory, which stays as it is; what it made belongs to the user."""
    here = user.home / "here"
    here.mkdir()
    (here / "in").write_text("given\n")
    os.chown(here, user.home.stat().st_uid, -1)
    script = "id -u; cat in; echo made > out; rm in; exit 3"
    done = user.dayfly("run", "--artifact", "out", "--", "sh", "-c", script, cwd=here)
    assert (done.returncode, done.stdout) == (3, "0\ngiven\n"), done.stderr
    assert (here / "in").read_text() == "given\n"
    assert (here / "out").read_text() == "made\n"
    assert (here / "out").stat().st_uid == user.home.stat().st_uid


def test_a_directory_that_is_made_again_in_the_workspace_is_empty(user: Any) -> None:
    """/workspace is an overlay as the root is: what a job has removed does not show again, and nosuid is on."""
    here = user.home / "here"
    (here / "tree").mkdir(parents=True)
    (here / "tree/old").touch()
    for path in (here, here / "tree", here / "tree/old"):
        os.chown(path, _OWN, _OWN)
    script = "rm -r tree; mkdir tree; ls -A tree; grep ' /workspace ' /proc/self/mountinfo"
    done = user.dayfly("run", "--", "sh", "-ec", script, cwd=here)
    assert done.returncode == 0, done.stderr
    mounts = [line.split()[5].split(",") for line in done.stdout.splitlines()]
    assert len(mounts) == (2 if user.options else 1), done.stdout  # an overlay over it, or a copy
    assert all("nosuid" in flags for flags in mounts), done.stdout
    assert (here / "tree/old").exists()


def test_what_is_not_limited_is_said(user: Any) -> None:
    """The result and doctor name it, and a job that states a limit of it is refused."""
    done = user.dayfly("run", "--no-dir", "--result", "result", "--", "true")
    assert done.returncode == 0, done.stderr
    said = " ".join(json.loads((user.home / "result").read_text())["warnings"])
    found = {each["name"]: each for each in json.loads(user.dayfly("doctor", "--json").stdout)}
    assert "disk was not limited" in said
    assert found["disk limits"]["verdict"] == "warning"
    assert "limits.disk: " in user.dayfly("run", "--no-dir", "--disk", "1G", "--", "true").stderr
    limited = user.dayfly("run", "--no-dir", "--memory", "100M", "--result", "result", "--", "true")
    if found["control groups"]["verdict"] == "ok":
        assert json.loads((user.home / "result").read_text())["limits"]["memory_bytes"] == 100 << 20
        return
    assert "cpu, memory and processes were not limited" in said
    assert limited.returncode == 125
    assert "limits.memory: this worker cannot enforce it" in limited.stderr


def test_jobs_run_in_ids_of_their_own(user: Any) -> None:
    """From outside, what root in a job makes is a subordinate id's, or the user's where that is all there is."""
    script = "touch /tmp/made; until test -e /proc/1/nothing; do sleep 0.1; done"
    with _running(user, "sh", "-c", script) as job:
        (made,) = _until(lambda: list(user.dayfly_home.glob("disks/*/root/upper/tmp/made")))
        assert made.stat().st_uid == (_OWN if user.options else _SUBORDINATE)
        job.send_signal(signal.SIGTERM)
        job.wait(_DEADLINE_SECONDS)


def test_a_user_of_the_image_needs_subordinate_ids(user: Any) -> None:
    """With them a job runs as any of 65,536; without it is refused, and not run as another."""
    done = user.dayfly("run", "--no-dir", "--user", "1234:99", "--", "id", "-u")
    if user.options:
        assert done.returncode == 125
        assert "user: this worker's user has no ids for 1234:99: apt-get install uidmap" in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, "1234\n"), done.stderr


def test_a_mount_is_written_by_those_who_may(user: Any) -> None:
    """What only its owner may write is refused to a job that has other ids, and written by one that has not."""
    shared = user.home / "shared"
    shared.mkdir(mode=0o755)
    os.chown(shared, user.home.stat().st_uid, -1)
    command = ("run", "--no-dir", "--mount", f"{shared}:/shared:rw", "--", "touch", "/shared/made")
    done = user.dayfly(*command)
    assert (done.returncode, (shared / "made").exists()) == ((0, True) if user.options else (125, False)), done.stderr
    if not user.options:
        assert "is not writable for others" in done.stderr
        shared.chmod(0o777)
        assert user.dayfly(*command).returncode == 0
        assert (shared / "made").stat().st_uid == _SUBORDINATE


def test_a_program_is_built(user: Any, need_tool: Any) -> None:
    """The host's compiler and make work, and what they make runs and comes back."""
    for tool in ("gcc", "make"):
        need_tool(tool)
    here = user.home / "here"
    here.mkdir()
    (here / "main.c").write_text('#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n')
    (here / "Makefile").write_text("hello: main.o\n\t$(CC) -o $@ $^\n")
    os.chown(here, user.home.stat().st_uid, -1)
    done = user.dayfly("run", "--artifact", "hello", "--", "sh", "-ec", "make -s && ./hello", cwd=here)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert subprocess.run([here / "hello"], capture_output=True, check=True).stdout == b"hello\n"


def test_an_image_is_imported_run_and_removed(user: Any, need_tool: Any) -> None:
    """Owners are kept where there are ids for them, root's where not; nothing of it stays."""
    archive = user.home / "root.tar"
    need_tool("gcc")
    _make_image(archive)
    assert user.dayfly("image", "import", str(archive), "small").returncode == 0
    assert user.dayfly("image", "rm", "small").returncode == 0
    assert list((user.dayfly_home / "images/layers").glob("*")) == []
    assert user.dayfly("image", "import", str(archive), "small").returncode == 0
    done = user.dayfly("run", "--no-dir", "--image", "small", "--", "/program")
    owner = 0 if user.options else 1000
    assert (done.returncode, done.stdout) == (0, f"{owner} 0 0 0\n"), done.stderr


# Tells an owner, and changes what overlay must copy up, hide and hide what lies below of.
_PROGRAM = """
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    struct stat found;
    stat("/owned", &found);
    printf("%d %d", found.st_uid, open("/owned", O_WRONLY) < 0);
    printf(" %d", rmdir("/tree"));
    printf(" %d\\n", mkdir("/tree", 0755));
    return 0;
}
"""


def _make_image(archive: Path) -> None:
    program = archive.with_name("program")
    command = ["gcc", "-static", "-x", "c", "-", "-o", program]
    subprocess.run(command, input=_PROGRAM.encode(), check=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(program, "program")
        for name, kind, uid in (("owned", tarfile.REGTYPE, 1000), ("tree", tarfile.DIRTYPE, 0)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.uid, entry.mode = kind, uid, 0o755
            tar.addfile(entry)


@pytest.mark.parametrize("victim", ["agent", "keeper"])
def test_sigkill_leaves_nothing(user_with_ids: Any, victim: str) -> None:
    """The agent's death is not noticed by the job; the keeper's is that of the attempt, whose files are swept."""
    user = user_with_ids
    script = "echo begun > /tmp/begun; sleep 2; echo over"
    with _running(user, "sh", "-c", script, stdout=subprocess.PIPE) as job:
        (begun,) = _until(lambda: list(user.dayfly_home.glob("disks/*/root/upper/tmp/begun")))
        os.kill(_pid_of(user, victim), signal.SIGKILL)
        said, _ = job.communicate(timeout=_DEADLINE_SECONDS)
        assert (job.returncode, said) == (0, b"over\n")
    _until(lambda: not begun.exists())
    assert user.dayfly("down").returncode == 0
    assert _left(user) == []


def _pid_of(user: Any, victim: str) -> int:
    if victim == "agent":
        return int((user.dayfly_home / "run/worker.lock").read_text())
    from dayfly.worker import joblock

    (directory,) = (user.dayfly_home / "jobs").glob("*")
    found = joblock.holder(str(directory))
    assert found is not None
    return found


def test_two_jobs_that_share_a_range_are_apart(user: Any) -> None:
    """Though their ids are the same, neither sees a process, a file or a socket of the other."""
    first = "touch /tmp/secret; exec sleep 60.125"
    second = "ls /tmp /workspace; cat /proc/*/cmdline | tr '\\0' ' '"
    with _running(user, "sh", "-c", first) as job:
        _until(lambda: list(user.dayfly_home.glob("disks/*/root/upper/tmp/secret")))
        done = user.dayfly("run", "--no-dir", "--", "sh", "-c", second)
        job.send_signal(signal.SIGTERM)
        job.wait(_DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout
    assert "60.125" not in done.stdout


def test_a_jobs_root_does_not_reach_the_users_files(user_with_ids: Any) -> None:
    """Not even by the host's paths of a mount that it is given: it has another id than the user."""
    user = user_with_ids
    private = user.home / "private"
    private.mkdir(mode=0o755)
    (private / "key").write_text("secret")
    (private / "key").chmod(0o600)
    for path in (private, private / "key"):
        os.chown(path, user.home.stat().st_uid, -1)
    done = user.dayfly("run", "--no-dir", "--mount", f"{private}:/p", "--", "cat", "/p/key")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Permission denied" in done.stderr


_SWITCHES = {
    "user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces"),
    "kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "AppArmor"),
}


@pytest.mark.parametrize(("file", "value", "remedy"), [(file, *rest) for file, rest in _SWITCHES.items()])
def test_each_switch_against_user_namespaces_is_known(tmp_path: Path, file: str, value: str, remedy: str) -> None:
    """Of every distribution, with the way back; a host that has none of them is not accused."""
    assert what_forbids(str(tmp_path)) is None
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(f"{value}\n")
    said = what_forbids(str(tmp_path))
    assert said is not None
    assert f"{file.replace('/', '.')} is {value}: " in said
    assert remedy in said


def test_doctor_and_run_say_what_forbids_user_namespaces(user_with_ids: Any) -> None:
    """user.max_user_namespaces=0, which is a real setting of a user namespace around both."""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    inside = ("unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", forbid, "sh")
    dayfly = (sys.executable, "-m", "dayfly")
    said = r"user.max_user_namespaces is 0: sysctl -w user.max_user_namespaces=15000"
    done = user_with_ids.run(*inside, *dayfly, "doctor", "--json")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert done.returncode == 1
    assert (found["rights"]["verdict"], found["rights"]["remedy"]) == ("missing", said)
    ran = user_with_ids.run(*inside, *dayfly, "run", "--no-dir", "--", "true")
    assert ran.returncode == 125
    assert said in ran.stderr


class _running:  # noqa: N801 - read as the verb
    """A `dayfly run` that goes on meanwhile; ended with what it started when the body is left."""

    def __init__(self, user: Any, *command: str, **options: Any) -> None:
        words = [sys.executable, str(Path(__file__).with_name("as_user.py")), *user.options]
        words += [sys.executable, "-m", "dayfly", "run", "-q", "--no-dir", "--", *command]
        self._process = subprocess.Popen(words, env=user.environment, cwd=user.home, **options)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(_DEADLINE_SECONDS)


def test_a_user_builds_an_image_and_runs_jobs_on_it(user: Any, tar: Any, need_tool: Any) -> None:
    """Its layers are what the steps wrote, with the owners that they have inside."""
    context = user.home / "context"
    context.mkdir()
    made = tar().directory("bin").directory("etc").directory("tmp", mode=0o1777).file("gone")
    made.file("bin/busybox", Path(need_tool("busybox")).read_bytes(), mode=0o755)
    for name in ("sh", "cat", "rm", "mkdir", "echo", "ls", "test", "stat"):
        made.symlink(f"bin/{name}", "busybox")
    (user.home / "base.tar").write_bytes(made.bytes())
    (context / "file").write_text("copied\n")
    (context / "Containerfile").write_text(
        "FROM base\nCOPY file /file\nRUN --mount=type=cache,target=/c rm /gone; echo made > /made; echo x > /c/x\n"
        "RUN --mount=type=cache,target=/c cat /c/x > /cached\nRUN test ! -e /gone\n"
    )
    for path in (user.home / "base.tar", context, *context.iterdir()):
        os.chown(path, user.home.stat().st_uid, user.home.stat().st_gid)
    imported = user.dayfly("image", "import", str(user.home / "base.tar"), "base")
    assert imported.returncode == 0, imported.stderr
    built = user.dayfly("image", "build", "-t", "built", str(context))
    assert built.returncode == 0, built.stderr
    words = ("sh", "-c", "cat /file /made /cached; stat -c %u /made /file; ls /gone")
    done = user.dayfly("run", "--no-dir", "--image", "built", "--", *words)
    assert done.stdout == "copied\nmade\nx\n0\n0\n", done.stderr
    assert user.dayfly("down").returncode == 0
    assert not _left(user)
    assert not list((user.dayfly_home / "kept").glob("*"))

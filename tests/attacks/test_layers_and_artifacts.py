"""What images and jobs can try on what is unpacked, collected, shared and thrown away: A7 to A10, A13, A16, R13.

A1 to A6 are in tests/runtime/images, A11 in tests/worker/test_artifacts.py, A12 in tests/worker/test_store.py.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import HostError, SpecError
from dayfly.runtime import init, removal, syscalls
from dayfly.runtime.images.image import Image, ImageConfig
from dayfly.runtime.shape import Mount, Workspace
from dayfly.worker import artifacts, overlay_walk
from dayfly.worker.blob import blob_path
from dayfly.worker.plan import Identity, Planner
from dayfly.worker.record import ArtifactRules
from dayfly.worker.settings import Allowed, WorkerSettings

pytestmark = pytest.mark.kernel

Attack = Callable[..., Any]
Run = Callable[..., Any]


class _Hierarchy:
    """A host that lacks nothing."""

    version = 2
    lacking: dict[str, str] = {}  # noqa: RUF012 - read only


_SWAPS = 10_000
_CONTROL_SECONDS = 60.0


def test_a7_what_is_swapped_while_it_is_collected_is_not_the_hosts(
    tmp_path: Path, tally: Any, exchanging: Callable[..., Any]
) -> None:
    """CVE-2018-15664: a directory that turns into a link to the host's and back, ten thousand times: no byte of it."""
    for name in ("upper/out", "host", "store"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "upper/out/secret").write_text("the job's own")
    (tmp_path / "host/secret").write_text("the host's")
    (tmp_path / "upper/way").symlink_to(tmp_path / "host")
    upper = os.open(tmp_path / "upper", os.O_RDONLY | os.O_DIRECTORY)
    rules = ArtifactRules((r"(out|way)/.*\Z",), (), ("",), ("out/**",), changed=False)

    def collected() -> set[str]:
        found = artifacts.collect(rules, [artifacts.Tree("/workspace", upper)], str(tmp_path / "store"), lambda: None)
        return {Path(blob_path(str(tmp_path / "store"), each.sha256)).read_text() for each in found.artifacts}

    held: set[str] = set()
    bit: set[str] = set()
    with exchanging(tmp_path / "upper/out", tmp_path / "upper/way") as swaps:
        while swaps[0] < _SWAPS:
            held |= collected()
        with pytest.MonkeyPatch.context() as patch:  # a link in place of the directory is followed
            end = time.monotonic() + _CONTROL_SECONDS
            for module in (overlay_walk, artifacts):
                patch.setattr(
                    module,
                    "openat2",
                    lambda fd, path, flags, resolve: os.open(path, flags & ~os.O_NOFOLLOW, dir_fd=fd),
                )
            while "the host's" not in bit and time.monotonic() < end:
                bit |= collected()
    os.close(upper)
    tally.judge(held=held <= {"the job's own"}, bit="the host's" in bit, seen=(held, bit, swaps[0]))


def test_a13_a_directory_in_place_of_an_image_is_the_one_that_was_looked_at(
    run: Run, tally: Any, tmp_path: Path, shape: Any
) -> None:
    """An allowed directory that its owner has swapped for a link since: the link is not followed, wherever it is."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("the host's")
    (tmp_path / "allowed").symlink_to(host)
    seen = {}
    for name in ("allowed", "host"):
        try:
            seen[name] = run("cat", "/secret", image_layers=(f"{tmp_path}/{name}", *shape.image_layers)).stdout
        except HostError as error:
            seen[name] = str(error)
    tally.judge(held=os.strerror(errno.ELOOP) in seen["allowed"], bit=seen["host"] == "the host's", seen=seen)


_EVIL = "open('/imported-from-the-image', 'w').close()\n"


def test_a8_nothing_of_the_image_is_imported(attack: Attack, tally: Any, tmp_path: Path, shape: Any) -> None:
    """CVE-2019-14271: where init's Python would look for a module lies one of the image's, of every name: none is
    loaded, though init is the host's program in the image's root."""
    layer = tmp_path / "layer"
    for place in {os.path.realpath(each) for each in sys.path if each and not each.startswith(("/usr", "/tmp"))}:
        directory = layer / place.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for name in sys.stdlib_module_names:
            (directory / f"{name}.py").write_text(_EVIL)
    evil = layer / "evil"
    evil.mkdir(parents=True)
    for name in sys.stdlib_module_names:
        (evil / f"{name}.py").write_text(_EVIL)
    program = "tell(os.path.exists('/imported-from-the-image'))"
    layers = (str(layer), *shape.image_layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend("/evil")
        held = attack(program, image_layers=layers, user="1000:1000", cwd="/somewhere/new")
        patch.setattr(
            init, "enter", lambda cwd: __import__("this")
        )  # an import after the pivot, of what is unknown yet
        sys.modules.pop("this", None)
        bit = attack(program, image_layers=layers)
    tally.judge(held=held is False, bit=bit is True, seen=(held, bit))


def test_a9_discarding_takes_nothing_of_the_host(run: Run, tally: Any, tmp_path: Path) -> None:
    """CVE-2024-23652, CVE-2025-4953: links to the host, a deep chain, a name of a newline, modes of nothing in a disk
    that is a directory: it is gone whole, and what the links named is there."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "canary").write_text("x")
    script = f"""
import os
for top in ("/workspace", "/tmp", "/usr"):
    os.chdir(top)
    os.symlink("{host}", "link"); os.symlink("{host}/canary", "other")
    os.mkdir("\\n"); os.mkdir("locked"); open("locked/file", "w").close(); os.chmod("locked", 0)
    for _ in range(2000):
        os.mkdir("d"); os.chdir("d")
"""
    ran = run("python3", "-c", script, disk_bytes=None)
    assert ran.exit_code == 0, ran.stderr
    ran.container.discard()
    left = [path for path in (tmp_path / "h" / "disks").glob("*") if not removal.remove_tree(str(path))]
    held = left == [] and (host / "canary").exists()
    (tmp_path / "naive").mkdir()
    (tmp_path / "naive/link").symlink_to(host)
    for directory, _, names in os.walk(tmp_path / "naive", followlinks=True):  # what a removal by paths does
        for name in names:
            os.unlink(os.path.join(directory, name))
    tally.judge(held=held, bit=not (host / "canary").exists(), seen=left)


@pytest.mark.host_root("what others may not write cannot be mounted to be written there")
def test_a10_what_one_job_changes_the_next_does_not_see(attack: Attack, tally: Any, tmp_path: Path) -> None:
    """Two jobs of one image and one directory: changed, added and deleted there is gone with the first; through a
    mount that the operator made writable, and only there, it stays."""
    for name in ("work", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("old")
    given = {
        "workspace": Workspace(source=str(tmp_path / "work")),
        "mounts": (Mount(source=str(tmp_path / "data"), target="/data", writable=True),),
    }
    change = """
for path in ("/workspace/file", "/data/file", "/etc/hosts"):
    open(path, "w").write("new")
os.unlink("/etc/passwd"); open("/etc/added", "w").close()
tell(0)
"""
    look = """
tell([open("/workspace/file").read(), open("/data/file").read(), open("/etc/hosts").read() == "new",
      os.path.exists("/etc/passwd"), os.path.exists("/etc/added")])
"""
    attack(change, **given)
    seen = attack(look, **given)
    assert (tmp_path / "work/file").read_text() == "old"
    tally.judge(held=(seen[0], *seen[2:]) == ("old", False, True, False), bit=seen[1] == "new", seen=seen)


@pytest.mark.host_root("only root's worker gives a job files of root's")
def test_a16_no_program_of_roots_is_left_where_others_reach_it(run: Run, tally: Any, tmp_path: Path) -> None:
    """A job that may write to a directory of root's can leave a setuid program of root's there. So that is refused,
    unless nobody else comes to it, nosuid holds there, or the directory is an ordinary user's."""
    reached = Path(tempfile.mkdtemp(dir="/tmp"))  # where everybody comes to, whatever TMPDIR says
    planner = Planner(
        WorkerSettings(home=tmp_path, url="unix:///x", name="w", allow=Allowed(mounts=(reached,))),
        Capacity(1000, 512, 1024),
        _Hierarchy(),  # type: ignore[arg-type]
        None,
    )

    def is_refused(source: Path, mode: str = "rw") -> bool:
        job = read_job({"image": "host", "command": ["x"], "mounts": [f"{source}:/data:{mode}"]})
        try:
            planner.plan(job, Image(name="host", digest="host:0", layers=("/l",)), Identity("J1", 1), None)
        except SpecError as error:
            return "mounts[0].writable" in str(error) and "nosuid" in str(error)
        return False

    try:
        for path, owner in (
            (reached, 0),
            (reached / "roots", 0),
            (reached / "users", 1234),
            (reached / "closed/in", 0),
        ):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
            os.chown(path, owner, owner)
        (reached / "closed").chmod(0o700)
        refused = [is_refused(each) for each in (reached, reached / "roots")]
        taken = [is_refused(each) for each in (reached / "users", reached / "closed/in")]
        taken += [is_refused(reached / "roots", "ro")]
        syscalls.mount("tmpfs", str(reached / "roots"), "tmpfs", syscalls.MS_NOSUID, "mode=755")
        taken += [is_refused(reached / "roots")]
        syscalls.umount2(str(reached / "roots"))
        mount = Mount(source=str(reached / "roots"), target="/data", writable=True)
        run("sh", "-c", "cp /usr/bin/id /data/id && chmod u+s /data/id", mounts=(mount,))
        left = (reached / "roots/id").stat()
    finally:
        shutil.rmtree(reached)
    is_roots = (left.st_uid, left.st_mode & 0o4000) == (0, 0o4000)
    tally.judge(held=all(refused) and not any(taken), bit=is_roots, seen=(refused, taken, left))


def test_r13_an_image_decides_nothing_for_the_host(tmp_path: Path, tally: Any) -> None:
    """CVE-2026-53488: what an image's config says is at most words in a command, an environment and a directory: no
    mount, no switch, no name of Dayfly's own, whatever its labels are called."""
    config = ImageConfig(
        entrypoint=("/proc/self/exe", "$(id)"),
        env={"DAYFLY_JOB_ID": "other", "LD_PRELOAD": "/evil.so", "CI": "false"},
        workdir="../../proc/self/fd/7",
        user="root",
        labels={"dayfly.privileged": "true", "dayfly.mounts": "/:/host:rw", "dayfly.network": "host"},
    )
    image = Image(name="evil", digest="sha256:0", layers=("/l",), config=config)
    settings = WorkerSettings(home=tmp_path, url="unix:///x", name="w")
    planner = Planner(settings, Capacity(1000, 512, 1024), _Hierarchy(), None)  # type: ignore[arg-type]
    plan = planner.plan(read_job({"image": "evil"}), image, Identity("J1", 1), None)
    held = (
        plan.mounts,
        plan.privileges,
        plan.shape.network,
        plan.shape.is_privileged,
        plan.process.env["DAYFLY_JOB_ID"],
    )
    asked = read_job({"image": "evil", "cap_drop": "ALL"})
    bit = planner.plan(asked, image, Identity("J1", 1), None).privileges  # what a document may say, the same way
    tally.judge(held=held == ((), None, "none", False, "J1"), bit=bit is not None, seen=(held, bit))
    assert plan.process.argv == ("/proc/self/exe", "$(id)")

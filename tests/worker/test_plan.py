"""From a document to a container: Docker's rules for commands, the operator's rules for the host."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import SpecError
from dayfly.runtime.capabilities import DEFAULT_MASK
from dayfly.runtime.images.image import Image, ImageConfig
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.shape import ContainerPlan, Device, Privileges, fields_of
from dayfly.worker.host import host_id
from dayfly.worker.plan import Identity, Planner
from dayfly.worker.settings import Allowed, JobDefaults, WorkerSettings

_MIB = 1 << 20
_CONFIG = ImageConfig(
    entrypoint=("/entry",), cmd=("serve",), env={"A": "image", "B": "image"}, workdir="/srv", user="web"
)
_IMAGE = Image(name="web", digest="sha256:0", layers=("/l/2", "/l/1"), config=_CONFIG)
_PLAIN = Image(name="plain", digest="sha256:1", layers=("/l/1",))


_PTRACE = 1 << 19


class FullHierarchy:
    """A host that lacks nothing."""

    version = 2
    lacking: dict[str, str] = {}  # noqa: RUF012 - read only


def _planner(tmp_path, hierarchy=None, why_unlimited=None, oci_runtime=None, **allow):
    settings = WorkerSettings(tmp_path, "unix:///x", "w", allow=Allowed(**allow), oci_runtime=oci_runtime)
    return Planner(settings, Capacity(1000, 512, 1024), hierarchy or FullHierarchy(), why_unlimited)


def _plan(planner, image=_IMAGE, **document):
    return planner.plan(read_job({"image": "web", **document}), image, Identity("J1", 2), None)


@pytest.mark.parametrize(
    ("document", "argv", "cwd"),
    [
        ({}, ("/entry", "serve"), "/srv"),
        ({"command": ["run"]}, ("/entry", "run"), "/workspace"),
        ({"entrypoint": ["/other"]}, ("/other",), "/srv"),
        ({"entrypoint": [], "command": ["x", "y"]}, ("x", "y"), "/workspace"),
        ({"command": ["run"], "workdir": "/tmp"}, ("/entry", "run"), "/tmp"),
        ({"script": "make"}, ("/bin/sh", "-e", "-c", "PS4='$ '; set -x; make"), "/workspace"),
    ],
)
def test_commands_follow_dockers_rules(tmp_path, document, argv, cwd):
    """Entrypoint, command and script combine as with Docker; what the job brings starts in its workspace."""
    process = _plan(_planner(tmp_path), **document).process
    assert (process.argv, process.cwd) == (argv, cwd)


def test_the_environment_is_what_image_and_document_name(tmp_path, monkeypatch):
    """Nothing of the worker's own environment reaches a job; the document beats the image, Dayfly's names beat both."""
    monkeypatch.setenv("SECRET", "worker's")
    env = _plan(_planner(tmp_path), command=["x"], env={"B": "mine", "CI": "no", "DAYFLY_JOB_ID": "fake"}).process.env
    assert env.pop("PATH").startswith("/usr/local/sbin:")
    assert env == {
        "A": "image",
        "B": "mine",
        "CI": "no",
        "DAYFLY_JOB_ID": "J1",
        "DAYFLY_ATTEMPT": "2",
        "DAYFLY_WORKSPACE": "/workspace",
    }


def test_what_a_job_does_not_state_is_its_share(tmp_path):
    """Limits that are not stated are one slot's share and the operator's defaults; stated ones stand."""
    shape = _plan(_planner(tmp_path), command=["x"]).shape
    assert (shape.disk_bytes, shape.shm_bytes, shape.network) == (1024 * _MIB, 64 * _MIB, "none")
    assert (shape.quotas.cpus, shape.quotas.memory_bytes, shape.quotas.pids) == (1.0, 512 * _MIB, 2048)
    stated = _plan(_planner(tmp_path), command=["x"], limits={"cpus": 0.5, "memory": "64M", "disk": "1G", "pids": 9})
    assert (stated.shape.quotas.cpus, stated.shape.quotas.memory_bytes) == (0.5, 64 * _MIB)
    assert (stated.shape.disk_bytes, stated.shape.quotas.pids) == (1 << 30, 9)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"command": ["x"], "network": "host"}, "network"),
        ({"command": ["x"], "mounts": ["/etc:/mnt"]}, r"mounts\[0\].source"),
        ({"command": ["x"], "mounts": ["/no/such/path:/mnt"]}, r"mounts\[0\].source"),
        ({"command": ["x"], "limits": {"io": [{"device": "/dev/null", "read_bps": 1}]}}, r"limits.io\[0\].device"),
        ({"command": ["x"], "dir": {"path": "/", "host": "elsewhere", "device": 1, "inode": 1}}, "dir"),
        ({"command": ["x"], "dir": {"bundle": "sha256:" + "0" * 64}}, "dir"),
        ({"script": "#" * 140_000}, "script"),
        ({"command": ["x"], "cap_add": ["CHOWN", "SYS_ADMIN"]}, r"cap_add\[1\].*SYS_ADMIN.*\[allow\] cap_add"),
        ({"command": ["x"], "cap_add": "all"}, r"cap_add\[0\].*ALL"),
        ({"command": ["x"], "seccomp": "unconfined"}, r"seccomp: unconfined.*\[allow\] seccomp_unconfined"),
        ({"command": ["x"], "privileged": True}, r"privileged.*\[allow\] privileged"),
        ({"command": ["x"], "devices": "/dev/null:/dev/hole"}, r"devices\[0\].source.*/dev/null.*\[allow\] devices"),
        ({"command": ["x"], "devices": "/dev/shm:/dev/a"}, r"devices\[0\].source: /dev/shm is not a device"),
        ({"command": ["x"], "devices": "/dev/no-such"}, r"devices\[0\].source.*No such file"),
    ],
)
def test_what_the_operator_or_the_host_refuses_is_named_by_its_field(tmp_path, document, field):
    """A worker never runs a job with less than it asked for; it says which field and why."""
    with pytest.raises(SpecError, match=field):
        _plan(_planner(tmp_path), **document)


def test_a_device_that_this_host_has_not_is_the_jobs_fault(tmp_path):
    """No container can be made with such a limit, so none is tried; the number of one that is there is taken."""
    limit = {"device": "999:0", "write_bps": "1M"}
    with pytest.raises(SpecError, match=r"has no block device 999:0") as caught:
        _plan(_planner(tmp_path), limits={"io": [{"device": "disk", "read_bps": "1M"}, limit]})
    assert caught.value.path == "limits.io[1].device"
    there = next(iter(os.listdir("/sys/dev/block")), None)
    if there is not None and not os.path.exists(f"/sys/dev/block/{there}/partition"):
        plan = _plan(_planner(tmp_path), limits={"io": [{"device": f"0{there}", "write_bps": "1M"}]})
        assert plan.shape.quotas.io[0].device == there


def test_a_job_without_switches_costs_no_switch(tmp_path):
    """What a job does not ask for is None: no filter of its own is compiled, no list of devices made."""
    plan = _plan(_planner(tmp_path), command=["x"], cap_add=[])
    assert (plan.privileges, plan.shape.devices, plan.shape.is_privileged) == (None, (), False)
    assert not (tmp_path / "templates").exists()


def test_what_the_operator_allows_reaches_the_plan(tmp_path):
    """Capabilities by name with a filter for them, a device by its number, privileged without a filter."""
    planner = _planner(tmp_path, cap_add=("SYS_PTRACE",), devices=("/dev/n*",))
    added = _plan(planner, command=["x"], cap_add=["sys_ptrace", "KILL"]).privileges
    assert added.capabilities == DEFAULT_MASK | _PTRACE
    assert added.ambient == _PTRACE | 1 << 5
    assert Path(added.filter_path).is_file()
    assert not added.gains
    (device,) = _plan(planner, command=["x"], devices=["/dev/null:/dev/own/hole:r"]).shape.devices
    assert device == Device("c", 1, 3, "r", "/dev/own/hole")
    assert _plan(planner, command=["x"], cap_drop="ALL").privileges.capabilities == 0
    free = _plan(_planner(tmp_path, privileged=True), command=["x"], privileged=True)
    assert free.shape.is_privileged
    assert free.privileges == Privileges(capabilities=(1 << 41) - 1, gains=True)


def test_a_device_is_allowed_by_where_it_really_lies(tmp_path):
    """A glob's star ends at a slash, and a link among the allowed ones does not lead to another device."""
    planner = _planner(tmp_path, devices=("/dev/f*",))
    assert os.path.realpath("/dev/fd/0") != "/dev/fd/0"
    for source in ("/dev/fd/0", "/dev/zero"):
        with pytest.raises(SpecError, match=r"devices\[0\]"):
            _plan(planner, command=["x"], devices=[f"{source}:/dev/x"])
    assert _plan(planner, command=["x"], devices=["/dev/full:/dev/x"]).shape.devices[0].minor == 7


def test_devices_that_this_host_cannot_limit_are_refused(tmp_path):
    """Without a list in the kernel a job gets no device: it is refused with what is missing."""

    class Lacking(FullHierarchy):
        lacking = {"devices": "no controller devices"}  # noqa: RUF012 - read only

    with pytest.raises(SpecError, match="devices: this worker cannot enforce it: no controller devices"):
        _plan(_planner(tmp_path, Lacking(), devices=None), command=["x"], devices=["/dev/full:/dev/x"])


def test_a_plan_with_every_switch_survives_its_json(tmp_path):
    """The record is JSON: a keeper, or the next agent, reads the same plan from it; also one of before the switches."""
    allow = {"cap_add": None, "devices": None, "privileged": True, "seccomp_unconfined": True}
    switches = {"cap_add": "ALL", "devices": "/dev/full:/dev/x:rwm", "privileged": True, "seccomp": "unconfined"}
    plan = _plan(_planner(tmp_path, **allow), command=["x"], **switches)
    assert ContainerPlan.from_json(json.loads(json.dumps(plan, default=fields_of))) == plan
    older = json.loads(json.dumps(_plan(_planner(tmp_path), command=["x"]), default=fields_of))
    for place, name in ((older, "privileges"), (older["shape"], "devices"), (older["shape"], "is_privileged")):
        del place[name]
    assert ContainerPlan.from_json(older) == _plan(_planner(tmp_path), command=["x"])


def test_an_image_without_a_command_needs_one_from_the_document(tmp_path):
    """Nothing to run is the document's fault, not an empty exec."""
    with pytest.raises(SpecError, match="command"):
        _plan(_planner(tmp_path), _PLAIN)


def test_a_limit_that_this_host_cannot_enforce_is_refused_when_it_is_stated(tmp_path):
    """A stated limit is enforced or refused; a share that cannot be enforced is left out."""

    class Lacking(FullHierarchy):
        lacking = {"memory": "no memory controller"}  # noqa: RUF012 - read only

    planner = _planner(tmp_path, Lacking())
    assert _plan(planner, command=["x"]).shape.quotas.memory_bytes is None
    with pytest.raises(SpecError, match=r"limits\.memory.*no memory controller"):
        _plan(planner, command=["x"], limits={"memory": "64M"})


def test_a_disk_limit_that_this_host_cannot_enforce_is_refused_when_it_is_stated(tmp_path):
    """Without disks of a size the share is left out, which makes the disk unlimited; a stated limit is refused."""
    planner = _planner(tmp_path, why_unlimited="no loop devices")
    assert _plan(planner, command=["x"]).shape.disk_bytes is None
    with pytest.raises(SpecError, match=r"limits\.disk.*no loop devices"):
        _plan(planner, command=["x"], limits={"disk": "64M"})


def test_a_mount_is_allowed_by_where_it_really_lies(tmp_path):
    """A link in an allowed directory does not lead out of it; what is allowed is handed on without links."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "inside").mkdir()
    (allowed / "link").symlink_to("inside")
    (allowed / "out").symlink_to("/etc")
    planner = _planner(tmp_path, mounts=(allowed,))
    (mount,) = _plan(planner, command=["x"], mounts=[f"{allowed}/link:/mnt:rw"]).mounts
    assert (Path(mount.source), mount.target, mount.writable) == (allowed / "inside", "/mnt", True)
    with pytest.raises(SpecError, match="/etc"):
        _plan(planner, command=["x"], mounts=[f"{allowed}/out:/mnt"])


@pytest.mark.attack("A13")
@pytest.mark.parametrize(("is_service", "field"), [(False, "image"), (True, r"services\[0\]\.image")])
def test_a_directory_is_an_image_only_where_the_operator_allows_it(tmp_path, is_service, field):
    """All in it is the job's root to read, so the operator names it, as it really lies; for services likewise."""
    for name in ("allowed/root", "home"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed/out").symlink_to(tmp_path / "home")

    def plan(path, **allow):
        found = ImageStore(tmp_path / "dayfly").resolve(f"{path}/")
        own, service = (_PLAIN, found) if is_service else (found, _PLAIN)
        planner = _planner(tmp_path, **allow)
        spec = read_job({"image": "host", "command": ["x"], "services": [{"image": "x", "name": "db", "command": "y"}]})
        container = planner.plan(spec, own, Identity("J1", 1), None)
        return container.shape.image_layers, planner.services(spec, (service,), container.shape)

    only = {"image_dirs": (tmp_path / "allowed",)}
    plan(tmp_path / "allowed/root", **only)
    plan(tmp_path / "home", image_dirs=None)
    for path, allow in ((tmp_path / "home", {}), (tmp_path / "home", only), (tmp_path / "allowed/out", only)):
        with pytest.raises(SpecError, match=rf"^{field}: .*{tmp_path}/home as an image \(\[allow\] image_dirs\)"):
            plan(path, **allow)


def test_the_operators_default_image_may_be_any_directory(tmp_path):
    """It is the operator's own choice: a worker does not refuse what its own configuration gives each job."""
    (tmp_path / "root").mkdir()
    settings = WorkerSettings(tmp_path, "unix:///x", "w", defaults=JobDefaults(image=f"{tmp_path}/root"))
    planner = Planner(settings, Capacity(1000, 512, 1024), FullHierarchy(), None)
    image = ImageStore(tmp_path / "dayfly").resolve(f"{tmp_path}/root")
    assert planner.shape(read_job({"command": ["x"]}), image).image_layers == (f"{tmp_path}/root",)


def test_a_live_directory_keeps_device_and_inode(tmp_path):
    """The keeper can check that it is still the directory that was meant."""
    facts = os.stat(tmp_path)
    directory = {"path": str(tmp_path), "host": host_id(), "device": facts.st_dev, "inode": facts.st_ino}
    workspace = _plan(_planner(tmp_path, dirs=None), command=["x"], dir=directory).workspace
    assert (workspace.source, workspace.device, workspace.inode) == (str(tmp_path), facts.st_dev, facts.st_ino)


def test_an_image_without_a_command_is_said_to_have_none(tmp_path):
    """What the door cannot know, since the job names no image, the worker says in the door's words."""
    with pytest.raises(SpecError) as worker:
        _planner(tmp_path).plan(read_job({"name": "foo"}), replace(_PLAIN, name="host"), Identity("J1", 1), None)
    with pytest.raises(SpecError) as door:
        read_job({"image": "host"})
    assert str(worker.value) == str(door.value)
    assert _plan(_planner(tmp_path)).process.argv == ("/entry", "serve")


def test_a_job_with_fewer_pids_than_a_runtime_needs_is_refused(tmp_path):
    """It would fail in the runtime's own start; without a runtime two are enough."""
    with pytest.raises(SpecError, match=r"limits\.pids: this worker's OCI runtime needs 16 .*, got 15"):
        _plan(_planner(tmp_path, oci_runtime="runc"), limits={"pids": 15})
    assert _plan(_planner(tmp_path, oci_runtime="runc"), limits={"pids": 16}).shape.quotas.pids == 16
    assert _plan(_planner(tmp_path), limits={"pids": 2}).shape.quotas.pids == 2

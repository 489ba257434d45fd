"""Attacks from inside of a container, each tried twice: with every defence, and with one of them off (its control).

A control takes its defence away in the test's own process, which a container's init is forked from. One that bites
proves that the attack is real and that it was this defence which held; where the kernel itself has closed the hole, the
test says so instead. The counts stand in the summary, and with them tests elsewhere that are marked as attacks or
controls; `pytest -m "attack or control"` runs all there are.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer
from dayfly.runtime import capabilities, seccomp, syscalls
from dayfly.runtime.cgroups import v1, v2
from dayfly.runtime.container import Container, Host
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.oci import monitor, runtime_call
from dayfly.runtime.oci.oci_runtime import OciRuntime
from dayfly.runtime.operations import Mask, ReadOnly
from dayfly.runtime.shape import ContainerPlan, Process, Shape

Patch = pytest.MonkeyPatch
_DEADLINE_SECONDS = 60.0

# What every program begins with: raw system calls, and what became of a call as its errno (0: it worked).
_PRELUDE = """
import ctypes, json, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *words):
    ctypes.set_errno(0)
    words = [word if isinstance(word, (bytes, ctypes.Array)) else ctypes.c_long(word) for word in words]
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *words) < 0 else 0
def tell(value): print(json.dumps(value))
def tries(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0
"""

_OFFER = Capacity(4000, 8192, 40960)


@dataclass
class Tally:
    """What became of the attacks of this run."""

    tried: int = 0
    held: int = 0
    bit: int = 0
    closed: list[str] = field(default_factory=list)

    def judge(self, *, held: bool, bit: bool, seen: object) -> None:
        """Count one attack and its control, and fail when either is not as it should be."""
        self.tried += 1
        assert held, f"the attack was not stopped: {seen}"
        self.held += 1
        assert bit, f"the control did not bite, so the test proves nothing: {seen}"
        self.bit += 1

    def judge_alone(self, *, held: bool, closed: str, seen: object) -> None:
        """Count one attack without a control, since the kernel has `closed` the hole by itself."""
        self.tried += 1
        assert held, f"the attack was not stopped: {seen}"
        self.held += 1
        self.closed.append(closed)


_TALLY = pytest.StashKey[Tally]()
_MARKED = pytest.StashKey[set[str]]()
_HERE = os.path.dirname(__file__)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything here is an attack; of what is marked elsewhere, remember which."""
    marked = config.stash.setdefault(_MARKED, set())
    for item in items:
        if str(item.path).startswith(_HERE):
            item.add_marker(pytest.mark.attack)
        elif any(item.iter_markers("attack")) or any(item.iter_markers("control")):
            marked.add(item.nodeid)


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    return request.config.stash.setdefault(_TALLY, Tally())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tally = config.stash.get(_TALLY, Tally())
    _count_elsewhere(tally, config.stash.get(_MARKED, set()), terminalreporter.stats)
    if tally.tried:
        counts = f"{tally.tried} tried, {tally.held} held, {tally.bit} controls bit"
        terminalreporter.write_line(f"attacks: {counts}, {len(tally.closed)} closed by this kernel itself")
        for each in tally.closed:
            terminalreporter.write_line(f"    closed: {each}")


def _count_elsewhere(tally: Tally, marked: set[str], reports: dict[str, list[Any]]) -> None:
    """A marked test is one attack, or one control, or both, and passes only when each was as it should be."""
    for outcome in ("passed", "failed"):
        for report in reports.get(outcome, []):
            if report.nodeid in marked and report.when == "call":
                tally.tried += "attack" in report.keywords
                tally.held += "attack" in report.keywords and report.passed
                tally.bit += "control" in report.keywords and report.passed


@dataclass
class Running:
    """A job that goes on beside the test. It tells values, one a line; `leave` ends it."""

    container: Container

    def told(self) -> Any:
        """The next value that it tells; None when it has ended."""
        line = b""
        while not line.endswith(b"\n"):
            assert select.select([self.container.init.stdout], [], [], _DEADLINE_SECONDS)[0], "the job says nothing"
            letter = os.read(self.container.init.stdout, 1)
            if not letter:
                return None
            line += letter
        return json.loads(line)

    def leave(self) -> None:
        self.container.discard()


@pytest.fixture
def begin(host: Host, shape: Shape, prelude: str) -> Iterator[Callable[..., Running]]:
    """`begin(PROGRAM, **fields)`: start a Python program as a job that may go on; `shape` fields are the shape's."""
    begun: list[Running] = []

    def start(program: str, *arguments: str, **fields: Any) -> Running:
        wanted = replace(shape, **{name: fields.pop(name) for name in list(fields) if hasattr(shape, name)})
        process = Process(argv=("python3", "-uc", prelude + program, *arguments), env={"PATH": "/usr/bin:/bin"})
        container = Container.prepare(host, wanted, os.urandom(8).hex())
        begun.append(Running(container))
        refusal = container.start(ContainerPlan(shape=wanted, process=process, **fields), signal.SIGTERM)
        assert refusal is None
        return begun[-1]

    yield start
    for running in begun:
        running.leave()


@pytest.fixture(scope="session")
def prelude() -> str:
    """What `attack` puts before each program: call(number, …), tries(function, …) and tell(value)."""
    return _PRELUDE


@pytest.fixture
def attack(run: Callable[..., Any], prelude: str) -> Callable[..., Any]:
    """`attack(PROGRAM, without=("seccomp",), **fields)`: run a Python program as a job, less the defences named.

    The program tells one value, which is returned; None when it could not even start.
    """

    def run_attack(program: str, *arguments: str, without: tuple[str, ...] = (), **fields: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name in without:
                _OFF[name](patch)
            ran = run("python3", "-c", prelude + program, *arguments, **fields)
        ran.container.discard()  # a race tries hundreds
        assert ran.stdout or ran.refusal, ran
        return json.loads(ran.stdout) if ran.stdout else None

    return run_attack


def _told(patch: Patch, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what an OCI runtime is told of the job's process."""
    real = monitor.document

    def document(*words: Any) -> dict[str, Any]:
        config = real(*words)
        change(config["process"])
        return config

    patch.setattr(monitor, "document", document)


def _no_seccomp(patch: Patch) -> None:
    patch.setattr(seccomp, "install", lambda program: None)
    patch.setattr(OciRuntime, "section", lambda own, privileges: None)


def _every_capability(patch: Patch, function: str, *sets: str) -> None:
    every = [f"CAP_{name}" for name in capabilities.NUMBERS]
    patch.setattr(capabilities, function, lambda kept: None)
    _told(patch, lambda process: process["capabilities"].update(dict.fromkeys(sets, every)))


def _no_new_privs(patch: Patch) -> None:
    _prctl(syscalls.PR_SET_NO_NEW_PRIVS, lambda real: 0)(patch)
    _told(patch, lambda process: process.update(noNewPrivileges=False))


def _no_keyring(patch: Patch) -> None:
    patch.setattr(syscalls, "keyctl", lambda *words: 0)
    patch.setattr(runtime_call, "OPTIONS", (*runtime_call.OPTIONS, "--no-new-keyring"))


def _prctl(option: int, instead: Callable[[Callable[..., int]], int]) -> Callable[[Patch], None]:
    def off(patch: Patch) -> None:
        real = syscalls.prctl
        patch.setattr(syscalls, "prctl", lambda *words: instead(real) if words[0] == option else real(*words))

    return off


def _no_namespace(kind: str) -> Callable[[Patch], None]:
    def off(patch: Patch) -> None:
        real = Namespaces.enter
        patch.setattr(Namespaces, "enter", lambda own, *names: real(own, *(each for each in names if each != kind)))

    return off


def _no_limits_of_resources(patch: Patch) -> None:
    patch.setattr(resource, "setrlimit", lambda *words: None)


def _no_list_of_devices(patch: Patch) -> None:
    for each in (v1.Cgroup, v2.Cgroup):
        patch.setattr(each, "restrict", lambda own, only: None)


_OFF: dict[str, Callable[[Patch], None]] = {
    "seccomp": _no_seccomp,
    "bounding": lambda patch: _every_capability(patch, "drop_bounding", "bounding"),
    "capabilities": lambda patch: _every_capability(patch, "lower", "permitted", "effective"),
    "nosuid": lambda patch: patch.setattr(syscalls, "MS_NOSUID", 0),
    "no_new_privs": _no_new_privs,
    # The kernel takes it away with the ids too (commit_creds), so the control gives it back.
    "undumpable": _prctl(syscalls.PR_SET_DUMPABLE, lambda real: real(syscalls.PR_SET_DUMPABLE, 1)),
    "keyring": _no_keyring,
    "close_range": lambda patch: patch.setattr(syscalls, "close_range", lambda *words: None),
    "groups": lambda patch: patch.setattr(os, "setgroups", lambda groups: None),
    "user namespace": _no_namespace("user"),
    "ipc namespace": _no_namespace("ipc"),
    "net namespace": _no_namespace("net"),
    "masks": lambda patch: patch.setattr(Mask, "apply", lambda own: None),
    "read-only": lambda patch: patch.setattr(ReadOnly, "apply", lambda own: None),
    "rlimits": _no_limits_of_resources,
    "devices": _no_list_of_devices,
}


@pytest.fixture
def redis(valkey: str) -> Iterator[Redis]:
    with contextlib.closing(connect(valkey)) as client:
        yield client


@pytest.fixture
def consumer(redis: Redis) -> Consumer:
    consumer = Consumer(redis, "w", ["default", "deploy"], "host-1", {}, offer=_OFFER, share=_OFFER.share(4))
    consumer.register()
    return consumer


@pytest.fixture
def exchanging() -> Callable[[Path, Path], AbstractContextManager[list[int]]]:
    """`with exchanging(one, other) as swaps`: two names change places all the time; counts how often."""
    return _exchanging


@contextmanager
def _exchanging(one: Path, other: Path) -> Iterator[list[int]]:
    """renameat2(2), RENAME_EXCHANGE, in a thread that holds no lock of ours: as good as another process."""
    libc, swaps, stop = ctypes.CDLL(None), [0], threading.Event()
    number, exchange = (316 if os.uname().machine == "x86_64" else 276), 2

    def swap() -> None:
        here = ctypes.c_int(syscalls.AT_FDCWD)
        names = os.fsencode(one), os.fsencode(other)
        while not stop.is_set():
            libc.syscall(ctypes.c_long(number), here, names[0], here, names[1], ctypes.c_uint(exchange))
            swaps[0] += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield swaps
    finally:
        stop.set()
        thread.join()

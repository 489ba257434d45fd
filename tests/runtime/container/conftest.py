"""Real containers of the image `host`, run in the test's own process as a keeper would."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime import seccomp
from dayfly.runtime.cgroups.hierarchy import open_hierarchy
from dayfly.runtime.container import Container, Host
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.init_process import End, Refusal
from dayfly.runtime.rootfs import make_stage
from dayfly.runtime.shape import ContainerPlan, Process, Quotas, Shape

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SIGTERM = 15


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


@pytest.fixture
def host(tmp_path: Path, nothing_left: None) -> Iterator[Host]:
    """What all containers of a home share."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    hierarchy = open_hierarchy(f"test-{os.getpid()}")
    yield Host(str(home), make_stage(str(home)), hierarchy, seccomp.load(seccomp.cached(str(home))))
    for token in hierarchy.existing():
        hierarchy.remove(token)
    hierarchy.leave()


@pytest.fixture
def shape(host: Host) -> Shape:
    """The image `host` with modest limits."""
    image = ImageStore(host.home).resolve("host")
    quotas = Quotas(cpus=1.0, memory_bytes=128 << 20, swap_bytes=0, pids=64)
    return Shape(image_layers=image.layers, host_trees=image.host_trees, disk_bytes=64 << 20, quotas=quotas)


@pytest.fixture
def run(host: Host, shape: Shape) -> Iterator[Callable[..., Ran]]:
    """`run("sh", "-c", "…", user="1000")`: the command's output and end; other plan fields by keyword."""
    containers: list[Container] = []

    def run(*argv: str, **fields: Any) -> Ran:
        wanted = replace(shape, **{name: fields.pop(name) for name in list(fields) if hasattr(shape, name)})
        process = {name: fields.pop(name) for name in list(fields) if name in ("cwd", "user", "env", "stdin")}
        container = Container.prepare(host, wanted, os.urandom(8).hex())
        containers.append(container)
        plan = ContainerPlan(shape=wanted, process=Process(argv=argv, **{"env": {"PATH": _PATH}, **process}), **fields)
        refusal = container.start(plan, _SIGTERM)
        end = None if refusal else container.init.end()
        container.init.reap()
        return Ran(_read(container.init.stdout), _read(container.init.stderr), refusal, end, container)

    yield run
    for container in containers:
        container.discard()


def _read(fd: int) -> str:
    """Everything in a pipe whose writers are gone."""
    text = b""
    while chunk := os.read(fd, 1 << 16):
        text += chunk
    return text.decode(errors="replace")

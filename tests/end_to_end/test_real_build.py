"""Real projects in a real Debian: what a job builds is byte for byte what the same build makes without Dayfly."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(900)]

# Debian's own mirror and keys, whatever they are here: mmdebstrap knows them, and its hook asks the same for sources.
_SOURCES_ON = 'sed "s/^deb /deb-src /" "$1/etc/apt/sources.list" >"$1/etc/apt/sources.list.d/source.list"'
_SOURCES_OFF = 'rm "$1/etc/apt/sources.list.d/source.list"'
_FETCH = (
    "export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG; cd {} && apt-get -q update && "
    "apt-get -q source --download-only -o APT::Sandbox::User=root {}"
)
_BUILD = "./configure && make && make check"


@dataclass(frozen=True)
class Project:
    """A source package of Debian, what of its build is compared, and what its test suite says when all is well."""

    name: str
    artifacts: tuple[str, ...]
    passed: str


_PROJECTS = (
    # One of its five tests (greeting-2) skips itself on all nights but those of the full moon.
    Project(
        "hello",
        ("hello", "src/*.o", "lib/**/*.o", "lib/*.a", "config.h", "po/*.gmo"),
        r"# TOTAL: 5\n# PASS:  [45]\n.*# FAIL:  0\n.*# ERROR: 0\n",
    ),
    Project("zlib", ("libz.a", "libz.so.*", "*.o", "example", "minigzip", "zlib.pc"), r"zlib 64-bit test OK"),
)


@dataclass(frozen=True)
class Debian:
    """A root with a C toolchain as a tarball, the same unpacked, and the directory of the source packages."""

    tar: Path
    root: Path
    sources: Path


@pytest.fixture(scope="session")
def debian(
    tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str], lacks: Callable[[str], Any]
) -> Iterator[Debian]:
    """Made once per session: it takes about a minute, and needs Debian's archive."""
    directory = tmp_path_factory.mktemp("debian")
    made = Debian(directory / "root.tar", directory / "root", directory / "sources")
    made.sources.mkdir()
    fetch = _FETCH.format(shlex.quote(str(made.sources)), " ".join(project.name for project in _PROJECTS))
    hooks = [f"--customize-hook={hook}" for hook in (_SOURCES_ON, fetch, _SOURCES_OFF)]
    packages = "--include=build-essential"
    command = [need_tool("mmdebstrap"), "--mode=root", "--variant=apt", packages, *hooks, "bookworm", str(made.tar)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        lacks(f"a Debian archive that mmdebstrap can use:\n{done.stderr[-2000:]}")
    made.root.mkdir()
    # Its device nodes are not needed: the build outside gets a /dev of its own.
    subprocess.run(["tar", "-xf", made.tar, "-C", made.root, "--exclude=./dev/*"], check=True)
    yield made
    shutil.rmtree(directory)


@pytest.fixture
def unpack(debian: Debian, need_tool: Callable[[str], str], tmp_path: Path) -> Callable[[Project], Path]:
    """The source directory of a project, with Debian's patches."""

    def unpack(project: Project) -> Path:
        (description,) = debian.sources.glob(f"{project.name}_*.dsc")
        directory = tmp_path / project.name
        command = [need_tool("dpkg-source"), "--no-check", "--extract", str(description), str(directory)]
        subprocess.run(command, check=True, capture_output=True)
        return directory

    return unpack


def _build_outside(root: Path, source: Path) -> Path:
    """The same commands on the same files at the same path, by chroot(1) alone. Returns the directory of the build."""
    workspace = root / "workspace"
    shutil.copytree(source, workspace, symlinks=True)
    setup = f"mount -t tmpfs tmpfs {root}/dev; mknod -m 666 {root}/dev/null c 1 3; mount -t proc proc {root}/proc"
    program = f"set -e; {setup}; exec chroot {root} /bin/sh -ec 'cd /workspace; {_BUILD}'"
    command = ["unshare", "--mount", "--pid", "--fork", "--net", "/bin/sh", "-c", program]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return workspace


def _fingerprint(tree: Path) -> str:
    """Every name, kind, mode, owner, time and content below a directory, in one digest."""
    digest = hashlib.sha256()
    for path in sorted([tree, *tree.rglob("*")]):
        status = path.lstat()
        digest.update(f"{path}\0{status.st_mode} {status.st_uid} {status.st_gid} {status.st_mtime_ns}\0".encode())
        if stat.S_ISREG(status.st_mode):
            digest.update(path.read_bytes())
        elif stat.S_ISLNK(status.st_mode):
            digest.update(os.readlink(path).encode())
    return digest.hexdigest()


def _files(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.mark.parametrize("project", _PROJECTS, ids=lambda project: project.name)
def test_a_build_inside_makes_what_it_makes_outside(
    host: Any, debian: Debian, unpack: Callable[[Project], Path], project: Project, tmp_path: Path
) -> None:
    """Built and tested in an imported Debian: artifacts byte-identical, image and source untouched, nothing left."""
    source = unpack(project)
    imported = host.dayfly("image", "import", str(debian.tar), "debian:build")
    assert imported.returncode == 0, imported.stderr
    layers = list((host.home / "images/layers").glob("*"))  # as they are now: `host` may get one beside them
    assert layers
    before = [_fingerprint(tree) for tree in (source, *layers)]
    host.start()
    wanted = [part for pattern in project.artifacts for part in ("--artifact", pattern)]
    out = tmp_path / "out"
    run = ["run", "--image", "debian:build", "--dir", str(source), *wanted, "--out", str(out)]
    done = host.dayfly(*run, "--", "sh", "-ec", _BUILD, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(project.passed, done.stdout, re.DOTALL), done.stdout[-2000:]
    assert [_fingerprint(tree) for tree in (source, *layers)] == before
    try:
        outside = _files(_build_outside(debian.root, source))
    finally:
        shutil.rmtree(debian.root / "workspace")
    inside = _files(out)
    assert len(inside) >= len(project.artifacts)
    assert [name for name, content in inside.items() if outside.get(name) != content] == []
    print(f"{project.name}: {len(inside)} artifacts, {sum(map(len, inside.values()))} bytes, all identical")

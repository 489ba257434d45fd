"""Archives, layouts and stores for the tests of images."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dayfly.runtime.images.image import Image
from dayfly.runtime.images.store import ImageStore

Snapshot = dict[bytes, tuple[object, ...]]


class TarMaker:
    """Writes archives entry by entry, without any of the checks that tar(1) would make."""

    def __init__(self, **options: Any) -> None:
        self._buffer = io.BytesIO()
        options.setdefault("format", tarfile.PAX_FORMAT)
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", errors="surrogateescape", **options)  # noqa: SIM115  # `bytes` closes it

    def add(self, name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> TarMaker:
        entry = tarfile.TarInfo(name)
        entry.type, entry.size = kind, len(content)
        entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        for field, value in fields.items():
            setattr(entry, field, value)
        self._tar.addfile(entry, io.BytesIO(content))
        return self

    def file(self, name: str, content: bytes = b"x", **fields: Any) -> TarMaker:
        return self.add(name, tarfile.REGTYPE, content, **fields)

    def directory(self, name: str, **fields: Any) -> TarMaker:
        return self.add(name, tarfile.DIRTYPE, **fields)

    def symlink(self, name: str, target: str, **fields: Any) -> TarMaker:
        return self.add(name, tarfile.SYMTYPE, linkname=target, **fields)

    def hard_link(self, name: str, target: str) -> TarMaker:
        return self.add(name, tarfile.LNKTYPE, linkname=target)

    def bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


class LayoutMaker:
    """Writes an OCI layout; what is wrong in it is wrong because a test wants it so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, raw: bytes, media_type: str, **extra: Any) -> dict[str, Any]:
        digest = hashlib.sha256(raw).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(raw)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw), **extra}

    def layer(self, tar: bytes, pack: Callable[[bytes], bytes] = gzip.compress) -> dict[str, Any]:
        return self.blob(pack(tar), "application/vnd.oci.image.layer.v1.tar+gzip")

    def image(
        self, tars: Sequence[bytes], config: dict[str, Any] | None = None, kind: str = "oci", **extra: Any
    ) -> dict[str, Any]:
        """The descriptor of an image of these layers, the bottom one first."""
        types = {
            "oci": ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.manifest.v1+json"),
            "docker": (
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.distribution.manifest.v2+json",
            ),
        }[kind]
        diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
        whole = {"os": "linux", "config": config or {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        document = {
            "schemaVersion": 2,
            "config": self.blob(json.dumps(whole).encode(), types[0]),
            "layers": [self.layer(tar) for tar in tars],
        }
        return self.blob(json.dumps(document).encode(), types[1], **extra)

    def index(self, *descriptors: dict[str, Any]) -> str:
        """Finish the layout; returns its path as a source for an import."""
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(descriptors)}))
        return str(self.path)


@pytest.fixture
def store(home: Path) -> ImageStore:
    return ImageStore(home)


@pytest.fixture
def tar() -> type[TarMaker]:
    return TarMaker


@pytest.fixture
def layout(tmp_path: Path) -> LayoutMaker:
    return LayoutMaker(tmp_path / "layout")


@pytest.fixture
def import_tar(store: ImageStore, tmp_path: Path) -> Callable[[bytes], Path]:
    """Imports an archive as a root; returns the path of its layer."""

    def run(archive: bytes) -> Path:
        path = tmp_path / "root.tar"
        path.write_bytes(archive)
        return Path(store.import_(str(path), "image").image.layers[0])

    return run


@pytest.fixture
def import_layers(store: ImageStore, layout: LayoutMaker) -> Callable[..., Image]:
    """Imports an image of several layers, the bottom one first."""

    def run(*tars: bytes) -> Image:
        return store.import_(layout.index(layout.image(tars)), "image").image

    return run


@pytest.fixture
def merged(tmp_path: Path, lacks: Callable[[str], NoReturn]) -> Iterator[Callable[[Image], Path]]:
    """Mounts an image's layers as overlay, as a job sees them; returns the mount point."""
    mounted: list[Path] = []

    def mount(image: Image) -> Path:
        if os.geteuid():
            lacks("root, to mount an overlay")
        point = tmp_path / f"merged{len(mounted)}"
        upper, work = tmp_path / f"upper{len(mounted)}", tmp_path / f"work{len(mounted)}"
        for path in (point, upper, work):
            path.mkdir()
        options = f"lowerdir={':'.join(image.layers)},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(point)], check=True)
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", str(point)], check=True)


@pytest.fixture(scope="session")
def snapshot() -> Callable[..., Snapshot]:
    """Everything that tells two trees apart, by path: type, mode, owner, time, content, attributes, links."""

    def take(top: str | Path, without: Sequence[bytes] = ()) -> Snapshot:
        root = os.fsencode(top)
        found: Snapshot = {}
        for directory, names, files in os.walk(root):
            for path in [directory, *(os.path.join(directory, name) for name in [*names, *files])]:
                relative = os.path.relpath(path, root)
                if relative not in without:
                    found[relative] = _described(path)
        return found

    return take


def _described(path: bytes) -> tuple[object, ...]:
    status = os.lstat(path)
    content: bytes | str = b""
    if stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    names = os.listxattr(path, follow_symlinks=False)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
    return (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, attributes, links)


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> Path:
    """The tarball of a real Debian root, made once per session."""
    directory = tmp_path_factory.mktemp("debian")
    path = directory / "root.tar"
    command = [need_tool("mmdebstrap"), "--quiet", "--variant=essential", "bookworm", str(path)]
    made = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(directory)})
    assert made.returncode == 0, made.stderr
    return path

"""An image of this machine's own files, as a layout and in a registry of its own."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bench.root import make_root

_BYTES, _LAYERS = 500_000_000, 12
_DEADLINE_SECONDS = 30.0


class BigImage(AbstractContextManager["BigImage"]):
    """`name` is what registries know it by, `layout` its OCI layout, `layers` its packed ones, the bottom first."""

    def __init__(self, directory: Path) -> None:
        self.layout = directory / "layout"
        self.layers = list(_pack(directory))
        self.bytes, self.packed_bytes = _lay_out(self.layout, self.layers)
        address = f"127.0.0.1:{_free_port()}"
        self.name = f"{address}/bench:latest"
        self._registry = _start_registry(directory, address)
        source, target = f"oci:{self.layout}:bench", f"docker://{self.name}"
        subprocess.run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", source, target], check=True)

    def __exit__(self, *_: object) -> None:
        self._registry.terminate()
        self._registry.wait(_DEADLINE_SECONDS)


def _pack(directory: Path) -> Iterator[Path]:
    """The lowest layer is a small root that containers can start from."""
    root = make_root(directory / "root")
    files = _files()
    for number in range(_LAYERS):
        names = directory / "names"
        names.write_bytes(b"\0".join(os.fsencode(name) for name in _up_to(files, _BYTES // _LAYERS)))
        own = ["-C", str(root), "."] if number == 0 else []
        path = directory / f"layer{number}.tar.gz"
        chosen = ["-C", "/", "--null", "--no-recursion", f"--files-from={names}"]
        subprocess.run(["tar", "-czf", str(path), *own, *chosen], check=True, stderr=subprocess.DEVNULL)
        yield path


def _files() -> Iterator[tuple[str, int]]:
    """Names without the leading slash, and sizes; what the small root has is left out."""
    for top in ("/usr/share", "/usr/lib"):
        for directory, names, files in os.walk(top):
            names.sort()
            for name in sorted(files):
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path) and "x86_64-linux-gnu" not in directory:
                    yield path.lstrip("/"), os.path.getsize(path)


def _up_to(files: Iterator[tuple[str, int]], size: int) -> Iterator[str]:
    for name, length in files:
        yield name
        size -= length
        if size <= 0:
            return


def _lay_out(layout: Path, layers: list[Path]) -> tuple[int, int]:
    """Write it; returns the bytes of the layers, unpacked and packed."""
    (layout / "blobs/sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    sizes, diff_ids, descriptors = 0, [], []
    for layer in layers:
        raw = subprocess.run(["gzip", "-dc", str(layer)], check=True, capture_output=True).stdout
        sizes += len(raw)
        diff_ids.append(f"sha256:{hashlib.sha256(raw).hexdigest()}")
        descriptors.append(_blob(layout, layer.read_bytes(), "layer.v1.tar+gzip"))
    platform = {"os": "linux", "architecture": "amd64"}
    config = {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    described = _blob(layout, json.dumps(config).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": described, "layers": descriptors}
    top = _blob(layout, json.dumps(manifest).encode(), "manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return sizes, sum(layer.stat().st_size for layer in layers)


def _blob(layout: Path, raw: bytes, kind: str) -> dict[str, object]:
    digest = hashlib.sha256(raw).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(raw)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(raw)}


def _start_registry(directory: Path, address: str) -> subprocess.Popen[bytes]:
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
        "http": {"addr": address},
    }
    (directory / "registry.yml").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(directory / "registry.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host, port = address.split(":")
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return process
        time.sleep(0.02)
    process.kill()
    raise RuntimeError("the bench's registry did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

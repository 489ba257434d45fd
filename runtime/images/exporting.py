"""Writes an image as an OCI layout (image-spec, image-layout.md): a directory, or a tar archive of one.

A directory that holds a layout gets the image added, under a tag of its own, as skopeo and umoci do.
"""

import contextlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from typing import Any

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.manifest import canonical_json, digest_of, media_type_of
from dayfly.runtime.images.packaged import PackagedImage

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_INDEX = "application/vnd.oci.image.index.v1+json"
_REF_NAME = "org.opencontainers.image.ref.name"
_LATEST = "latest"
_ARCHIVES = (".tar", ".oci")


def export(image: PackagedImage, target: str) -> None:
    """Write it to `DIRECTORY[:TAG]` or `FILE.tar[:TAG]`. Raises ImageError."""
    path, _, tag = target.rpartition(":") if ":" in os.path.basename(target) else (target, "", "")
    try:
        if path.endswith(_ARCHIVES):
            write_archive(image, path, tag or _LATEST)
        else:
            write_layout(image, path, tag or _LATEST)
    except OSError as error:
        raise ImageError(f"cannot export to {path}: {error.strerror}: {error.filename or path}") from error


def write_layout(image: PackagedImage, directory: str, tag: str) -> None:
    """Add the image to the layout in `directory`, which is made when it is not there. Raises ImageError, OSError."""
    os.makedirs(f"{directory}/blobs/sha256", exist_ok=True)
    if not os.path.exists(f"{directory}/oci-layout"):
        if set(os.listdir(directory)) - {"blobs"}:
            raise ImageError(f"cannot export to {directory}: it is neither empty nor an OCI layout")
        _write(f"{directory}/oci-layout", _LAYOUT)
    for digest, raw in _small_blobs(image):
        _write(_blob(directory, digest), raw)
    for layer, file in zip(image.manifest.layers, image.files, strict=True):
        _copy(file, _blob(directory, layer.digest))
    _write(f"{directory}/index.json", canonical_json(_index(image, tag, _others(directory, tag))))


def write_archive(image: PackagedImage, target: str, tag: str) -> None:
    """Write the image as an archive of a layout: the same image always the same bytes. Raises OSError."""
    new = f"{target}.{os.getpid()}.part"
    try:
        with tarfile.open(new, "w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, "oci-layout", _LAYOUT)
            _add(tar, "index.json", canonical_json(_index(image, tag, [])))
            for digest, raw in _small_blobs(image):
                _add(tar, _blob(".", digest)[2:], raw)
            for layer, file in zip(image.manifest.layers, image.files, strict=True):
                name = _blob(".", layer.digest)[2:]
                if name not in tar.getnames():
                    with open(file, "rb") as content:
                        entry = tarfile.TarInfo(name)
                        entry.size = layer.size
                        tar.addfile(entry, content)
        os.rename(new, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def _small_blobs(image: PackagedImage) -> Iterator[tuple[str, bytes]]:
    for raw in (image.manifest.raw_config, image.manifest.raw):
        yield digest_of(raw), raw


def _index(image: PackagedImage, tag: str, others: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = image.manifest
    own = {
        "mediaType": media_type_of(json.loads(manifest.raw), ""),
        "digest": manifest.digest,
        "size": len(manifest.raw),
        "annotations": {_REF_NAME: tag},
    }
    return {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [*others, own]}


def _others(directory: str, tag: str) -> list[dict[str, Any]]:
    """What the layout holds under other tags."""
    try:
        with open(f"{directory}/index.json", encoding="utf-8") as file:
            found = json.load(file)["manifests"]
        return [each for each in found if each.get("annotations", {}).get(_REF_NAME) != tag]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"cannot export to {directory}: its index.json is damaged: {error}") from error


def _blob(directory: str, digest: str) -> str:
    return f"{directory}/blobs/{digest.replace(':', '/')}"


def _copy(source: str, target: str) -> None:
    if os.path.exists(target):
        return
    new = f"{target}.{os.getpid()}.part"
    shutil.copyfile(source, new)
    os.rename(new, target)


def _write(path: str, raw: bytes) -> None:
    new = f"{path}.{os.getpid()}.part"
    with open(new, "wb") as file:
        file.write(raw)
    os.rename(new, path)


def _add(tar: tarfile.TarFile, name: str, raw: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(raw)
    tar.addfile(entry, io.BytesIO(raw))

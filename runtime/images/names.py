"""Names and blobs of the store: which name means which manifest, and the manifests and configurations themselves.

    blobs/sha256/<digest>    a manifest or configuration, byte for byte
    refs/<escaped name>      the digest of the manifest that the name means
    used/<escaped name>      its time is when a job last asked for the name
    called/<digest of both>  that an image has had a name of this repository here, whatever the name means now

An image that lost its name to a newer one stays under its own digest as a name: a queued job may have pinned it. The
digest of an index is a name too: of the manifest for this machine that it led to.
"""

import contextlib
import hashlib
import os
import secrets
import time

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.manifest import Manifest, config_of, digest_of, read_json, read_manifest
from dayfly.runtime.images.reference import file_name, is_digest, name_of, repository_of

# At the end of a file that is still being written: no name is escaped to such a one (urllib.parse.quote).
UNFINISHED = "+"
_NOTED_SECONDS = 60.0


class Names:
    """The names below the store's directory `root`."""

    def __init__(self, root: str) -> None:
        self._blobs = f"{root}/blobs/sha256"
        self._refs = f"{root}/refs"
        self._used = f"{root}/used"
        self._called = f"{root}/called"
        self._noted: dict[str, float] = {}
        os.makedirs(self._blobs, 0o700, exist_ok=True)
        os.makedirs(self._refs, 0o700, exist_ok=True)
        os.makedirs(self._used, 0o700, exist_ok=True)
        os.makedirs(self._called, 0o700, exist_ok=True)

    def digest(self, name: str) -> str | None:
        """The digest of the manifest that `name` means, or None."""
        try:
            with open(f"{self._refs}/{file_name(name)}", encoding="ascii") as file:
                digest = file.read().strip()
        except FileNotFoundError:
            return None
        if not is_digest(digest):
            raise ImageError(f"the reference of image {name!r} is damaged", "import the image again")
        return digest

    def all(self) -> dict[str, str]:
        """Every name and its digest, in order; a digest stands for an image without a name."""
        found = {}
        for file in sorted(os.listdir(self._refs)):
            if not file.endswith(UNFINISHED) and (digest := self.digest(name_of(file))) is not None:
                found[name_of(file)] = digest
        return found

    def created(self, name: str) -> float:
        """When the name was last given, in unix seconds."""
        return os.stat(f"{self._refs}/{file_name(name)}").st_mtime

    def used(self, name: str) -> float:
        """When a job last asked for the name, or else it was given, in unix seconds."""
        try:
            return os.stat(f"{self._used}/{file_name(name)}").st_mtime
        except FileNotFoundError:
            return self.created(name)

    def mark_used(self, name: str) -> None:
        """A job asks for it. Noted once a minute."""
        now = time.monotonic()
        if now < self._noted.get(name, 0.0):
            return
        self._noted[name] = now + _NOTED_SECONDS
        with contextlib.suppress(OSError):  # a full disk, for one: no reason not to run the job
            path = f"{self._used}/{file_name(name)}"
            with open(path, "w"):
                os.utime(path)

    def give(self, name: str, digest: str) -> None:
        """Let `name` mean the manifest, and keep the one it meant before under its digest. Needs the exclusive lock."""
        before = self.digest(name)
        if before is not None and before != digest and list(self.all().values()).count(before) == 1:
            self._write(self._refs, file_name(before), before.encode())
        self._write(self._refs, file_name(name), digest.encode())
        if not is_digest(name):
            self.call(repository_of(name), digest)
            self.forget(digest)

    def call(self, repository: str, digest: str) -> None:
        """The image, or the index that led to it, is one of this repository."""
        open(self._call(repository, digest), "w").close()

    def is_called(self, repository: str, digest: str) -> bool:
        return os.path.exists(self._call(repository, digest))

    def _call(self, repository: str, digest: str) -> str:
        named = hashlib.sha256(f"{repository}@{digest}".encode()).hexdigest()
        return f"{self._called}/{named}"

    def forget(self, name: str) -> None:
        for directory in (self._refs, self._used):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{directory}/{file_name(name)}")

    def keep(self, manifest: Manifest) -> None:
        """Store a manifest and its configuration."""
        for raw in (manifest.raw_config, manifest.raw):
            self._write(self._blobs, digest_of(raw).removeprefix("sha256:"), raw)

    def manifest(self, digest: str) -> Manifest | None:
        """A stored manifest, or None. Raises ImageError when it is damaged."""
        source = f"image {digest[:19]}"
        raw = self._read_blob(digest)
        if raw is None:
            return None
        document = read_json(raw, source)
        if "config" not in document or "layers" not in document:
            return None  # the digest of a configuration
        raw_config = self._read_blob(config_of(document, source).digest)
        if raw_config is None:
            raise ImageError(f"{source}: its configuration is missing from the store", "import the image again")
        return read_manifest(raw, raw_config, source)

    def delete_blobs_except(self, kept: set[str]) -> int:
        """Delete all blobs but these; returns the bytes freed. Needs the exclusive lock."""
        freed = 0
        for name in os.listdir(self._blobs):
            if "sha256:" + name not in kept:
                freed += os.lstat(f"{self._blobs}/{name}").st_size
                os.unlink(f"{self._blobs}/{name}")
        return freed

    def _read_blob(self, digest: str) -> bytes | None:
        try:
            with open(f"{self._blobs}/{digest.removeprefix('sha256:')}", "rb") as file:
                raw = file.read()
        except FileNotFoundError:
            return None
        if digest_of(raw) != digest:
            raise ImageError(f"blob {digest} in the store is damaged", "import the image again")
        return raw

    def _write(self, directory: str, name: str, raw: bytes) -> None:
        temporary = f"{directory}/{secrets.token_hex(8)}{UNFINISHED}"
        with open(temporary, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, f"{directory}/{name}")

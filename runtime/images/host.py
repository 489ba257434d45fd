"""The image `host`: the host's own /usr, over a small skeleton root that has nothing of /home, /root or /var.

The skeleton is a layer like any other. It is made once and made again when /etc has changed: the stamps (inode, change
time) of all copied directories are compared at every use, those of the files at most every ten seconds, because a file
that is replaced, which is how passwd, apt and editors write, moves its directory's stamp. It is also made again after a
reboot: nothing of it is synced to the disk, so a power cut may have emptied its files.
"""

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass

from dayfly.runtime.images.attributes import MAX_ID
from dayfly.runtime.images.hostetc import walk_etc
from dayfly.runtime.images.image import DEFAULT_PATH, Image, ImageConfig
from dayfly.runtime.images.layers import Layer, Layers
from dayfly.runtime.images.owners import in_image, made_by_root
from dayfly.runtime.images.reference import HOST

_VERSION = 1
_FILES_EVERY_SECONDS = 10.0
_PENDING = "sha256:host"
_CONFIG = ImageConfig(env={"PATH": DEFAULT_PATH})  # no command: a job that names none has forgotten it

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # links to usr/… where /usr is merged
_DIRECTORIES = {
    **dict.fromkeys(("boot", "dev", "home", "media", "mnt", "opt", "proc", "run", "srv", "sys", "usr"), 0o755),
    **dict.fromkeys(("root",), 0o700),
    **dict.fromkeys(("tmp", "var/tmp"), 0o1777),
    **dict.fromkeys(("var", "workspace"), 0o755),
    **dict.fromkeys(
        (f"var/{name}" for name in ("cache", "lib", "lib/misc", "local", "log", "mail", "opt", "spool")), 0o755
    ),
}
_LINKS = {"var/run": "/run", "var/lock": "/run/lock"}
_FILES = {
    "etc/hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/hostname": b"localhost\n",
    "etc/resolv.conf": b"",
}

Stamps = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """A skeleton in the store, and the stamps of what it was made from."""

    digest: str
    layer: str
    boot_id: str
    trees: tuple[str, ...]
    directories: Stamps
    files: Stamps


class HostImage:
    """The host's image, its skeleton kept among `layers`; `root` is the store's directory, `host` the host's root."""

    def __init__(self, root: str, layers: Layers, host: str = "/") -> None:
        self._record = f"{root}/host.json"
        self._layers = layers
        self._host = host.rstrip("/")
        self._boot_id = _boot_id()
        self._known: _Skeleton | None = None
        self._files_seen = float("-inf")

    def resolve(self) -> Image:
        """The image, its skeleton made if it is missing or no longer true."""
        skeleton = self._known
        if skeleton is None or not self._is_true(skeleton):
            skeleton = self._read()
            if skeleton is None or not self._is_true(skeleton):
                skeleton = self._make()
            self._known = skeleton
        layer = self._layers.tree(skeleton.layer)
        return Image(name=HOST, digest=skeleton.digest, layers=(layer,), host_trees=skeleton.trees, config=_CONFIG)

    def layer(self) -> str | None:
        """The id of the current skeleton's layer, which a sweep must keep."""
        skeleton = self._read()
        return skeleton.layer if skeleton else None

    def _is_true(self, skeleton: _Skeleton) -> bool:
        if skeleton.boot_id != self._boot_id or not self._layers.has(skeleton.layer):
            return False
        if not _are_current(skeleton.directories):
            return False
        now = time.monotonic()
        if now - self._files_seen > _FILES_EVERY_SECONDS:
            if not _are_current(skeleton.files):
                return False
            self._files_seen = now
        return True

    def _read(self) -> _Skeleton | None:
        try:
            with open(self._record, encoding="utf-8") as file:
                record = json.load(file)
            if record["version"] != _VERSION:
                return None
            return _Skeleton(
                digest=record["digest"],
                layer=record["layer"],
                boot_id=record["boot_id"],
                trees=tuple(record["trees"]),
                directories={path: tuple(stamp) for path, stamp in record["directories"].items()},
                files={path: tuple(stamp) for path, stamp in record["files"].items()},
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # none yet, or of another version, or half of one after a power cut: it is made again

    def _make(self) -> _Skeleton:
        with self._layers.stage() as stage:
            builder = _Builder(stage.make(_PENDING), self._host)
            with made_by_root():
                builder.build()
            digest = builder.digest
            layer = "sha256:" + hashlib.sha256(f"{digest} {self._boot_id}".encode()).hexdigest()
            stage.describe(_PENDING, Layer(builder.size_bytes, builder.entries))
            stage.rename(_PENDING, layer)
            skeleton = _Skeleton(
                digest, layer, self._boot_id, builder.trees, dict(builder.directories), dict(builder.files)
            )
            with self._layers.staging.locked(exclusive=False):
                stage.place(layer)
                self._write(skeleton)
        self._files_seen = time.monotonic()
        return skeleton

    def _write(self, skeleton: _Skeleton) -> None:
        record = {name: getattr(skeleton, name) for name in _Skeleton.__slots__}
        temporary = f"{self._record}.{os.getpid()}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"version": _VERSION, **record}, file)
        os.rename(temporary, self._record)


class _Builder:
    """Fills the empty directory `tree` with the skeleton, and notes what it was made from."""

    def __init__(self, tree: str, host: str) -> None:
        self._tree = tree
        self._host = host
        self._lines: list[bytes] = []
        self.directories: dict[str, tuple[int, int]] = {}
        self.files: dict[str, tuple[int, int]] = {}
        self.trees: tuple[str, ...] = ()
        self.size_bytes = 0
        self.entries = 0

    @property
    def digest(self) -> str:
        return "host:" + hashlib.sha256(b"\0".join(sorted(self._lines))).hexdigest()

    def build(self) -> None:
        os.chmod(self._tree, 0o755)
        for path, mode in sorted(_DIRECTORIES.items()):
            self._directory(path, mode)
        for path, target in _LINKS.items():
            self._link(path, os.fsencode(target))
        self._merged_directories()
        self._etc()
        for path, content in _FILES.items():
            self._file(path, content, 0o644)

    def _merged_directories(self) -> None:
        trees = [f"{self._host}/usr"]
        for name in _MERGED:
            path = f"{self._host}/{name}"
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                self.directories[path] = _stamp(status)
                if stat.S_ISLNK(status.st_mode):
                    self._link(name, os.fsencode(os.readlink(path)))
                else:
                    self._directory(name, 0o755)
                    trees.append(path)
        self.trees = tuple(trees)

    def _etc(self) -> None:
        etc = f"{self._host}/etc"
        times = []
        for entry in walk_etc(etc):
            path, status = f"etc/{entry.path}".rstrip("/"), entry.status
            source = f"{etc}/{entry.path}".rstrip("/")
            if stat.S_ISDIR(status.st_mode):
                self.directories[source] = _stamp(status)
                self._directory(path, stat.S_IMODE(status.st_mode) & 0o1777)
                times.append((path, status))
            elif stat.S_ISLNK(status.st_mode):
                self._link(path, entry.content)
            else:
                self.files[source] = _stamp(status)
                self._file(path, entry.content, stat.S_IMODE(status.st_mode) & 0o755)
                times.append((path, status))
        for path, status in times:
            self._keep_owner_and_time(path, status)

    def _directory(self, path: str, mode: int) -> None:
        target = f"{self._tree}/{path}"
        os.mkdir(target)
        os.chmod(target, mode)
        self._note("d", path, mode)

    def _link(self, path: str, target: bytes) -> None:
        os.symlink(target, os.fsencode(f"{self._tree}/{path}"))
        self._note("l", path, 0, target)

    def _file(self, path: str, content: bytes, mode: int) -> None:
        fd = os.open(f"{self._tree}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, mode)
        self.size_bytes += len(content)
        self._note("f", path, mode, content)

    def _keep_owner_and_time(self, path: str, status: os.stat_result) -> None:
        target = f"{self._tree}/{path}"
        uid, gid = in_image(status)
        if max(uid, gid) <= MAX_ID and (uid or gid):
            os.chown(target, uid, gid)
            os.chmod(target, stat.S_IMODE(os.lstat(target).st_mode))
        os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def _note(self, kind: str, path: str, mode: int, content: bytes = b"") -> None:
        self.entries += 1
        line = f"{path} {kind} {mode:o} {hashlib.sha256(content).hexdigest()}"
        self._lines.append(os.fsencode(line))


def _stamp(status: os.stat_result) -> tuple[int, int]:
    """What changes when a file or a directory's list of names does; the change time cannot be set back."""
    return status.st_ino, status.st_ctime_ns


def _are_current(stamps: Stamps) -> bool:
    lstat = os.lstat
    try:
        return all(_stamp(lstat(path)) == stamp for path, stamp in stamps.items())
    except OSError:
        return False


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()

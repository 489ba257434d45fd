"""Empty ext4 images, made once per size by mke2fs and copied for every job.

Making one takes 5 ms and a process, copying its few written blocks a tenth. Why these options:
- no journal: nothing of a job's disk outlives a power cut, and a journal would be written to for nothing;
- metadata_csum: lets the inode tables stay unwritten (168 MB for 10 GB otherwise); the mount says `noinit_itable`,
  or the kernel would write them in the background;
- no blocks kept for root, no space kept for growing, no copies of the superblock (a quarter of what must be copied);
- an inode per 8 KiB: a tree of small files (node_modules) must not run out of inodes first.
"""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass

from dayfly.jobs.errors import HostError, Unsupported

# All features by name, over `none`: what mke2fs takes by default differs by host.
_FEATURES = (
    "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super2,large_file,huge_file,dir_nlink,extra_isize,"
    "metadata_csum"
)
_OPTIONS = ("-q", "-F", "-b", "4096", "-i", "8192", "-I", "256", "-m", "0", "-G", "64", "-O", _FEATURES)
_EXTENDED = "num_backup_sb=0,lazy_itable_init=1,nodiscard,no_copy_xattrs"
_MIB = 1 << 20
LEAST_BYTES = 8 * _MIB
_INODES_SHARE = 256 / 8192
_KEPT_SHARE, _KEPT_AT_MOST = 0.02, 16 * _MIB  # ext4 keeps 2 % or 4096 blocks for its own metadata


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that a fresh disk has already; parents come first."""

    path: str
    mode: int = 0o755
    owner: int = 0


@dataclass(frozen=True, slots=True)
class Template:
    """An image open for copying: its size and the pieces of it that are not holes, (offset, length)."""

    fd: int
    size_bytes: int
    pieces: tuple[tuple[int, int], ...]

    def copy(self, directory: str) -> int:
        """A sparse copy in a file without a name, on the file system of `directory`: gone when nobody has it open.

        Copied through memory on purpose: copy_file_range is no faster for a few hundred KiB, and where it makes
        reflinks every write of the job would have to break one.
        """
        fd = _open_unnamed(directory)
        try:
            os.ftruncate(fd, self.size_bytes)
            for start, length in self.pieces:
                os.pwrite(fd, os.pread(self.fd, length, start), start)
        except OSError as error:
            os.close(fd)
            raise HostError("copy the disk template to", directory, error.errno, _full_remedy(error)) from error
        return fd


def _open_unnamed(directory: str) -> int:
    try:
        return os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):  # NFS, old overlayfs
            raise HostError("make a disk in", directory, error.errno, _full_remedy(error)) from error
    path = os.path.join(directory, f"disk.{os.getpid()}.tmp")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd


_opened: dict[tuple[str, int, tuple[Directory, ...]], Template] = {}


def template(home: str, size_bytes: int, layout: tuple[Directory, ...] = ()) -> Template:
    """The template for disks that hold `size_bytes`, made in `home`/templates if need be, opened once per process.

    Call it before a fork that will need it. Raises `Unsupported` without mke2fs.
    """
    key = (home, size_bytes, layout)
    if key not in _opened:
        _opened[key] = _open(_find_or_make(home, size_bytes, layout))
    return _opened[key]


def image_bytes(size_bytes: int) -> int:
    """The size of an image in which `size_bytes` of files fit: tables and what ext4 keeps for itself come on top."""
    holds = max(size_bytes, LEAST_BYTES)
    kept = min(holds * _KEPT_SHARE, _KEPT_AT_MOST)
    groups = holds // (128 * _MIB) + 1
    whole = (holds + kept) / (1 - _INODES_SHARE) + groups * 64 * 1024 + _MIB
    return (int(whole) + _MIB - 1) // _MIB * _MIB


def _find_or_make(home: str, size_bytes: int, layout: tuple[Directory, ...]) -> str:
    import hashlib  # costs 3 ms and is needed only here

    recipe = repr((_OPTIONS, _EXTENDED, image_bytes(size_bytes), layout))
    name = f"disk-{image_bytes(size_bytes) // _MIB}M-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.ext4"
    path = os.path.join(home, "templates", name)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        own = f"{path}.{os.getpid()}.tmp"
        try:
            _make(own, image_bytes(size_bytes), layout)
            os.rename(own, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(own)
    return path


def _make(path: str, size_bytes: int, layout: tuple[Directory, ...]) -> None:
    import shutil  # heavy, and needed only here

    tree = f"{path}.tree"
    os.mkdir(tree, 0o755)
    try:
        for directory in layout:
            target = os.path.join(tree, directory.path)
            os.mkdir(target)
            os.chown(target, directory.owner, directory.owner)
            os.chmod(target, directory.mode)
        with open(path, "wb") as file:
            file.truncate(size_bytes)
        _run([_mke2fs(), *_OPTIONS, "-E", _EXTENDED, "-d", tree, path], path)
    except OSError as error:
        raise HostError("make the disk template", path, error.errno, _full_remedy(error)) from error
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _mke2fs() -> str:
    from shutil import which

    found = which("mke2fs", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Unsupported(
            "limit a job's disk",
            reason="mke2fs is not installed",
            remedy="apt-get install e2fsprogs, or run jobs without `limits.disk`",
        )
    return found


def _run(command: list[str], path: str) -> None:
    """Run mke2fs; its complaints end up in our error."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
    # Without the host's mke2fs.conf, which could change what we ask for.
    pid = os.posix_spawn(command[0], command, {"MKE2FS_CONFIG": "/dev/null"}, file_actions=actions)
    os.close(writer)
    with open(reader, "rb") as output:
        complaint = output.read(4096).decode(errors="replace").strip()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise HostError("make the disk template", path, reason=f"mke2fs ended with {status}: {complaint}")


def _open(path: str) -> Template:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    size = os.fstat(fd).st_size
    pieces = []
    place = 0
    while place < size:
        try:
            start = os.lseek(fd, place, os.SEEK_DATA)
        except OSError:  # ENXIO: no more data
            break
        place = os.lseek(fd, start, os.SEEK_HOLE)
        pieces.append((start, place - start))
    return Template(fd, size, tuple(pieces))


def _full_remedy(error: OSError) -> str | None:
    return "free space on the disk that holds DAYFLY_HOME" if error.errno == errno.ENOSPC else None

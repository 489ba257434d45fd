"""A job's disk: the kernel enforces its size and frees it by itself."""

import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dayfly.runtime import loop, syscalls
from dayfly.runtime.disk import Disk, open_disk
from dayfly.runtime.disk_template import Directory, image_bytes, template

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("needs_root", "has_loops")]

MIB = 1 << 20
LAYOUT = (Directory("root"), Directory("root/upper", 0o755, 1000), Directory("root/upper/tmp", 0o1777))
TOKEN = "0123456789abcdef"


@pytest.fixture
def home(tmp_path: Path) -> str:
    (tmp_path / "home").mkdir()
    return str(tmp_path / "home")


@pytest.fixture
def job_disk(home: str) -> Iterator[Disk]:
    opened = open_disk(home, 32 * MIB, TOKEN, LAYOUT)
    yield opened
    opened.discard()


def _write(where: Disk, name: str, size_bytes: int, at_once: int = MIB) -> int:
    """Write until the size or the end of the disk; gives what was written."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644, dir_fd=where.mount_fd)
    written = 0
    try:
        while written < size_bytes:
            written += os.write(fd, bytes(min(at_once, size_bytes - written)))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(fd)
    return written


def test_a_fresh_disk_has_its_directories(job_disk: Disk) -> None:
    """Modes and owners are those of the layout, and nothing counts as used."""
    upper = os.stat("root/upper", dir_fd=job_disk.mount_fd)
    assert (upper.st_uid, upper.st_gid, upper.st_mode & 0o7777) == (1000, 1000, 0o755)
    assert os.stat("root/upper/tmp", dir_fd=job_disk.mount_fd).st_mode & 0o7777 == 0o1777
    assert job_disk.used_bytes() == 0
    assert not job_disk.was_full()


@pytest.mark.parametrize("at_once", [4096, MIB, 8 * MIB])
@pytest.mark.parametrize("size_bytes", [8 * MIB, 100 * MIB, 1024 * MIB])
def test_what_was_asked_for_fits_and_little_more(home: str, size_bytes: int, at_once: int) -> None:
    """A file of the stated size fits; a fifth more never does. Then the disk counts as full, however it was written."""
    opened = open_disk(home, size_bytes, TOKEN)
    assert _write(opened, "file", size_bytes) == size_bytes
    assert _write(opened, "more", size_bytes, at_once) < size_bytes / 5
    opened.look()
    assert opened.was_full()
    assert opened.used_bytes() >= size_bytes
    opened.discard()


def test_running_out_of_inodes_is_full(home: str) -> None:
    """A million empty files meet ENOSPC too, and it is seen."""
    opened = open_disk(home, 8 * MIB, TOKEN)

    def create_many() -> None:
        for index in range(1_000_000):
            os.close(os.open(f"{index}", os.O_CREAT | os.O_WRONLY, dir_fd=opened.mount_fd))

    with pytest.raises(OSError, match="No space left"):
        create_many()
    opened.look()
    assert opened.was_full()
    opened.discard()


def test_a_disk_that_was_full_for_a_while_was_full(job_disk: Disk) -> None:
    """A look while it is full is remembered after the file is gone; without the look it is not known."""
    _write(job_disk, "file", 100 * MIB)
    job_disk.look()
    os.unlink("file", dir_fd=job_disk.mount_fd)
    job_disk.look()
    assert job_disk.was_full()


def test_a_disk_half_full_was_not_full(job_disk: Disk) -> None:
    """The control: use alone is not fullness."""
    _write(job_disk, "file", 16 * MIB)
    job_disk.look()
    assert not job_disk.was_full()
    assert 16 * MIB <= job_disk.used_bytes() < 17 * MIB


def test_one_job_filling_its_disk_leaves_another_alone(home: str, job_disk: Disk) -> None:
    """ENOSPC is met by the one that fills (D4)."""
    _write(job_disk, "file", 100 * MIB)
    other = open_disk(home, 32 * MIB, "other")
    assert _write(other, "file", MIB) == MIB
    other.discard()


def test_the_device_carries_the_jobs_token(job_disk: Disk) -> None:
    """Whoever finds a loop device in use finds whose it is."""
    assert loop.attached()[job_disk.device] == f"dayfly:{TOKEN}"


def test_set_uid_works_and_devices_do_not(job_disk: Disk) -> None:
    """nosuid is off for the job's own programs; nodev is on."""
    flags = os.statvfs(job_disk.mount_fd).f_flag
    assert not flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    assert flags & os.ST_NOATIME


def test_closing_frees_the_device(home: str) -> None:
    """Close, discard, either twice: the device is free and the home holds only the template."""
    for end in ("close", "discard"):
        opened = open_disk(home, 32 * MIB, TOKEN)
        _write(opened, "file", 8 * MIB)
        getattr(opened, end)()
        getattr(opened, end)()
        _await_detached({opened.device})
    assert os.listdir(home) == ["templates"]


def test_nothing_is_readable_after_a_shutdown(job_disk: Disk) -> None:
    """A shut-down disk gives errors, so it is done last."""
    _write(job_disk, "file", MIB)
    job_disk.shutdown()
    with pytest.raises(OSError, match=r"Input/output error|Structure needs cleaning"):
        _write(job_disk, "other", MIB)


def test_a_discarded_disk_is_not_on_every_console(home: str, lacks: Callable[[str], None]) -> None:
    """Nothing of level warning or above about the device reaches the kernel's log."""
    if not os.access("/dev/kmsg", os.R_OK):
        lacks("a readable /dev/kmsg")
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(log, 0, os.SEEK_END)
    opened = open_disk(home, 32 * MIB, TOKEN)
    _write(opened, "file", 100 * MIB)
    opened.discard()
    loud = []
    with suppress(BlockingIOError):  # the end of the log
        while True:
            level, _, text = os.read(log, 8192).decode(errors="replace").partition(",")
            if int(level) % 8 < 5 and os.path.basename(opened.device) in text:
                loud.append(text)
    os.close(log)
    assert loud == []


def test_a_killed_process_leaves_no_device(home: str) -> None:
    """SIGKILL with the disk attached to its mount tree: the kernel frees file, device and mount."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        opened = open_disk(home, 32 * MIB, TOKEN)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.move_mount(opened.mount_fd, "", syscalls.AT_FDCWD, home, syscalls.MOVE_MOUNT_F_EMPTY_PATH)
        os.write(writer, opened.device.encode())
        signal.pause()
        os._exit(1)
    device = os.read(reader, 100).decode()
    pidfd = os.pidfd_open(pid)
    assert device in loop.attached()
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    os.waitpid(pid, 0)
    _await_detached({device})
    for fd in (reader, writer, pidfd):
        os.close(fd)


def test_three_hundred_disks_leave_nothing(home: str) -> None:
    """Devices in use, device nodes and descriptors are what they were; at most one device is new."""
    open_disk(home, 32 * MIB, TOKEN).close()
    before = (set(loop.attached("")), len(os.listdir("/proc/self/fd")))
    nodes = len([name for name in os.listdir("/dev") if name.startswith("loop")])
    for index in range(300):
        opened = open_disk(home, 32 * MIB, f"{index:016x}")
        if index % 10 == 0:
            _write(opened, "file", MIB)
        opened.discard()
    assert {device for device in loop.attached("") if device not in before[0]} == set()
    assert len(os.listdir("/proc/self/fd")) == before[1]
    assert len([name for name in os.listdir("/dev") if name.startswith("loop")]) <= nodes + 1


def test_many_at_once_each_get_a_device(home: str) -> None:
    """Eight processes race for free devices; all get one of their own."""
    template(home, 32 * MIB)
    reader, writer = os.pipe()
    pids = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            opened = [open_disk(home, 32 * MIB, TOKEN) for _ in range(2)]
            os.write(writer, "".join(f"{each.device}\n" for each in opened).encode())
            signal.pause()
        pids.append(pid)
    devices: list[str] = []
    while len(devices) < 16 and select.select([reader], [], [], 20)[0]:
        devices += os.read(reader, 4096).decode().split()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(set(devices)) == 16
    _await_detached(set(devices))
    os.close(reader)
    os.close(writer)


def test_the_biggest_paths_are_named(job_disk: Disk) -> None:
    """Files by size; many small ones as their directory; paths are the job's, links are not followed."""
    fd = job_disk.mount_fd
    os.mkdir("root/upper/small", dir_fd=fd)
    for index in range(50):
        _write(job_disk, f"root/upper/small/{index}", 64 * 1024)
    _write(job_disk, "root/upper/big", 2 * MIB)
    _write(job_disk, "root/upper/tmp/bigger", 5 * MIB)
    os.symlink("/", "root/upper/link", dir_fd=fd)
    os.symlink("..", "root/upper/tmp/loop", dir_fd=fd)
    found = job_disk.biggest(3, {"root/upper": "", "workspace/upper": "/workspace"})
    assert [path for path, _ in found] == ["/tmp/bigger", "/small/", "/big"]
    assert found[0][1] >= 5 * MIB
    assert found[1][1] >= 49 * 64 * 1024  # one of them may stand among the files


def test_a_hostile_tree_is_walked_within_bounds(job_disk: Disk) -> None:
    """A chain of directories deeper than we look, a FIFO and odd names do no harm."""
    fds = [os.dup(job_disk.mount_fd)]
    for _ in range(200):
        os.mkdir("d", dir_fd=fds[-1])
        fds.append(os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fds[-1]))
    for fd in fds:
        os.close(fd)
    os.mkfifo("d/fifo", dir_fd=job_disk.mount_fd)
    _write(job_disk, os.fsdecode(b"d/\xff\n"), MIB)
    before = len(os.listdir("/proc/self/fd"))
    ((path, size),) = job_disk.biggest(1, {"d": "/d"})
    assert os.fsencode(path) == b"/d/\xff\n"
    assert size >= MIB
    assert len(os.listdir("/proc/self/fd")) == before
    assert job_disk.biggest(5, {"d": "/d"}, within_seconds=-1.0) == []


def test_a_template_is_made_once(home: str) -> None:
    """Two disks of a size share the template; another layout has another; no half-made file is left."""
    for _ in range(2):
        open_disk(home, 32 * MIB, TOKEN).close()
    assert len(os.listdir(f"{home}/templates")) == 1
    open_disk(home, 32 * MIB, TOKEN, LAYOUT).close()
    assert len(os.listdir(f"{home}/templates")) == 2
    assert all(name.endswith(".ext4") for name in os.listdir(f"{home}/templates"))


def test_a_template_is_sparse() -> None:
    """The image is a little larger than what must fit; ten gigabytes of tables stay unwritten."""
    assert 10 * 1024 * MIB < image_bytes(10 * 1024 * MIB) < 10.6 * 1024 * MIB


def test_a_big_disk_costs_little(home: str) -> None:
    """A disk of 10 GiB takes less than a megabyte of the host's."""
    copied = template(home, 10 * 1024 * MIB).copy(home)
    assert os.fstat(copied).st_size > 10 * 1024 * MIB
    assert os.fstat(copied).st_blocks * 512 < MIB
    os.close(copied)


def test_what_the_hosts_disk_cannot_hold_is_known_to_be_lost(small_host: str) -> None:
    """Writes that the host could not back are told, though the job's own calls all succeeded; others are not."""
    opened = open_disk(small_host, 64 * MIB, TOKEN)
    try:
        assert _write(opened, "fits", MIB) == MIB
        _sync(opened)
        opened.look()
        assert not opened.has_lost_writes()
        assert _write(opened, "file", 40 * MIB) == 40 * MIB
        with pytest.raises(OSError, match=r"No space|Input/output error"):
            _sync(opened)
        opened.look()
        assert opened.has_lost_writes()
        assert not opened.was_full()
    finally:
        opened.discard()


def _sync(where: Disk) -> None:
    """Have everything written back, as the kernel does by itself after a while."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=where.mount_fd)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


def test_a_kept_disk_outlives_its_job_whole(home: str, tmp_path: Path) -> None:
    """Its file gets a name, and holds every byte once the last mount is gone."""
    opened = open_disk(home, 32 * MIB, TOKEN, LAYOUT)
    _write(opened, "root/upper/file", 20 * MIB)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    opened.keep(directory, "disk.ext4")
    os.close(directory)
    opened.discard()
    checked = subprocess.run(["debugfs", "-R", "stat root/upper/file", tmp_path / "disk.ext4"], capture_output=True)
    assert f"Size: {20 * MIB}" in checked.stdout.decode()
    assert subprocess.run(["e2fsck", "-fn", tmp_path / "disk.ext4"], capture_output=True).returncode == 0


@pytest.fixture
def small_host(tmp_path: Path, nothing_left: None) -> Iterator[str]:
    """A home on a file system of 24 MiB; the templates, which stay open, lie elsewhere."""
    home = tmp_path / "small"
    home.mkdir()
    (tmp_path / "templates").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", home], check=True)
    (home / "templates").symlink_to(tmp_path / "templates")
    yield str(home)
    _umount(home)


def _umount(home: Path) -> None:
    """The kernel frees a loop device, and with it the file below, a moment after its last mount has gone."""
    deadline = time.monotonic() + 10
    while subprocess.run(["umount", home], check=False).returncode:
        assert time.monotonic() < deadline, "it stays busy"
        select.select([], [], [], 0.01)


def _await_detached(devices: set[str]) -> None:
    """Whoever looks at new devices, as udev does where it runs, holds them for a moment more."""
    deadline = time.monotonic() + 30
    while left := devices.intersection(loop.attached()):
        assert time.monotonic() < deadline, f"still attached: {left}"

"""System calls that Python's standard library lacks, one thin function each, named as the kernel names them.

This is the only file of Dayfly that uses ctypes. It decides nothing: a function passes its arguments on and turns a
failed return into an `OSError` that carries the path. What the standard library has (`os.pidfd_open`, `os.waitid`,
`signal.pidfd_send_signal`, `resource.prlimit`, `socket.sethostname` …) is not repeated here.

It is imported by processes that must stay small (launcher, keeper, init), so it imports ctypes, os and platform facts
and nothing else. Constants come from the kernel's UAPI headers (linux/mount.h, linux/prctl.h, linux/loop.h …).
"""

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)
_int, _uint, _long, _ulong = ctypes.c_int, ctypes.c_uint, ctypes.c_long, ctypes.c_ulong
_str, _ptr = ctypes.c_char_p, ctypes.c_void_p

_libc.mount.argtypes = (_str, _str, _str, _ulong, _ptr)
_libc.umount2.argtypes = (_str, _int)
_libc.pivot_root.argtypes = (_str, _str)
_libc.setns.argtypes = (_int, _int)
_libc.unshare.argtypes = (_int,)
_libc.prctl.argtypes = (_int, _ulong, _ulong, _ulong, _ulong)
_libc.capset.argtypes = (_ptr, _ptr)
_libc.capget.argtypes = (_ptr, _ptr)
_libc.inotify_init1.argtypes = (_int,)
_libc.inotify_add_watch.argtypes = (_int, _str, ctypes.c_uint32)
_libc.inotify_rm_watch.argtypes = (_int, _int)
_libc.syncfs.argtypes = (_int,)
_libc.ptrace.argtypes = (_long, _long, _ptr, _ptr)
_libc.ptrace.restype = _long
_libc.clone.argtypes = (_ptr, _ptr, _int, _ptr)
_libc.syscall.restype = _libc_with_gil.syscall.restype = _long

# Numbers below 424 differ by architecture; from there on they are the same everywhere (asm-generic/unistd.h).
_IS_X86 = os.uname().machine == "x86_64"
_SYS_CLONE = 56 if _IS_X86 else 220
_SYS_KEYCTL = 250 if _IS_X86 else 219
_SYS_SECCOMP = 317 if _IS_X86 else 277
_SYS_BPF = 321 if _IS_X86 else 280
_SYS_CLOSE_RANGE = 436
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 428, 429, 430, 431, 432
_SYS_OPENAT2, _SYS_MOUNT_SETATTR = 437, 442

# mount(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_BIND, MS_MOVE, MS_REC = 1024, 4096, 8192, 16384
MS_PRIVATE, MS_SLAVE, MS_STRICTATIME = 1 << 18, 1 << 19, 1 << 24
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

# open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2)
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW = -100, 0x1000, 0x8000, 0x100
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 0, 1, 5, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME, MOUNT_ATTR_IDMAP = 0x10, 0x20, 0x70, 0x00100000

# unshare(2), setns(2), clone(2)
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_CLONE_VM, _SIGCHLD, _STACK_BYTES = 0x100, 17, 16384

# openat2(2)
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16
# Neither out of a directory, nor along a link, nor into what is mounted below it.
RESOLVE_ONE_TREE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV

# prctl(2), capset(2), keyctl(2), seccomp(2)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_READ, PR_CAPBSET_DROP = 1, 4, 23, 24
PR_SET_NAME, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 15, 28, 38, 47
PR_SET_KEEPCAPS, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 8, 2, 4
PR_SET_CHILD_SUBREAPER = 36
KEYCTL_JOIN_SESSION_KEYRING = 1
SECCOMP_SET_MODE_FILTER, _PTRACE_TRACEME = 1, 0
_CAPABILITY_VERSION_3 = 0x20080522

# inotify(7)
IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_IGNORED = 0x2, 0x80, 0x100, 0x200, 0x400, 0x8000
IN_CLOEXEC, IN_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK


def _fail(path: str | None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path) if path is not None else OSError(number, os.strerror(number))


def _bytes(path: str | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """mount(2): attach a file system, or change one that is attached."""
    if _libc.mount(_bytes(source), _bytes(target), _bytes(kind), flags, _bytes(options)) < 0:
        raise _fail(target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2): detach the mount at `target`."""
    if _libc.umount2(_bytes(target), flags) < 0:
        raise _fail(target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): make `new_root` the root of this mount namespace; `(".", ".")` stacks the old root on top."""
    if _libc.pivot_root(_bytes(new_root), _bytes(put_old)) < 0:
        raise _fail(new_root)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): a descriptor of the mount at `path`, or with OPEN_TREE_CLONE of a detached copy of it."""
    fd: int = _libc.syscall(_long(_SYS_OPEN_TREE), _int(dirfd), _str(_bytes(path)), _uint(flags))
    if fd < 0:
        raise _fail(path)
    return fd


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """move_mount(2): attach a detached mount, or move an attached one."""
    if (
        _libc.syscall(
            _long(_SYS_MOVE_MOUNT),
            _int(from_fd),
            _str(_bytes(from_path)),
            _int(to_fd),
            _str(_bytes(to_path)),
            _uint(flags),
        )
        < 0
    ):
        raise _fail(to_path)


def fsopen(kind: str, flags: int = FSOPEN_CLOEXEC) -> int:
    """fsopen(2): begin a new mount of the file system `kind`; configure it with `fsconfig`."""
    fd: int = _libc.syscall(_long(_SYS_FSOPEN), _str(_bytes(kind)), _uint(flags))
    if fd < 0:
        raise _fail(kind)
    return fd


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    """fsconfig(2): set one option of the file system being configured, or create it (FSCONFIG_CMD_CREATE)."""
    if (
        _libc.syscall(_long(_SYS_FSCONFIG), _int(fd), _uint(command), _str(_bytes(key)), _str(_bytes(value)), _int(aux))
        < 0
    ):
        raise _fail(f"{key}={value}" if key else None)


def fsmount(fd: int, flags: int = FSMOUNT_CLOEXEC, attributes: int = 0) -> int:
    """fsmount(2): a descriptor of a detached mount of the file system that `fd` configured."""
    mount_fd: int = _libc.syscall(_long(_SYS_FSMOUNT), _int(fd), _uint(flags), _uint(attributes))
    if mount_fd < 0:
        raise _fail(None)
    return mount_fd


def mount_setattr(dirfd: int, path: str, flags: int, set_: int = 0, clear: int = 0, userns_fd: int = 0) -> None:
    """mount_setattr(2): change the attributes of a mount; with MOUNT_ATTR_IDMAP, map it through `userns_fd`."""
    attributes = (ctypes.c_uint64 * 4)(set_, clear, 0, userns_fd)
    if (
        _libc.syscall(
            _long(_SYS_MOUNT_SETATTR),
            _int(dirfd),
            _str(_bytes(path)),
            _uint(flags),
            ctypes.byref(attributes),
            _ulong(ctypes.sizeof(attributes)),
        )
        < 0
    ):
        raise _fail(path)


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): open a path with rules for its resolution (RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS …)."""
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = _libc.syscall(
        _long(_SYS_OPENAT2), _int(dirfd), _str(os.fsencode(path)), ctypes.byref(how), _ulong(ctypes.sizeof(how))
    )
    if fd < 0:
        raise _fail(os.fsdecode(path))
    return fd


class PausedProcess:
    """A child that was born into new namespaces and does nothing but pause(2), to hold them until they are opened.

    It shares this process's memory (clone(2), CLONE_VM) and runs on `stack`, so no page is copied: a tenth of what a
    fork costs. Only SIGKILL may be sent to it; keep the object until the child has been waited for.
    """

    def __init__(self, namespaces: int) -> None:
        self.stack = ctypes.create_string_buffer(_STACK_BYTES)
        top = (ctypes.addressof(self.stack) + _STACK_BYTES) & ~15
        pause = ctypes.cast(_libc.pause, ctypes.c_void_p)
        self.pid: int = _libc.clone(pause, top, namespaces | _CLONE_VM | _SIGCHLD, None)
        if self.pid < 0:
            raise _fail(None)


def fork(namespaces: int) -> int:
    """clone(2) without a stack: fork(2) into new `namespaces`; 0 in the child. Only for a process with one thread.

    The interpreter is not told, and with one thread, which has its lock, need not be.
    """
    zero = _ulong(0)
    pid: int = _libc_with_gil.syscall(_long(_SYS_CLONE), _ulong(namespaces | _SIGCHLD), zero, zero, zero, zero)
    if pid < 0:
        raise _fail(None)
    return pid


def setns(fd: int, kinds: int) -> None:
    """setns(2): enter the namespace that `fd` refers to."""
    if _libc.setns(fd, kinds) < 0:
        raise _fail(None)


def unshare(flags: int) -> None:
    """unshare(2): leave the shared namespaces named by `flags` for new ones."""
    if _libc.unshare(flags) < 0:
        raise _fail(None)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) with integer arguments."""
    result: int = _libc.prctl(option, arg2, arg3, arg4, arg5)
    if result < 0:
        raise _fail(None)
    return result


def set_process_name(name: bytes) -> None:
    """prctl(PR_SET_NAME): the thread's name of at most 15 bytes, as `ps -o comm` shows it."""
    buffer = ctypes.create_string_buffer(name[:15], 16)
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def overwrite_memory(address: int, data: bytes) -> None:
    """Copy `data` over this process's own memory at `address` (its argv, found in /proc/self/stat)."""
    ctypes.memmove(address, data, len(data))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2): set the three capability sets of this thread, each a bit mask of 64 bits."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    sets = (ctypes.c_uint32 * 6)(
        effective & low, permitted & low, inheritable & low, effective >> high, permitted >> high, inheritable >> high
    )
    if _libc.capset(ctypes.byref(header), ctypes.byref(sets)) < 0:
        raise _fail(None)


def capget() -> tuple[int, int, int]:
    """capget(2): the effective, permitted and inheritable sets of this thread, each a bit mask of 64 bits."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if _libc.capget(ctypes.byref(header), ctypes.byref(sets)) < 0:
        raise _fail(None)
    return sets[0] | sets[3] << 32, sets[1] | sets[4] << 32, sets[2] | sets[5] << 32


def setfsuid(uid: int) -> None:
    """setfsuid(2): whose files this thread makes. From root it lowers the capabilities over files, see the page."""
    _libc.setfsuid(uid)


def setfsgid(gid: int) -> None:
    """setfsgid(2): the group of the files that this thread makes."""
    _libc.setfsgid(gid)


def keyctl(operation: int, arg2: int = 0) -> int:
    """keyctl(2) with one integer argument (0 stands for NULL)."""
    result: int = _libc.syscall(_long(_SYS_KEYCTL), _long(operation), _ulong(arg2))
    if result < 0:
        raise _fail(None)
    return result


def seccomp_set_filter(program: bytes, flags: int = 0) -> None:
    """seccomp(2), SECCOMP_SET_MODE_FILTER: install a BPF program, an array of 8-byte `struct sock_filter`."""
    instructions = ctypes.c_char_p(program)  # points into `program` itself
    fprog = struct.pack("HP", len(program) // 8, ctypes.cast(instructions, _ptr).value)  # struct sock_fprog
    if _libc.syscall(_long(_SYS_SECCOMP), _uint(SECCOMP_SET_MODE_FILTER), _uint(flags), _str(fprog)) < 0:
        raise _fail(None)


def ptrace_traceme() -> None:
    """ptrace(2), PTRACE_TRACEME: the next execve(2) that succeeds stops before the program's first instruction."""
    if _libc.ptrace(_PTRACE_TRACEME, 0, None, None) < 0:
        raise _fail(None)


class Buffer:
    """Bytes at an address that stays as long as the object does, for calls that take addresses in a structure."""

    def __init__(self, content: bytes) -> None:
        self._memory = ctypes.create_string_buffer(content, len(content))
        self.address = ctypes.addressof(self._memory)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2): `attributes` is `union bpf_attr` as far as the command looks at it; returns a descriptor or 0."""
    result: int = _libc.syscall(_long(_SYS_BPF), _int(command), _str(attributes), _uint(len(attributes)))
    if result < 0:
        raise _fail(None)
    return result


def close_range(first: int, last: int = 0x7FFFFFFF) -> None:
    """close_range(2): close every descriptor from `first` to `last`."""
    if _libc.syscall(_long(_SYS_CLOSE_RANGE), _uint(first), _uint(last), _uint(0)) < 0:
        raise _fail(None)


def inotify_init1(flags: int = IN_CLOEXEC | IN_NONBLOCK) -> int:
    """inotify_init1(2): a new inotify descriptor."""
    fd: int = _libc.inotify_init1(flags)
    if fd < 0:
        raise _fail(None)
    return fd


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): watch `path`; returns the watch descriptor."""
    watch: int = _libc.inotify_add_watch(fd, _bytes(path), mask)
    if watch < 0:
        raise _fail(path)
    return watch


def inotify_rm_watch(fd: int, watch: int) -> None:
    """inotify_rm_watch(2): end a watch."""
    if _libc.inotify_rm_watch(fd, watch) < 0:
        raise _fail(None)


def syncfs(fd: int) -> None:
    """syncfs(2): write everything of the file system that holds `fd` to its disk."""
    if _libc.syncfs(fd) < 0:
        raise _fail(None)

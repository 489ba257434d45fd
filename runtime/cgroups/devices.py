"""Which devices the processes of a control group may open: a list, and nothing that is not on it.

Version 1 has a controller for it, `devices`. Version 2 has none: a BPF program of type CGROUP_DEVICE decides about each
open and mknod. Ours is written here, instruction by instruction: it goes through the list and answers 1 at the first
line that has the device and all of the access, else 0.

Only jobs that ask for devices get a list. The others have no node but those of `rootfs.py`, can make none (mknod needs
the host's CAP_MKNOD) and can use none that a layer or mount brings (nodev).
"""

import os
import struct
from collections.abc import Iterable

from dayfly.runtime import syscalls
from dayfly.runtime.cgroups import controlfile
from dayfly.runtime.shape import Device

STANDARD = (
    *(Device("c", 1, minor) for minor in (3, 5, 7, 8, 9)),  # null, zero, full, random, urandom
    Device("c", 5, 0),  # tty
    Device("c", 5, 2),  # ptmx
    Device("c", 136, None),  # pts: any of the job's own instance
)
"""What every container's /dev has."""

NO_CONTROLLER = "no cgroup mount has the controller devices"

_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE = 15, 6  # enum bpf_prog_type, enum bpf_attach_type (linux/bpf.h)
_PROG_LOAD, _PROG_ATTACH, _PROG_QUERY = 5, 8, 16  # enum bpf_cmd
_ALLOW_MULTI = 2  # beside the programs of the groups above, not in their place
_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_…
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_…

# Instructions of eBPF (linux/bpf_common.h, linux/bpf.h): class | operation or size | source.
_LOAD, _COPY, _COPY_32, _SET = 0x61, 0xBF, 0xBC, 0xB7
_AND, _SHIFT_RIGHT, _UNLESS_IS, _UNLESS_SAME, _EXIT = 0x57, 0x77, 0x55, 0x5D, 0x95
_RESULT, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR, _SCRATCH = 0, 1, 2, 3, 4, 5, 6


def restrict_v1(directory_fd: int, directory: str, devices: Iterable[Device]) -> None:
    """Deny everything, then allow the list. Raises `HostError`."""
    controlfile.write(directory_fd, directory, "devices.deny", "a")
    for each in devices:
        controlfile.write(directory_fd, directory, "devices.allow", f"{_name(each)} {each.permissions}")


def narrow_v1(directory_fd: int, directory: str, devices: Iterable[Device]) -> None:
    """Take away what a restricted group has been given beyond these, which it keeps all the while: processes run in it.

    Raises `HostError`.
    """
    kept = {_name(each): each.permissions for each in devices}
    for line in (controlfile.read(directory_fd, "devices.list") or "").splitlines():
        name, _, permissions = line.rpartition(" ")
        beyond = "".join(letter for letter in permissions if letter not in kept.get(name, ""))
        if beyond:
            controlfile.write(directory_fd, directory, "devices.deny", f"{name} {beyond}")


def _name(device: Device) -> str:
    """As version 1 has it: `c 10:229`."""
    return f"{device.kind} {device.major}:{'*' if device.minor is None else device.minor}"


def restrict_v2(directory_fd: int, directory: str, devices: Iterable[Device]) -> None:
    """Attach the program to the group, which keeps it. Raises `HostError`."""
    try:
        program = _load(program_for(devices))
        try:
            syscalls.bpf(_PROG_ATTACH, struct.pack("IIII", directory_fd, program, _CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(program)
    except OSError as error:
        raise controlfile.failure("limit the devices of", directory, error) from error


def why_lacking_v2(directory: str) -> str | None:
    """Why no program can be attached to groups below this one; None where it can."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.bpf(_PROG_QUERY, struct.pack("IIIIQI4x", fd, _CGROUP_DEVICE, 0, 0, 0, 0))
    except OSError as error:
        return f"this kernel attaches no BPF program to a control group: {error.strerror}"
    finally:
        os.close(fd)
    return None


def program_for(devices: Iterable[Device]) -> bytes:
    """The program for a list. Its context has three words: access and type in one, major, minor."""
    code = [
        _instruction(_LOAD, _TYPE, _CONTEXT, offset=0),
        _instruction(_COPY, _WANTED, _TYPE),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
        _instruction(_AND, _TYPE, value=0xFFFF),
        _instruction(_LOAD, _MAJOR, _CONTEXT, offset=4),
        _instruction(_LOAD, _MINOR, _CONTEXT, offset=8),
    ]
    for each in devices:
        code += _line(each)
    return b"".join([*code, _instruction(_SET, _RESULT, value=0), _instruction(_EXIT)])


def _line(device: Device) -> list[bytes]:
    """Leave with 1 if it is this device and nothing is wanted beyond its permissions; else fall through."""
    allowed = sum(_ACCESS[letter] for letter in device.permissions)
    yes = [_instruction(_SET, _RESULT, value=1), _instruction(_EXIT)]
    numbers = [(_TYPE, _TYPES[device.kind]), (_MAJOR, device.major)]
    numbers += [] if device.minor is None else [(_MINOR, device.minor)]
    tests = [(_UNLESS_IS, register, 0, value) for register, value in numbers]
    tests.append((_UNLESS_SAME, _SCRATCH, _WANTED, 0))
    code = [_instruction(_COPY_32, _SCRATCH, _WANTED), _instruction(_AND, _SCRATCH, value=allowed)]
    for index, (operation, register, source, value) in enumerate(tests):
        beyond = len(tests) - index - 1 + len(yes)
        code.append(_instruction(operation, register, source, offset=beyond, value=value))
    return code + yes


def _instruction(operation: int, register: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """`struct bpf_insn`: the two registers share a byte, the first one in its low half on little-endian machines."""
    return struct.pack("=BBhi", operation, source << 4 | register, offset, value)


def _load(program: bytes) -> int:
    """A descriptor of the program, once the kernel has verified it."""
    code, licence = syscalls.Buffer(program), syscalls.Buffer(b"Apache-2.0\0")
    return syscalls.bpf(
        _PROG_LOAD,
        struct.pack("IIQQ", _CGROUP_DEVICE_PROGRAM, len(program) // 8, code.address, licence.address),
    )

"""A small assembler for classic BPF as seccomp(2) takes it.

It writes a program from its end to its beginning: every jump of BPF goes forward, so a target is always there before
the jump to it, and a label is simply the place at which the target was written. A conditional jump reaches 255
instructions; a longer one goes over an unconditional jump that `_near` puts between.
"""

import struct

# linux/bpf_common.h: class | size or operation | source
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP = 0x05  # BPF_JMP | BPF_JA
_IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x25, 0x35, 0x45
_RETURN = 0x06  # BPF_RET | BPF_K

# Offsets in `struct seccomp_data`; arguments are 64 bits wide, their low half first on little-endian machines.
NUMBER, ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_REACH = 250  # a little below 255: putting in one unconditional jump moves the other target away by one


def errno(number: int) -> int:
    """The result that makes the call fail with this errno."""
    return _ERRNO | number


def argument(index: int) -> int:
    """The offset of the low 32 bits of an argument."""
    return _FIRST_ARGUMENT + 8 * index


class Program:
    """A filter being written backwards; each method puts one instruction before the others and returns its label."""

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []

    def __len__(self) -> int:
        return len(self._reversed)

    def result(self, value: int) -> int:
        return self._write(_RETURN, value)

    def load(self, offset: int, then: int) -> int:
        """Load 32 bits of `struct seccomp_data`, then go on at `then`."""
        if then != len(self) - 1:
            self._write(_JUMP, len(self) - then - 1)
        return self._write(_LOAD_WORD, offset)

    def if_equal(self, value: int, yes: int, no: int) -> int:
        return self._branch(_IF_EQUAL, value, yes, no)

    def if_greater(self, value: int, yes: int, no: int) -> int:
        return self._branch(_IF_GREATER, value, yes, no)

    def if_at_least(self, value: int, yes: int, no: int) -> int:
        return self._branch(_IF_AT_LEAST, value, yes, no)

    def if_any_bit(self, bits: int, yes: int, no: int) -> int:
        return self._branch(_IF_ANY_BIT, bits, yes, no)

    def assemble(self) -> bytes:
        return b"".join(struct.pack("=HBBI", code, yes, no, k) for code, yes, no, k in reversed(self._reversed))

    def _branch(self, code: int, k: int, yes: int, no: int) -> int:
        yes, no = self._near(yes), self._near(no)
        here = len(self)
        return self._write(code, k, here - yes - 1, here - no - 1)

    def _near(self, label: int) -> int:
        distance = len(self) - label - 1
        return label if distance < _REACH else self._write(_JUMP, distance)

    def _write(self, code: int, k: int, yes: int = 0, no: int = 0) -> int:
        self._reversed.append((code, yes, no, k))
        return len(self) - 1

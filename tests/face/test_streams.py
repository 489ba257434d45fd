"""The job's streams arrive byte for byte, each where it belongs."""

import os
from dataclasses import dataclass

import pytest

from dayfly.cli.follow import NOTE, STDERR, STDOUT, Streams
from dayfly.cli.say import write_all


@dataclass(frozen=True)
class Line:
    time: float
    stream: int
    data: bytes


class Pipe:
    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def content(self) -> bytes:
        os.close(self.write_end)
        with open(self.read_end, "rb") as file:
            return file.read()


@pytest.fixture
def out() -> Pipe:
    return Pipe()


@pytest.fixture
def err() -> Pipe:
    return Pipe()


def test_streams_stay_apart_byte_for_byte(out: Pipe, err: Pipe) -> None:
    """Whatever bytes the job writes come out unchanged, stdout and stderr apart."""
    streams = Streams(stdout=out.write_end, stderr=err.write_end)
    for stream, data in ((STDOUT, b"\0\xff\r no end"), (STDERR, b"\x1b[31mred\n"), (STDOUT, b"\n\n")):
        streams.write(Line(0.0, stream, data))  # type: ignore[arg-type]
    assert out.content() == b"\0\xff\r no end\n\n"
    assert err.content() == b"\x1b[31mred\n"


def test_time_stands_once_before_each_line(out: Pipe, err: Pipe) -> None:
    """A line that comes in pieces gets one time; a piece with several lines gets one for each."""
    streams = Streams(stdout=out.write_end, stderr=err.write_end, has_times=True)
    for data in (b"a", b"b\nc\n", b"d\n\r50%\r100%\n"):
        streams.write(Line(1.25, STDOUT, data))  # type: ignore[arg-type]
    err.content()
    stamp = b"1970-01-01T00:00:01.250Z "
    assert out.content() == b"".join(stamp + each for each in (b"ab\n", b"c\n", b"d\n", b"\r50%\r100%\n"))


def test_note_is_said_and_not_written_as_the_jobs(out: Pipe, err: Pipe, capfd: pytest.CaptureFixture[str]) -> None:
    """What Dayfly has to say in a log goes to stderr with the prefix."""
    Streams(stdout=out.write_end, stderr=err.write_end).write(Line(0.0, NOTE, b"5 bytes left out\n"))  # type: ignore[arg-type]
    assert (out.content(), err.content()) == (b"", b"")
    assert capfd.readouterr().err == "dayfly: 5 bytes left out\n"


def test_nonblocking_pipe_loses_nothing(out: Pipe) -> None:
    """A pipe that somebody set non-blocking gets every byte, however slow its reader is."""
    os.set_blocking(out.write_end, False)
    child = os.fork()
    if child == 0:
        os.close(out.read_end)
        write_all(out.write_end, b"x" * (1 << 20))
        os._exit(0)
    assert len(out.content()) == 1 << 20
    os.waitpid(child, 0)

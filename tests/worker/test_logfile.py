"""The framed log: nothing lost, nothing twice, wherever the reader starts and stops."""

import os

import pytest

from dayfly.worker.logfile import NOTE, STDERR, STDOUT, Cursor, LogReader, LogWriter, decode_all
from dayfly.worker.supervision import Supervision


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _text(frames):
    return b"".join(frame.payload for frame in frames)


def test_both_streams_come_back_in_order_of_arrival(directory):
    """Frames are read in the order they were written, with their streams and times."""
    writer = LogWriter(directory, 1 << 20)
    writer.write(STDOUT, b"one\n", 1)
    writer.write(STDERR, b"two\n", 2)
    frames = list(LogReader(directory).frames())
    assert [(frame.time_ns, frame.stream, frame.payload) for frame in frames] == [
        (1, STDOUT, b"one\n"),
        (2, STDERR, b"two\n"),
    ]


def test_a_job_without_output_leaves_no_file(directory, tmp_path):
    """No byte, no file, and a reader that finds none yields none."""
    LogWriter(directory, 1 << 20).close()
    assert list(tmp_path.iterdir()) == []
    assert list(LogReader(directory).frames(is_final=True)) == []


def test_a_reader_that_follows_sees_every_byte_once_across_segments(directory):
    """A reader that looks after each write loses nothing though the middle of the log is dropped behind it."""
    writer, reader = LogWriter(directory, 8192), LogReader(directory)
    written, read = b"", b""
    for number in range(400):
        line = b"line %d " % number * 10 + b"\n"
        writer.write(STDOUT, line)
        written += line
        read += _text(reader.frames())
    assert read + _text(reader.frames(is_final=True)) == written
    assert writer.dropped_bytes > 0


def test_a_reader_goes_on_where_another_stopped(directory):
    """A cursor taken at any moment continues without a byte lost or repeated."""
    writer, cursor = LogWriter(directory, 8192), None
    written, read = b"", b""
    for number in range(200):
        writer.write(STDOUT, b"%d," % number * 20)
        written += b"%d," % number * 20
        reader = LogReader(directory, cursor)
        read += _text(reader.frames())
        cursor = reader.cursor
        reader.close()
    assert read == written


def test_a_reader_finds_the_place_that_only_a_number_tells(directory):
    """The position of an earlier reader, kept elsewhere, is enough to go on behind it."""
    writer = LogWriter(directory, 8192)
    for number in range(30):
        writer.write(STDOUT, b"%d," % number * 20)
    frames = LogReader(directory)
    iterator = frames.frames()
    before = b"".join(next(iterator).payload for _ in range(11))
    other = LogReader(directory)
    other.skip_to(frames.cursor.position)
    assert before + _text(other.frames()) == b"".join(b"%d," % number * 20 for number in range(30))


@pytest.mark.attack("D5")
def test_a_log_over_the_cap_keeps_head_and_tail_and_says_what_it_dropped(directory, tmp_path):
    """What is on disk stays under the cap; a late reader gets the beginning, one note with the count, and the end."""
    writer = LogWriter(directory, 16384)
    whole = b"".join(b"%07d\n" % number for number in range(20000))
    for start in range(0, len(whole), 1000):
        writer.write(STDOUT, whole[start : start + 1000])
    writer.close()
    frames = list(LogReader(directory).frames(is_final=True))
    notes = [frame for frame in frames if frame.stream == NOTE]
    kept = [frame.payload for frame in frames if frame.stream == STDOUT]
    head = _text(frames[: frames.index(notes[0])])
    tail = _text(frames[frames.index(notes[0]) + 1 :])
    assert len(notes) == 1
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert sum(map(len, kept)) + writer.dropped_bytes == len(whole)
    assert notes[0].payload == f"… {writer.dropped_bytes} bytes left out …\n".encode()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 16384 + 200


def test_a_frame_cut_by_a_crash_is_given_once_and_only_at_the_end(directory, tmp_path):
    """While the writer lives half a frame is waited for; once it is dead the bytes that are there are the job's."""
    writer = LogWriter(directory, 1 << 20)
    writer.write(STDOUT, b"whole")
    writer.write(STDOUT, b"broken")
    os.truncate(tmp_path / "log", (tmp_path / "log").stat().st_size - 3)
    reader = LogReader(directory)
    assert _text(reader.frames()) == b"whole"
    assert _text(reader.frames(is_final=True)) == b"bro"
    assert _text(reader.frames(is_final=True)) == b""


@pytest.mark.control("D5")
def test_without_a_cap_a_log_grows_with_its_job(directory, tmp_path):
    """The same flood fills the disk when nothing bounds it (the negative control)."""
    writer = LogWriter(directory, 1 << 40)
    for _ in range(160):
        writer.write(STDOUT, bytes(1000))
    writer.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) >= 160_000


@pytest.mark.attack("D5")
def test_one_byte_writes_stay_under_the_cap_too(directory, tmp_path):
    """The cap counts the frames' headers: a job that writes byte by byte does not get fourteen times the disk."""
    writer = LogWriter(directory, 8192)
    for _ in range(5000):
        writer.write(STDOUT, b"x")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 8192 + 200
    assert writer.bytes_of[STDOUT] == 5000


def test_a_whole_log_in_pieces_of_any_size_decodes_to_its_frames(directory):
    """The store hands out a log in pieces that know nothing of frames."""
    writer = LogWriter(directory, 1 << 20)
    for number in range(50):
        writer.write(STDERR, b"%d" % number * number, number)
    frames = list(LogReader(directory, Cursor()).frames())
    whole = b"".join(frame.encode() for frame in frames)
    pieces = (whole[start : start + 7] for start in range(0, len(whole), 7))
    assert list(decode_all(pieces)) == frames


def test_a_log_of_single_bytes_does_not_become_a_frame_for_each(directory):
    """After many small frames output is to gather, ever longer; pieces of some size are never held up."""
    writer = LogWriter(directory, 1 << 30)
    pauses = []
    for _ in range(4):
        pauses.append(writer.gather_seconds(1))
        for _ in range(30_000):
            writer.write(STDOUT, b"x", 1)
    assert pauses[:2] == [0.0, 0.0]
    assert 0 < pauses[2] < pauses[3] < 0.01
    assert writer.gather_seconds(4096) == 0.0
    writer.close()


def test_output_in_a_flood_of_single_bytes_gathers_in_its_pipe(directory, monkeypatch):
    """Who follows a job waits as the log says, so that the next look finds more."""
    waited = []
    supervision = Supervision.__new__(Supervision)
    supervision._log = supervision._output = LogWriter(directory, 1 << 30)
    monkeypatch.setattr(supervision._log, "gather_seconds", lambda size: 0.25 if size < 1024 else 0.0)
    monkeypatch.setattr("time.sleep", waited.append)
    reader, writer = os.pipe()
    supervision._pipes = {reader: STDOUT}
    for piece in (b"x", b"x" * 2048):
        os.write(writer, piece)
        supervision._pump(reader)
    assert waited == [0.25]
    for fd in (reader, writer):
        os.close(fd)
    supervision._log.close()

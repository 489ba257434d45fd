"""What a job writes of its secrets is masked, in each encoding, however it is cut; the rest passes as it came."""

import base64
import json
import os
import random
import shlex
import time
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayfly.worker import masking
from dayfly.worker.exit import Artifact, Disk, Oom, Victim
from dayfly.worker.logfile import NOTE, STDERR, STDOUT, LogReader, LogWriter
from dayfly.worker.masked_exit import without_secrets
from dayfly.worker.masked_log import MaskedLog
from dayfly.worker.masking import MASK, MaskedOutput, Masker

SECRET = b"s3cr3t/+ value%~'\"\xc3\xa4$"
_ENCODINGS = {
    "plain": lambda value: value,
    "base64": base64.b64encode,
    "base64 with a name": lambda value: base64.b64encode(b"user:" + value),
    "base64 with two letters": lambda value: base64.b64encode(b"u:" + value + b"\n"),
    "url-safe base64": lambda value: base64.urlsafe_b64encode(b"xy" + value),
    "url": lambda value: urllib.parse.quote(value, safe="").encode(),
    "url, lower case": lambda value: urllib.parse.quote(value, safe="").lower().encode(),
    "url, every byte": lambda value: "".join(f"%{byte:02X}" for byte in value).encode(),
    "url, some kept": lambda value: urllib.parse.quote(value, safe="/+'").encode(),
    "form": lambda value: urllib.parse.quote_plus(value).encode(),
    "json": lambda value: json.dumps(value.decode()).encode(),
    "json, utf-8": lambda value: json.dumps(value.decode(), ensure_ascii=False).encode(),
    "shell": lambda value: shlex.quote(value.decode()).encode(),
    "hex": lambda value: value.hex().encode(),
    "broken in two lines": lambda value: value[:7] + b"\r\n" + value[7:],
}


def _in_pieces(masker, output, sizes):
    stream = MaskedOutput(masker)
    shown = b""
    while output:
        size = next(sizes)
        shown += stream.feed(output[:size])
        output = output[size:]
    return shown + stream.flush()


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_a_value_is_masked_in_every_encoding_and_cut(encoding):
    """Whole, byte by byte, and cut anywhere."""
    encoded = _ENCODINGS[encoding](SECRET)
    masker = Masker([SECRET])
    output = b"before " + encoded + b" behind\n"
    whole = masker.mask(output)
    assert MASK in whole
    assert whole.startswith(b"before ")
    assert whole.endswith(b" behind\n")
    assert _longest_common(whole, encoded) < 8
    for cut in range(1, len(output)):
        assert _in_pieces(masker, output, iter([cut, 10_000])) == whole
    assert _in_pieces(masker, output, iter([1] * len(output))) == whole


def _longest_common(text, encoded):
    """The longest piece of the encoded value that is still there."""
    sizes = (end - start for start in range(len(encoded)) for end in range(start, len(encoded) + 1)
             if encoded[start:end] in text)  # fmt: skip
    return max(sizes, default=0)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(min_size=4, max_size=40).filter(lambda value: len(b"".join(value.split())) >= 4),
    st.binary(max_size=20), st.binary(max_size=20), st.sampled_from(sorted(_ENCODINGS)), st.integers(1, 9),
)  # fmt: skip
def test_no_value_shows_however_it_is_cut(value, before, behind, encoding, size):
    """Any bytes: what comes in pieces is shown as what comes whole, and the value is not in it."""
    try:
        encoded = _ENCODINGS[encoding](value)
    except UnicodeDecodeError:
        encoded = value
    output = before + encoded + behind
    masker = Masker([value])
    shown = _in_pieces(masker, output, iter([size] * len(output)))
    assert shown == masker.mask(output)
    stripped = value.strip(b"\r\n")
    if stripped and not set(stripped) & set(MASK) and encoding == "plain":
        assert stripped not in shown


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=20))
def test_what_holds_no_value_passes_as_it_came(chunks):
    """Byte for byte, line ends and percent signs too."""
    stream = MaskedOutput(Masker([b"a value that is not there", b"%41"]))
    whole = b"".join(chunks).replace(b"a v", b"").replace(b"%41", b"")
    shown = b"".join(stream.feed(whole[at : at + 7]) for at in range(0, len(whole), 7)) + stream.flush()
    assert shown == whole


def test_each_line_of_a_key_is_masked():
    """Printed alone, in another order, indented, whole; short lines only within the whole."""
    lines = ["-----BEGIN KEY-----", "MIIabcdefghijklmnop", "qrstuvwxyz0123456789", "ab", "-----END KEY-----"]
    masker = Masker(["\n".join(lines).encode() + b"\n"])
    assert masker.mask("\n".join(lines).encode()) == MASK
    assert masker.mask(b"  " + lines[2].encode() + b"\n") == b"  ***\n"
    assert masker.mask(b"ab\n") == b"ab\n"
    assert masker.mask("\r\n".join(lines).encode()) == MASK


def test_values_within_values_and_beside_each_other():
    """The longer one hides whole, and overlapping ones leave no end."""
    masker = Masker([b"secret", b"my-secret-word", b"abab"])
    assert masker.mask(b"x my-secret-word secret y") == b"x *** *** y"
    assert masker.mask(b"ababab") == MASK
    assert _in_pieces(masker, b"ababab.", iter([4, 1, 1, 1])) == b"***."


def test_only_what_could_be_a_beginning_is_held_back():
    """Live output is not delayed by more than the letters in doubt."""
    stream = MaskedOutput(Masker([b"secret"]))
    assert stream.feed(b"hello\n") == b"hello\n"
    assert stream.due_at is None
    assert stream.feed(b"pass") == b"pas"
    assert stream.due_at is not None
    assert stream.feed(b"word: ") == b"sword: "
    assert stream.feed(b"50%") in (b"50", b"50%")
    assert stream.flush() + stream.feed(b"") in (b"%", b"")


def test_what_is_held_back_is_bounded():
    """A beginning that is followed by line ends for ever is let go."""
    stream = MaskedOutput(Masker([b"secret"]))
    shown = stream.feed(b"sec")
    for _ in range(40):
        shown += stream.feed(b"\n" * 65536)
    assert len(shown) > 1 << 20
    assert (shown + stream.flush()).startswith(b"sec\n")


def test_the_log_has_both_streams_masked_and_notes(tmp_path, monkeypatch):
    """What is in doubt is written when nothing more has come for a second, and at the end."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    log = MaskedLog(LogWriter(directory, 1 << 20), Masker([b"secret"]))
    log.write(STDOUT, b"a sec")
    log.write(STDERR, b"b secre")
    log.write(NOTE, b"the secret\n")
    assert log.due_at == 100.0 + masking.IDLE_SECONDS
    log.let_go(now[0])
    log.write(STDERR, b"t\n")
    now[0] += masking.IDLE_SECONDS
    log.let_go(now[0])
    assert log.due_at is None
    log.close()
    frames = list(LogReader(directory).frames(is_final=True))
    os.close(directory)
    written = {stream: b"".join(each.payload for each in frames if each.stream == stream) for stream in (1, 2, 3)}
    assert written == {STDOUT: b"a sec", STDERR: b"b ***\n", NOTE: b"the ***\n"}


def test_words_that_a_job_chose_are_masked_in_its_end():
    """Names of files and of processes; what kind of end it was stays, though a secret be called so."""
    facts = {
        "cause": "exited",
        "message": "hunter22: command not found",
        "warnings": ("left out: hunter22",),
        "oom": Oom(1, (Victim("hunter22", 1),), None, None),
        "disk": Disk(True, 1, 1, (("/hunter22", 1),)),
        "artifacts": (Artifact("a/hunter22", 1, "0" * 64, 0o644, 0.0),),
    }
    told = repr(without_secrets(facts, Masker([b"hunter22", b"exited"])))
    assert "hunter22" not in told
    assert "'cause': 'exited'" in told
    assert without_secrets({**facts, "oom": None, "message": None}, Masker([b"x" * 8]))["oom"] is None


def test_base64_in_lines_is_masked():
    """The tool base64 breaks its output at 76 digits."""
    encoded = base64.encodebytes(b"p" * 50 + SECRET)
    shown = Masker([SECRET]).mask(encoded)
    assert b"\n" in encoded[:-1]
    assert MASK in shown
    assert encoded[70:80] not in shown


def test_random_noise_stays_quick():
    """Twenty secrets and 8 MiB of base64: a flood is masked faster than a pipe brings it, by a wide margin."""
    chance = random.Random(1)
    masker = Masker([chance.randbytes(30) for _ in range(20)])
    noise = base64.b64encode(chance.randbytes(6 << 20))
    stream = MaskedOutput(masker)
    shown = sum(len(stream.feed(noise[at : at + 65536])) for at in range(0, len(noise), 65536))
    assert shown + len(stream.flush()) == len(noise)

"""Secret values in what a job or its service chose to call things, and in what its service said last."""

import os
from types import SimpleNamespace

import pytest

from dayfly.worker import artifacts, running_service
from dayfly.worker.artifacts import Tree, collect
from dayfly.worker.logfile import STDOUT
from dayfly.worker.masking import Masker
from dayfly.worker.record import ArtifactRules
from dayfly.worker.running_service import RunningService

_LONG = "correct-horse-battery-staple-0123456789"


@pytest.mark.attack("S1")
@pytest.mark.control("S1")
@pytest.mark.parametrize("value", ["p\u00e4sswort-1234", _LONG, 'it\'s "both" of them'])
def test_s1_names_of_files_are_masked_before_they_are_quoted_or_cut(tmp_path, monkeypatch, value):
    """Of what an escape or a cut leaves of a value nobody would know that it is one. Without the masker it shows."""
    monkeypatch.setattr(artifacts, "MAX_NAME", 60)
    (tmp_path / "store").mkdir()
    upper = tmp_path / "upper"
    upper.mkdir()
    os.symlink("x", upper / ("n" * 40 + value))
    fd = os.open(upper, os.O_RDONLY)

    def warnings(masker):
        rules = ArtifactRules((r".*\Z",), (), ("",), ("**",), changed=False)
        found = collect(rules, [Tree("/workspace", fd)], str(tmp_path / "store"), lambda: None, masker)
        return found.warnings[0]

    shown, masked = warnings(None), warnings(Masker([value.encode()]))
    os.close(fd)
    part = ascii(value[:10])[1:-1]
    assert part in shown
    assert part not in masked
    assert "***' left out" in masked


class _Init:
    """The two outputs of a service that lives."""

    def __init__(self):
        self.stdout, self.writer = os.pipe()
        self.stderr, self._other = os.pipe()
        self.end_fd = -1
        self.notes = ()

    def close(self):
        for fd in (self.stdout, self.writer, self.stderr, self._other):
            os.close(fd)


@pytest.fixture
def service(tmp_path):
    """Makes a service of these secrets; gives it and the end of the pipe that it writes to."""
    directory = os.open(tmp_path, os.O_RDONLY)
    inits = []

    def make(*secrets):
        inits.append(_Init())
        plan = SimpleNamespace(name="db", image_ref="host", log_limit_bytes=1 << 26)
        masker = Masker(secrets) if secrets else None
        made = RunningService(plan, SimpleNamespace(init=inits[-1]), directory, masker)
        return made, inits[-1].writer

    yield make
    for init in inits:
        init.close()
    os.close(directory)


@pytest.mark.attack("S1")
@pytest.mark.control("S1")
def test_s1_the_last_words_of_a_service_hold_no_end_of_a_value(service):
    """A value of which only the end is within what is remembered; without a masker that end is shown."""
    token = os.urandom(400).hex().encode()
    said = []
    for secrets in ((token,), ()):
        made, writer = service(*secrets)
        os.write(writer, b"x" * 100 + token + b"\n" + b"y" * (running_service._TAIL_BYTES - 500) + b"\n" + b"ok\n" * 3)
        made._take_all()
        made._output.close()
        said.append(made._log.tail)
    assert token[-100:] not in said[0]
    assert token[-100:] in said[1]


def test_who_goes_on_writing_for_a_service_keeps_nobody_busy(service, monkeypatch):
    """Its pipe may have been given away: what fits into it is taken at its end, and no more."""
    made, writer = service()
    taken, read = [], os.read

    def flood(fd, size):
        chunk = read(fd, size)
        taken.append(len(chunk))
        assert sum(taken) < 16 << 20
        os.write(writer, b"x" * len(chunk))
        return chunk

    os.write(writer, b"x" * 4096)
    monkeypatch.setattr(running_service.os, "read", flood)
    made._take_all()
    assert 4096 <= sum(taken) <= 128 << 10
    assert made._log.bytes_of[STDOUT] == sum(taken)

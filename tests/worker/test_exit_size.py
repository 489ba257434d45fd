"""What a keeper writes down of a job's end is never more than an agent reads back."""

import json

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime.shape import fields_of
from dayfly.worker import artifacts, jobfiles
from dayfly.worker.exit import Artifact
from dayfly.worker.jobdir import JobDirectory


@pytest.mark.attack("A15")
def test_the_largest_collection_fits_what_is_read_back():
    """As many artifacts as there may be, with as long paths of letters that JSON makes longest."""
    path = "\u00e9" * (artifacts.MAX_PATHS_BYTES // artifacts.MAX_FILES // 2)
    one = Artifact(path, artifacts.MAX_BYTES, "0" * 64, 0o777, 1_700_000_000.123456789)
    size = artifacts.MAX_FILES * (len(json.dumps(one, default=fields_of)) + 2)
    assert size + 3 * artifacts.MAX_WARNINGS * artifacts.MAX_WARNING < jobfiles.LARGEST * 3 // 4


@pytest.mark.attack("A15")
def test_an_end_that_could_not_be_read_back_is_not_written(tmp_path, monkeypatch):
    """The keeper hears of it and writes a shorter one, in place of one that is taken for no end at all."""
    monkeypatch.setattr(jobfiles, "LARGEST", 100)
    directory = JobDirectory.open(str(tmp_path))
    with pytest.raises(HostError, match="too many to be read"):
        directory.write_exit(cause="exited", exit_code=0, warnings=("x" * 100,))
    assert jobfiles.read_exit(str(tmp_path)) is None

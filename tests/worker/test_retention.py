"""What outlives jobs goes when nothing needs it any more, and not before."""

import os

import pytest

from dayfly.jobs.errors import StoreError
from dayfly.runtime.bundle import freeze, path_of
from dayfly.runtime.images.store import ImageStore
from dayfly.worker.retention import expire
from dayfly.worker.settings import WorkerSettings


@pytest.fixture
def settings(home, valkey):
    home.mkdir(mode=0o700)
    return WorkerSettings(home, valkey, "w")


@pytest.fixture
def frozen(settings, tmp_path):
    """`frozen("a")`: a bundle with that content, frozen days ago."""

    def freeze_one(content):
        directory = tmp_path / content
        directory.mkdir()
        (directory / "file").write_text(content)
        digest = freeze(directory, settings.home / "bundles")
        os.utime(settings.home / "bundles" / digest.removeprefix("sha256:"), (0, 0))
        return digest

    return freeze_one


def test_a_frozen_directory_goes_when_no_job_names_it(settings, frozen, queue):
    """One that a queued job names stays, and one that was frozen a moment ago, whose job is still to come."""
    named, forgotten = frozen("named"), frozen("forgotten")
    queue.submit(script="true", dir={"bundle": named})
    young = frozen("young")
    os.utime(settings.home / "bundles" / young.removeprefix("sha256:"))
    expire(settings)
    root = settings.home / "bundles"
    assert os.path.isdir(path_of(named, root))
    assert os.path.isdir(path_of(young, root))
    with pytest.raises(StoreError, match="not on this host"):
        path_of(forgotten, root)


def test_without_an_answer_from_the_queue_no_frozen_directory_goes(settings, frozen, tmp_path):
    """A queue that cannot be asked may hold a job that names it."""
    digest = frozen("named")
    expire(WorkerSettings(settings.home, f"unix://{tmp_path}/nobody", "w"))
    assert os.path.isdir(path_of(digest, settings.home / "bundles"))


def test_a_layer_without_a_name_goes(settings, tmp_path):
    """What an import left behind, or a removal while a job ran; a layer that a warm keeper holds stays."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_text("x")
    store = ImageStore(settings.home)
    (layer,) = store.import_(str(tmp_path / "root"), "a").image.layers
    (settings.home / "keepers").mkdir()
    held = settings.home / "keepers/layers"
    held.write_text(layer)
    store.remove("a", lambda: {layer})
    expire(settings)
    assert os.path.isdir(layer)
    held.write_text("")
    expire(settings)
    assert not os.path.exists(layer)

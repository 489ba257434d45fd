"""The image `host`: what of the host a job may see, and that it follows the host."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dayfly.runtime.images import host as host_module
from dayfly.runtime.images.host import HostImage
from dayfly.runtime.images.hostetc import walk_etc
from dayfly.runtime.images.image import Image
from dayfly.runtime.images.layers import Layers
from dayfly.runtime.images.store import ImageStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small host of the test's own, with merged /usr."""
    root = tmp_path / "host"
    for path in ("usr/bin", "usr/lib", "etc/ssl/certs", "etc/app/deep", "root", "home/me"):
        (root / path).mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/app/deep/conf").write_text("one")
    for path in root.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    return root


@pytest.fixture
def resolve(root: Path, home: Path) -> Callable[[], Image]:
    """Resolves the image of that host, each time as a new process would."""
    (home / "images").mkdir(parents=True)

    def run() -> Image:
        return HostImage(str(home / "images"), Layers(str(home / "images")), str(root)).resolve()

    return run


def _etc(image: Image) -> set[str]:
    etc = Path(image.layers[0]) / "etc"
    return {str(path.relative_to(etc)) for path in etc.rglob("*")}


def test_the_real_hosts_image_has_what_a_root_needs(store: ImageStore) -> None:
    """/usr as a tree of its own, the merged links, empty mount points, /etc/passwd, a harmless resolv.conf."""
    image = store.resolve("host")
    layer = Path(image.layers[0])
    assert image.host_trees[0] == "/usr"
    for name in ("bin", "sbin", "lib"):
        if os.path.islink(f"/{name}"):
            assert os.readlink(layer / name) == os.readlink(f"/{name}")
        else:
            assert f"/{name}" in image.host_trees
    for name in ("proc", "sys", "dev", "run", "usr", "opt", "home", "root", "workspace"):
        assert os.listdir(layer / name) == []
    assert [stat.S_IMODE(os.stat(layer / name).st_mode) for name in ("tmp", "var/tmp")] == [0o1777] * 2
    assert "root:" in (layer / "etc/passwd").read_text()
    assert (layer / "etc/resolv.conf").read_bytes() == b""
    assert "127.0.0.1\tlocalhost" in (layer / "etc/hosts").read_text()
    assert (image.config.cmd, image.config.user) == ((), "")


def test_nothing_of_the_real_hosts_etc_that_is_not_for_all_is_in_it(store: ImageStore) -> None:
    """No file that another user could not read, no shadow, no key."""
    layer = Path(store.resolve("host").layers[0])
    for path in (layer / "etc").rglob("*"):
        real = Path("/etc") / path.relative_to(layer / "etc")
        if path.is_file() and not path.is_symlink() and path.name not in ("hosts", "hostname", "resolv.conf"):
            assert real.stat().st_mode & stat.S_IROTH, real
            assert b"PRIVATE KEY" not in path.read_bytes()
    assert not {"shadow", "gshadow", "sudoers", "machine-id"} & set(os.listdir(layer / "etc"))


@pytest.mark.parametrize(
    ("path", "content", "mode"),
    [
        ("shadow", "root:!:1::::::", 0o644),
        ("gshadow-", "x", 0o644),
        ("ssh/ssh_host_ed25519_key", "x", 0o644),
        ("ssl/private/server.pem", "x", 0o644),
        ("sudoers.d/me", "x", 0o644),
        ("machine-id", "0123", 0o444),
        ("krb5.keytab", "x", 0o644),
        ("NetworkManager/system-connections/wifi", "x", 0o644),
        ("docker/config.json", "{}", 0o644),
        ("dayfly/config.toml", "url='redis://:pw@h'", 0o644),
        ("app/unreadable", "x", 0o640),
        ("app/server.pem", "text\n-----BEGIN RSA PRIVATE KEY-----\nMII", 0o644),
        ("app/pip.conf", "index-url = https://me:hunter2@pypi.example/simple", 0o644),
        ("app/npmrc", "//registry/:_authToken=abc", 0o644),
        ("app/settings.ini", "db_password = hunter2", 0o644),
        ("app/big", "x" * (5 << 20), 0o644),
    ],
)
def test_secrets_of_etc_are_left_out(
    path: str, content: str, mode: int, root: Path, resolve: Callable[[], Image]
) -> None:
    """By name, by mode, by content or by size, though this one be readable by all."""
    target = root / "etc" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    target.chmod(mode)
    (root / "etc/app/plain").write_text("nameserver = 1")
    found = _etc(resolve())
    assert path not in found
    assert {"app/plain", "passwd"} <= found


def test_a_directory_that_others_may_not_enter_is_left_out(root: Path, resolve: Callable[[], Image]) -> None:
    """Whatever the modes of the files in it are."""
    (root / "etc/app").chmod(0o750)
    assert "app" not in _etc(resolve())


def test_what_goes_while_etc_is_read_is_left_out(root: Path) -> None:
    """A package manager that renames and deletes at that moment makes no job fail."""
    (root / "etc/gone-file").write_text("x")
    (root / "etc/gone-link").symlink_to("passwd")
    entries = walk_etc(str(root / "etc"))
    found = {next(entries).path, next(entries).path}
    assert found == {"", "app"}  # the names of /etc have been read by now
    for name in ("gone-file", "gone-link"):
        (root / "etc" / name).unlink()
    shutil.rmtree(root / "etc/app")
    assert {entry.path for entry in entries} == {"passwd", "ssl", "ssl/certs"}


def test_symlinks_of_etc_are_copied_not_followed(root: Path, resolve: Callable[[], Image]) -> None:
    """A link to a secret stays a link, and a FIFO does not hold us up."""
    (root / "secret").write_text("s")
    (root / "etc/link").symlink_to("/root/secret")
    os.mkfifo(root / "etc/fifo")
    layer = Path(resolve().layers[0])
    assert os.readlink(layer / "etc/link") == "/root/secret"
    assert not (layer / "etc/fifo").exists()
    assert os.listdir(layer / "root") == []


def test_a_host_without_merged_usr_gives_its_directories(root: Path, resolve: Callable[[], Image]) -> None:
    """/bin and /lib of their own are trees beside /usr."""
    (root / "bin").unlink()
    (root / "bin").mkdir()
    image = resolve()
    assert image.host_trees == (f"{root}/usr", f"{root}/bin")
    assert (Path(image.layers[0]) / "bin").is_dir()
    assert (Path(image.layers[0]) / "lib").is_symlink()


def test_the_skeleton_is_made_once(root: Path, resolve: Callable[[], Image], home: Path) -> None:
    """And has the same digest wherever the host is the same."""
    assert resolve() == resolve()
    assert len(os.listdir(home / "images/layers")) == 1
    assert resolve().digest.startswith("host:")


@pytest.mark.parametrize("change", ["replaced", "added", "removed", "in place", "merged"])
def test_the_skeleton_follows_the_host(change: str, root: Path, resolve: Callable[[], Image]) -> None:
    """However a file of /etc changes, and when the host moves its /bin."""
    before = resolve()
    conf = root / "etc/app/deep/conf"
    if change == "replaced":
        (root / "etc/app/deep/new").write_text("two")
        os.rename(root / "etc/app/deep/new", conf)
    elif change == "added":
        (root / "etc/app/deep/more").write_text("two")
    elif change == "removed":
        conf.unlink()
    elif change == "in place":
        conf.write_text("two")
    else:
        (root / "bin").unlink()
        (root / "bin").symlink_to("usr/sbin")
    after = resolve()
    assert after.digest != before.digest
    assert os.path.isdir(before.layers[0])


def test_a_lost_skeleton_is_made_again(resolve: Callable[[], Image], home: Path) -> None:
    """After a sweep, a damaged record, or a reboot."""
    image = resolve()
    shutil.rmtree(Path(image.layers[0]).parent)
    assert resolve() == image
    assert os.path.isdir(image.layers[0])
    (home / "images/host.json").write_text('{"version": 1, "digest": ')
    assert resolve() == image


def test_a_reboot_makes_a_skeleton_of_its_own(resolve: Callable[[], Image], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files were not synced: after a power cut the old ones may be empty."""
    before = resolve()
    monkeypatch.setattr(host_module, "_boot_id", lambda: "another")
    after = resolve()
    assert after.digest == before.digest
    assert after.layers != before.layers


def test_a_sweep_keeps_the_current_skeleton(store: ImageStore, home: Path) -> None:
    """And takes the ones before it."""
    current = store.resolve("host").layers[0]
    old = home / "images/layers" / ("0" * 64)
    (old / "tree").mkdir(parents=True)
    store.sweep(set)
    assert os.path.isdir(current)
    assert not old.exists()

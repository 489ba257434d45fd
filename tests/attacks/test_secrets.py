"""S1: what a thief of Redis makes of secrets, and what a job makes of the memory and files around its own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from dayfly.jobs import curves
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import SpecError
from dayfly.jobs.key_text import KeyKind, generate
from dayfly.jobs.sealed import SealedSecret, seal
from dayfly.jobs.signatures import SECRET, SigningKey, TrustedKeys
from dayfly.queue.key_files import write_key
from dayfly.queue.secret_records import SecretRecords
from dayfly.runtime import syscalls
from dayfly.runtime.shape import Secret
from dayfly.worker.settings import WorkerSettings, default_secret_key
from dayfly.worker.unsealing import Unsealer

VALUE = b"correct horse"
JOB = read_job({"image": "host", "script": "true", "secrets": ["token"]})
SIGNER = SigningKey(generate(KeyKind.HMAC))
TRUSTED = TrustedKeys([SIGNER.key])


@pytest.fixture
def key(home: Path) -> Any:
    """The worker's, whose public half everybody may know."""
    key = generate(KeyKind.X25519)
    write_key(default_secret_key(home), key)
    return key


@pytest.fixture
def opened(redis: Redis, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes | str]:
    """`opened(queue="default", trusted=None)`: the secret `token` as a worker has it for a job; else why it has not."""
    # A test's process stays dumpable: the tests after it look into their own /proc.
    monkeypatch.setattr(syscalls, "prctl", lambda *words: 0)

    def open_as_worker(queue: str = "default", trusted: TrustedKeys | None = None) -> bytes | str:
        try:
            return Unsealer(WorkerSettings(home, "", "w"), redis, trusted).values(JOB, queue)["token"]
        except SpecError as error:
            return str(error)

    return open_as_worker


def _alter(redis: Redis, **fields: Any) -> None:
    found = json.loads(redis.hget("dayfly:secrets", "token"))
    redis.hset("dayfly:secrets", "token", json.dumps({**found, **fields}))


def test_s1_a_thief_cannot_give_a_secret_to_another_queue(
    tally: Any, redis: Redis, key: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queues are bound to the sealed value: the control seals without."""
    SecretRecords(redis).put(seal("token", VALUE, ["deploy"], [key], 1.0))
    assert opened("deploy") == VALUE
    _alter(redis, queues=["default"])
    held = "another name" in opened("default")
    real_seal, real_unseal = curves.seal, curves.unseal
    monkeypatch.setattr(curves, "seal", lambda public, value, info: real_seal(public, value, b""))
    monkeypatch.setattr(curves, "unseal", lambda secret, sealed, info: real_unseal(secret, sealed, b""))
    SecretRecords(redis).put(seal("token", VALUE, ["deploy"], [key], 1.0))
    _alter(redis, queues=["default"])
    tally.judge(held=held, bit=opened("default") == VALUE, seen=held)


def test_s1_a_thief_cannot_call_a_secret_by_another_name(
    tally: Any, redis: Redis, key: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the value of one that a job may print does not become one that it may not."""
    SecretRecords(redis).put(seal("root", VALUE, ["default"], [key], 1.0))
    redis.hset("dayfly:secrets", "token", redis.hget("dayfly:secrets", "root"))
    held = "another name" in opened()
    real_seal, real_unseal = curves.seal, curves.unseal
    monkeypatch.setattr(curves, "seal", lambda public, value, info: real_seal(public, value, b""))
    monkeypatch.setattr(curves, "unseal", lambda secret, sealed, info: real_unseal(secret, sealed, b""))
    SecretRecords(redis).put(seal("root", VALUE, ["default"], [key], 1.0))
    redis.hset("dayfly:secrets", "token", redis.hget("dayfly:secrets", "root"))
    tally.judge(held=held, bit=opened() == VALUE, seen=held)


def test_s1_a_thief_cannot_set_a_secret_where_signatures_are_wanted(
    tally: Any, redis: Redis, key: Any, opened: Any
) -> None:
    """Anybody can seal for a public key; without trusted keys that is believed."""
    signed = seal("token", VALUE, ["default"], [key], 1.0)
    signature = SIGNER.sign(SECRET, signed.signed_values())
    SecretRecords(redis).put(SealedSecret("token", signed.queues, signed.sealed, 1.0, signature))
    assert opened(trusted=TRUSTED) == VALUE
    theirs = seal("token", b"the thief's", ["default"], [key.public()], 1.0)
    SecretRecords(redis).put(SealedSecret("token", theirs.queues, theirs.sealed, 1.0, signature))
    altered = opened(trusted=TRUSTED)
    SecretRecords(redis).put(theirs)
    unsigned = opened(trusted=TRUSTED)
    held = "altered" in altered and "not signed" in unsigned
    tally.judge(held=held, bit=opened() == b"the thief's", seen=(altered, unsigned))


@pytest.mark.parametrize(
    "text", [b"", b"x", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"queues":["default"],"sealed":{"a":"%"},"set_at":1}']
)
def test_s1_rubbish_in_place_of_a_secret_rejects_the_job(redis: Redis, key: Any, opened: Any, text: bytes) -> None:
    """With the field's path; the worker goes on."""
    redis.hset("dayfly:secrets", "token", text)
    assert opened().startswith("secrets.token: ")
    redis.hset("dayfly:secrets", "token", b"x" * (2 << 20))
    assert "there is no such secret" in opened()


def test_s1_a_worker_without_a_key_rejects_the_job(redis: Redis, opened: Any) -> None:
    """It does not run it without the secret."""
    SecretRecords(redis).put(seal("token", VALUE, ["default"], [generate(KeyKind.X25519)], 1.0))
    assert "no key to open any" in opened()


_MEMORY = """
found = None
try:
    with open("/proc/1/maps") as maps, open("/proc/1/mem", "rb", 0) as memory:
        found = 0
        for line in maps:
            start, _, rest = line.partition("-")
            if "rw-p" in rest and "[v" not in rest:
                at, end = int(start, 16), int(rest.split()[0], 16)
                while at < end:  # bit by bit: it is as large as the test's own process
                    memory.seek(at)
                    found += b"correct " + b"horse" in memory.read(min(end - at, 1 << 20))
                    at += 1 << 20
except OSError as error:
    found = -error.errno
tell(found)
"""
_FILE = Secret(name="token")


@pytest.mark.kernel
def test_s1_init_does_not_show_what_it_was_told(tally: Any, attack: Any) -> None:
    """init hands the values over, and a job of another user's cannot read its memory."""
    words: dict[str, Any] = {"user": "1000", "secrets": (_FILE,), "secret_values": _VALUES}
    shown = attack(_MEMORY, **words)
    bare = attack(_MEMORY, without=("undumpable",), **words)
    tally.judge(held=shown < 0, bit=bare >= 0, seen=(shown, bare))


_WRITE = """
path = "/run/secrets/token"
tell([open(path).read(), os.stat(path).st_mode & 0o777, os.stat(path).st_uid,
      tries(lambda: open(path, "w").write("x")), tries(os.unlink, path), tries(os.mkdir, "/run/secrets/d")])
"""
_VALUES = {"token": base64.b64encode(VALUE).decode()}


@pytest.mark.kernel
@pytest.mark.each_runtime
def test_s1_a_secret_file_is_the_users_and_cannot_be_changed(
    tally: Any, attack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0400 and the user's own, on a read-only tmpfs: not even the job's root replaces it for whoever comes behind."""
    words: dict[str, Any] = {"secrets": (_FILE,), "secret_values": _VALUES}
    as_user = attack(_WRITE, user="1000", **words)
    as_root = attack(_WRITE, **words)
    real = syscalls.mount_setattr
    monkeypatch.setattr(
        syscalls,
        "mount_setattr",
        lambda fd, path, flags, set_=0, *rest, **named: (
            None if set_ == syscalls.MOUNT_ATTR_RDONLY else real(fd, path, flags, set_, *rest, **named)
        ),
    )
    bare = attack(_WRITE, **words)
    read_only = 30
    held = as_user[:3] == [VALUE.decode(), 0o400, 1000] and as_root[3:] == [read_only] * 3
    tally.judge(held=held and 0 not in as_user[3:], bit=bare[3:] == [0, 0, 0], seen=(as_user, as_root, bare))


@pytest.mark.kernel
@pytest.mark.each_runtime
def test_s1_a_secret_file_elsewhere_leaves_only_its_mount_point(run: Any) -> None:
    """At its own path and in /run/secrets, through links of the image's too; the job's disk has an empty file."""
    secret = Secret(name="token", file="/opt/app/.netrc", mode=0o440)
    ran = run("sh", "-c", "cat /opt/app/.netrc /run/secrets/token; stat -c %a /opt/app/.netrc",
              secrets=(secret,), secret_values=_VALUES)  # fmt: skip
    assert ran.stdout == VALUE.decode() * 2 + "440\n"
    upper = Path(f"/proc/self/fd/{ran.container.disk.mount_fd}/root/upper/opt/app/.netrc")
    assert upper.read_bytes() == b""


@pytest.mark.kernel
def test_s1_a_variable_holds_any_bytes_but_nul(run: Any) -> None:
    """And is the command's alone: init's own environment has none of it."""
    value = bytes(range(1, 256))
    ran = run("sh", "-c", "printenv RAW | head -c 255 | od -An -tx1 | tr -d ' \\n'; tr '\\0' '\\n' < /proc/1/environ",
              secrets=(Secret(name="raw", env="RAW"),),
              secret_values={"raw": base64.b64encode(value).decode()})  # fmt: skip
    assert ran.stdout == value.hex()

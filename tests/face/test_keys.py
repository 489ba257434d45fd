"""`dayfly key`, `dayfly secret` and what `doctor` says of their files."""

import json
import stat

import pytest

import dayfly as api
from dayfly.cli.main import main
from dayfly.config import load
from dayfly.doctor_check import Verdict
from dayfly.doctor_keys import examine
from dayfly.jobs.errors import DayflyError


@pytest.fixture
def run(capfd, monkeypatch, valkey):
    """`run("key", "ls")`: exit code, stdout, stderr."""
    monkeypatch.setenv("DAYFLY_URL", valkey)

    def command(*arguments, stdin=None):
        if stdin is not None:
            import io
            import sys

            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(each) for each in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command


def test_a_key_is_made_for_its_owner_alone(run, tmp_path, monkeypatch):
    """0600, never over another file; ids are the same for both halves, and `ls` shows what is in use."""
    for kind in ("hmac", "ed25519", "x25519"):
        code, made, _ = run("key", "generate", kind, tmp_path / kind)
        assert code == 0
        assert stat.S_IMODE((tmp_path / kind).stat().st_mode) == 0o600
        assert run("key", "generate", kind, tmp_path / kind)[0] == 125
        code, half, said = run("key", "public", tmp_path / kind)
        if kind == "hmac":
            assert code == 125
            assert "no public half" in said
        else:
            assert made.strip() in half
            (tmp_path / f"{kind}.pub").write_text(half)
    monkeypatch.setenv("DAYFLY_CLIENT_SIGNING_KEY", str(tmp_path / "ed25519"))
    monkeypatch.setenv("DAYFLY_WORKER_TRUSTED_KEYS", f"{tmp_path / 'ed25519.pub'},{tmp_path / 'hmac'}")
    rows = json.loads(run("key", "ls", "--json")[1])
    assert [(row["use"], row["kind"]) for row in rows] == [
        ("sign", "ed25519-secret"),
        ("trust", "ed25519-public"),
        ("trust", "hmac-sha256"),
    ]
    assert rows[0]["id"] == rows[1]["id"]


def test_doctor_says_whether_keys_are_there_and_safe(run, tmp_path, monkeypatch):
    """None configured is fine; a file that others may read is not."""
    assert {check.verdict for check in examine(load())} == {Verdict.OK}
    run("key", "generate", "hmac", tmp_path / "key")
    monkeypatch.setenv("DAYFLY_WORKER_TRUSTED_KEYS", str(tmp_path / "key"))
    (trusted,) = (check for check in examine(load()) if check.name == "trusted keys")
    assert trusted.verdict is Verdict.OK
    (tmp_path / "key").chmod(0o640)
    (trusted,) = (check for check in examine(load()) if check.name == "trusted keys")
    assert trusted.verdict is Verdict.MISSING
    assert "chmod 0600" in trusted.remedy


def test_secrets_are_set_listed_and_removed(run, tmp_path, monkeypatch, valkey):
    """From standard input less one line end, or a file as it is; never shown."""
    run("key", "generate", "x25519", tmp_path / "worker")
    (tmp_path / "worker.pub").write_text(run("key", "public", tmp_path / "worker")[1])
    code, _, said = run("secret", "set", "token", stdin=b"value\n")
    assert code == 125
    assert "secret_recipients" in said
    monkeypatch.setenv("DAYFLY_CLIENT_SECRET_RECIPIENTS", str(tmp_path / "worker.pub"))
    (tmp_path / "pem").write_bytes(b"line one\nline two\n")
    assert run("secret", "set", "token", "--queue", "ci", "--queue", "deploy", stdin=b"value\n")[0] == 0
    assert run("secret", "set", "pem", "--from-file", tmp_path / "pem")[0] == 0
    rows = json.loads(run("secret", "ls", "--json")[1])
    assert [(row["name"], row["queues"], row["is_signed"]) for row in rows] == [
        ("pem", ["default"], False),
        ("token", ["ci", "deploy"], False),
    ]
    assert run("secret", "rm", "pem", "nothing")[0] == 125
    assert [row["name"] for row in json.loads(run("secret", "ls", "--json")[1])] == ["token"]
    for name, value in (("a/b", b"value"), ("short", b"abc"), ("token", b"")):
        assert run("secret", "set", name, stdin=value)[0] == 125


def test_secrets_of_python_are_signed_where_jobs_are(run, tmp_path, monkeypatch):
    """With [client] signing_key; a worker with trusted keys takes no others."""
    run("key", "generate", "x25519", tmp_path / "worker")
    run("key", "generate", "hmac", tmp_path / "sign")
    monkeypatch.setenv("DAYFLY_WORKER_SECRET_KEYS", str(tmp_path / "worker"))
    monkeypatch.setenv("DAYFLY_CLIENT_SIGNING_KEY", str(tmp_path / "sign"))
    with api.Client() as client:
        secret = client.secrets.set("token", "välue", queues=["ci"])
        assert secret.signature is not None
        assert client.secrets.ls() == [secret]
        assert client.secrets.rm(["token", "x"]) == ["token"]
        with pytest.raises(DayflyError, match="cannot set the secret"):
            client.secrets.set("token", "abc")


def test_flags_give_secrets(run):
    """As the document has them; over those of a file, name by name."""
    from dayfly.cli.overlay import lay_over
    from dayfly.jobs.document import Document

    base = Document({"script": "true", "secrets": ["A", "B=/b"]}, "f", {})
    laid = lay_over({"secrets": {"A": "OTHER", "C": "C"}}, base)
    assert laid["secrets"] == {"A": "OTHER", "B": "/b", "C": "C"}


def test_the_embedded_stack_has_a_key_of_its_own(dayfly):
    """Made with the first secret, in its home, for the worker that runs already or comes."""
    assert dayfly("secret", "set", "token", stdin=b"correct horse\n").returncode == 0
    assert stat.S_IMODE((dayfly.home / "secrets.key").stat().st_mode) == 0o600
    done = dayfly("run", "--no-dir", "--secret", "token=/opt/token", "--", "cat", "/opt/token", "/run/secrets/token")
    assert (done.returncode, done.stdout) == (0, b"***" * 2), done.stderr
    done = dayfly("run", "--no-dir", "--secret", "token", "--", "sh", "-c", 'echo "${#token}"')
    assert done.stdout == b"13\n"

"""The door: what it refuses, and in which words."""

import math
from pathlib import Path

import pytest

from dayfly.jobs.door import read_job
from dayfly.jobs.errors import NotBuilt, SpecError

_DIGEST = "sha256:" + "0123456789abcdef" * 4


def _refusal(document):
    with pytest.raises(SpecError) as caught:
        read_job(document)
    return str(caught.value)


_REFUSED = [
    # unknown fields
    ({"limit": {}}, "limit: unknown field; did you mean limits?"),
    ({"Image": "x"}, "Image: unknown field; did you mean image?"),
    ({"environment": {}}, "environment: unknown field; did you mean env?"),
    ({"volumes": []}, "volumes: unknown field; did you mean mounts?"),
    ({"zzz": 1}, "zzz: unknown field"),
    ({"a b": 1}, "['a b']: unknown field"),
    ({"limits": {"mem": "1G"}}, "limits.mem: unknown field; did you mean memory?"),
    ({"mounts": [{"source": "/a", "target": "/b", "rw": True}]}, "mounts[0].rw: unknown field"),
    ({"limits": {"io": [{"device": "8:0", "wbps": 1}]}}, "limits.io[0].wbps: unknown field"),
    # wrong types, never coerced
    ({"name": 5}, 'name: must be text, got the number or truth value 5; in quotes it is text: "5"'),
    ({"env": {"A": True}}, 'env.A: must be text, got the number or truth value true; in quotes it is text: "true"'),
    ({"env": 5}, "env: must be a map, got 5"),
    ({"env": None}, "env: has no value: leave it out or give it one"),
    ({"limits": {"pids": "2"}}, "limits.pids: must be a whole number, got '2'"),
    ({"limits": {"pids": True}}, "limits.pids: must be a whole number, got true"),
    ({"limits": {"pids": 2.0}}, "limits.pids: must be a whole number, got 2.0"),
    ({"limits": {"cpus": "2"}}, "limits.cpus: must be a number of cpus such as 1.5, got '2'"),
    ({"limits": {"cpus": True}}, "limits.cpus: must be a number of cpus such as 1.5, got true"),
    ({"limits": {"memory": 1.5}}, "limits.memory: must be a size such as 512M or a whole number of bytes, got 1.5"),
    ({"limits": {"memory": True}}, "limits.memory: must be a size such as 512M or a whole number of bytes, got true"),
    ({"limits": []}, "limits: must be a map, got a list"),
    ({"timeout": True}, "timeout: must be a duration such as 90s or a number of seconds, got true"),
    ({"merge_streams": "yes"}, "merge_streams: must be true or false, got 'yes'"),
    ({"merge_streams": 1}, "merge_streams: must be true or false, got 1"),
    ({"command": [1]}, "command[0]: must be text"),
    ({"command": 1}, "command: must be a list, got 1"),
    ({"script": ["a"]}, "script: must be text, got a list"),
    ({"priority": "1"}, "priority: must be a whole number, got '1'"),
    ({"priority": 1e3}, "priority: must be a whole number, got 1000.0"),
    ({"stop_signal": "15"}, "stop_signal: must be a signal such as SIGTERM or 15, got '15'"),
    ({"stop_signal": True}, "stop_signal: must be a signal such as SIGTERM or 15, got true"),
    ({"user": True}, "user: must be text, got the number or truth value true"),
    ({"after": [1]}, "after.ids[0]: must be text"),
    ({"retry": "3"}, "retry.max: must be a whole number, got '3'"),
    ({"stdin": 3}, "stdin.text: must be text"),
    # switches
    ({"cap_add": ["SYS_NONE"]}, "cap_add[0]: must be a capability such as SYS_PTRACE, or ALL, got 'SYS_NONE'"),
    ({"cap_add": ["kill"], "cap_drop": ["CAP_KILL"]}, "cap_add and cap_drop both have KILL"),
    ({"seccomp": "off"}, "seccomp: must be default or unconfined, got 'off'"),
    ({"privileged": "yes"}, "privileged: must be true or false, got 'yes'"),
    ({"devices": ["/etc/passwd"]}, "devices[0].source: must lie below /dev, got '/etc/passwd'"),
    ({"devices": ["/dev/../etc"]}, "devices[0].source: must not contain .."),
    ({"devices": ["/dev/a:/b"]}, "devices[0].target: must lie below /dev, got '/b'"),
    ({"devices": ["/dev/a:/dev/null"]}, "devices[0]: is every container's own, got '/dev/null'"),
    ({"devices": ["/dev/pts/0"]}, "devices[0]: is every container's own, got '/dev/pts/0'"),
    ({"devices": ["/dev/a:x"]}, "devices[0].permissions: must be of r, w and m, each at most once, got 'x'"),
    ({"devices": ["/dev/a:/dev/b:rr"]}, "devices[0].permissions: must be of r, w and m"),
    ({"devices": ["/dev/a:/dev/b:/dev/c"]}, "devices[0]: must be SRC[:DST][:rwm]"),
    ({"devices": ["/dev/a", "/dev/b:/dev/a/b"]}, "devices: must not have two devices at '/dev/a', or one below it"),
    ({"devices": [{"target": "/dev/a"}]}, "devices[0].source: is missing"),
    # impossible values
    ({"limits": {"pids": 0}}, "limits.pids: must be 1 or more, got 0"),
    ({"limits": {"pids": -1}}, "limits.pids: must be 1 or more, got -1"),
    ({"limits": {"pids": 2**63}}, "limits.pids: must be 4194304 or less, got 9223372036854775808"),
    ({"limits": {"pids": 10**400}}, "limits.pids: must be 4194304 or less, got a number of 1329 bits"),
    ({"limits": {"cpus": 0}}, "limits.cpus: must be from 0.01 to 8192, got 0"),
    ({"limits": {"cpus": -1}}, "limits.cpus: must be from 0.01 to 8192, got -1"),
    ({"limits": {"cpus": math.nan}}, "limits.cpus: must be finite, got nan"),
    ({"limits": {"cpus": math.inf}}, "limits.cpus: must be finite, got inf"),
    ({"limits": {"cpus": 10**400}}, "limits.cpus: must be from 0.01 to 8192, got a number of 1329 bits"),
    ({"limits": {"memory": 0}}, "limits.memory: must be 6M or more, got 0"),
    ({"limits": {"memory": -1}}, "limits.memory: must be 6M or more, got -1"),
    ({"limits": {"memory": 2**63}}, "limits.memory: must be 1E or less, got 9223372036854775808"),
    ({"limits": {"memory": "2 G"}}, "limits.memory: '2 G' is not a size; write a size such as 512M or 2G"),
    ({"limits": {"disk": "1K"}}, "limits.disk: must be 1M or more, got '1K'"),
    ({"limits": {"swap": -1}}, "limits.swap: must be 0 bytes or more, got -1"),
    ({"limits": {"shm": 0}}, "limits.shm: must be 4K or more, got 0"),
    ({"limits": {"cpu_weight": 10_001}}, "limits.cpu_weight: must be 10000 or less, got 10001"),
    ({"limits": {"cpu_burst": "2s"}}, "limits.cpu_burst: must be 1s or less, got '2s'"),
    ({"limits": {"io": [{"device": "8:0"}]}}, "limits.io[0]: must limit something"),
    ({"limits": {"io": [{"device": "/dev/../etc/x", "read_bps": 1}]}}, "limits.io[0].device: must not contain .."),
    ({"limits": {"io": [{"device": "sda", "read_bps": 1}]}}, "limits.io[0].device: must be disk, /dev/NAME or"),
    ({"limits": "cpus"}, "limits: must be NAME=VALUE NAME=VALUE …, each name once, got 'cpus'"),
    ({"limits": "cpus=1 cpus=2"}, "limits: must be NAME=VALUE NAME=VALUE …, each name once"),
    ({"timeout": 0}, "timeout: must be 1ms or more, got 0"),
    ({"timeout": -5}, "timeout: must be 1ms or more, got -5"),
    ({"timeout": "soon"}, "timeout: 'soon' is not a duration; write a duration such as 90s"),
    ({"timeout": math.nan}, "timeout: must be finite, got nan"),
    ({"timeout": 10**12}, "timeout: must be 3660d or less, got 1000000000000"),
    ({"stop_grace": -1}, "stop_grace: must be 0s or more, got -1"),
    ({"delay": "-5m"}, "delay: '-5m' is not a duration"),
    ({"stop_signal": 0}, "stop_signal: must be a signal from 1 to 64, got 0"),
    ({"stop_signal": "SIGNOPE"}, "stop_signal: no signal is called 'SIGNOPE'"),
    ({"priority": 101}, "priority: must be 100 or less, got 101"),
    ({"services": ["sha256:" + "0" * 64]}, "services[0]: must have a name: none can be made of the image 'sha256:0"),
    ({"services": ["a:1", "x/a:2"]}, "services: must not have two services of the name 'a'"),
    ({"services": [{"image": "a", "name": "A_b"}]}, "services[0].name: must be 1 to 63 of a-z 0-9 -"),
    ({"services": [{"image": "a", "name": "localhost"}]}, "services[0].name: must not be localhost"),
    ({"services": [{"image": "host", "name": "a"}]}, "services[0]: command is missing: the image host has no command"),
    ({"services": [{"image": "a", "ready": "5432"}]}, "services[0].ready: must be tcp:PORT or cmd:COMMAND, got '5432'"),
    ({"services": [{"image": "a", "ready": {}}]}, "services[0].ready: must have either tcp, a port, or cmd, a command"),
    ({"services": [{"image": "a", "ready": "tcp:70000"}]}, "services[0].ready.tcp: must be 65535 or less, got 70000"),
    ({"services": [{"image": "a", "limits": {"mem": "1G"}}]}, "services[0].limits.mem: unknown field"),
    ({"services": [{"image": "a", "ports": [{"host": 1, "port": 2, "foo": 3}]}]}, "services[0].ports[0].foo: unknown"),
    ({"command": "x" * 65_537}, "command: is too long to be split into words (65537 characters); write it as a list"),
    ({"entrypoint": "x" * 65_537}, "entrypoint: is too long to be split into words"),
    ({"services": ["a"] * 17}, "services: must have 16 or fewer, got 17"),
    ({"network": "lan"}, "network.mode: must be none or bridge or host or auto, got 'lan'"),
    ({"network": {"mode": "host", "allow": []}}, "network: must not have allow with mode host: only a bridge keeps to"),
    ({"network": {"allow": ["10.0.0.1/8"]}}, "network.allow[0]: must be an address or a range such as 10.1.0.0/16"),
    ({"network": {"allow": ["example.org"]}}, "network.allow[0]: must be an address or a range such as 10.1.0.0/16"),
    ({"network": {"mode": "bridge", "alow": []}}, "network.alow: unknown field; did you mean allow?"),
    ({"limits": {"network": {"down": 5000}}}, "limits.network.down: unknown field"),
    ({"limits": {"network": {"egress": 1}}}, "limits.network.egress: must be 1K or more, got 1"),
    ({"keep": "sometimes"}, "keep: must be never or failed or always, got 'sometimes'"),
    ({"retry": -1}, "retry.max: must be 0 or more, got -1"),
    ({"retry": {"when": ["lost"]}}, "retry.max: is missing"),
    ({"retry": {"max": 1, "when": ["succeeded"]}}, "retry.when[0]: must be failed, signaled"),
    ({"retry": {"max": 1, "exit_codes": [0]}}, "retry.exit_codes[0]: must be 1 or more, got 0"),
    ({"retry": {"max": 1, "exit_codes": [256]}}, "retry.exit_codes[0]: must be 255 or less, got 256"),
    ({"after": []}, "after.ids: must have 1 or more, got 0"),
    ({"after": "a b"}, "after.ids[0]: must be a job id or the start of one, got 'a b'"),
    ({"artifacts": {"when": "never", "paths": ["x"]}}, "artifacts.when: must be always or on_success or on_failure"),
    ({"artifacts": {"when": "always"}}, "artifacts: must name what to collect: paths, or changed: true"),
    # NUL bytes, surrogates, control characters, lengths
    ({"name": "a\0b"}, "name: must not contain a NUL byte"),
    ({"name": "a\nb"}, "name: must be one line without control characters"),
    ({"name": "\x1b[2J"}, "name: must be one line without control characters"),
    ({"name": " "}, "name: must not be empty"),
    ({"name": "x" * 201}, "name: must have "),
    ({"unique": "x" * 201}, "unique: must have "),
    ({"name": "\ud800"}, "name: must not contain half of a surrogate pair"),
    ({"env": {"\ud800": "x"}}, "must not contain half of a surrogate pair"),
    ({"command": ["a\0"]}, "command[0]: must not contain a NUL byte"),
    ({"command": ["x" * 131_072]}, "command[0]: is longer than the 131071 bytes"),
    ({"script": "x" * 131_055}, "script: is longer than the 131053 bytes that a command may have"),
    ({"env": {"A": "x" * 131_072}}, "env: 'A' is longer than the 131071 bytes"),
    ({"command": [""]}, "command: must not begin with an empty word"),
    ({"command": "a 'b"}, "command: cannot be split into words: no closing quotation"),
    ({"script": "echo \0"}, "script: must not contain a NUL byte"),
    ({"script": " \n"}, "script: must not be empty"),
    ({"script": "x" * (1 << 20) + "x"}, "script: must be 1M or less, got 1M"),
    ({"script": "x" * (10 << 20)}, "script: must be 1M or less, got 10M"),
    ({"stdin": "x" * (1 << 20) + "x"}, "stdin: must be 1M or less"),
    ({"stdin": {"base64": "A" * 1_500_000}}, "stdin.base64: must be 1.3M or less, got 1.4M"),
    ({"stdin": {"base64": "?"}}, "stdin: is not base64"),
    ({"stdin": {}}, "stdin: must have either text or base64"),
    ({"env": {f"A{number}": "x" * 100_000 for number in range(50)}}, "document: is larger than 4M"),
    ({"annotations": {"a\0": "x"}}, "must not contain a NUL byte"),
    # names
    ({"env": {"": "x"}}, "env['']: the name of a variable must not be empty"),
    ({"env": {"A=B": "x"}}, "env['A=B']: the name of a variable must not contain = or a newline"),
    ({"env": {"A\nB": "x"}}, "the name of a variable must not contain = or a newline"),
    ({"env": {"A\0": "x"}}, "must not contain a NUL byte"),
    ({"env": ["A"]}, "env: item 1 must be NAME=VALUE, got 'A'"),
    ({"env": ["A=1", "A=2"]}, "env: item 2 gives 'A' a second time"),
    ({"queue": ""}, "queue: must be 1 to 64 of"),
    ({"queue": "a@b"}, "queue: must be 1 to 64 of"),
    ({"queue": "a:b"}, "queue: must be 1 to 64 of"),
    ({"queue": "ci\n"}, "queue: must be 1 to 64 of"),
    ({"queue": "x" * 65}, "queue: must be 1 to 64 of"),
    ({"labels": {"": "x"}}, "labels['']: must be 1 to 63 of"),
    ({"labels": {"a b": "x"}}, "labels['a b']: must be 1 to 63 of"),
    ({"labels": {"a": "x" * 64}}, "labels.a: must be at most 63 of"),
    ({"labels": {f"a{number}": "" for number in range(17)}}, "labels: must have 16 or fewer, got 17"),
    # users (CVE-2026-46680)
    ({"user": "4294967296"}, "user: must have no id above 2147483647"),
    ({"user": 4294967296}, "user: must have no id above 2147483647"),
    ({"user": "-1"}, "user: must be a user or uid"),
    ({"user": -1}, "user: must be a user or uid"),
    ({"user": "0 "}, "user: must be a user or uid"),
    ({"user": "root\n"}, "user: must be a user or uid"),
    ({"user": ""}, "user: must be a user or uid"),
    ({"user": "a:b:c"}, "user: must be a user or uid"),
    ({"user": ":0"}, "user: must be a user or uid"),
    ({"user": "99999999999999999999"}, "user: must be a user or uid"),
    # images
    ({"image": "../x"}, "image: must be a name or an absolute path"),
    ({"image": "-flag"}, "image: must be an image such as"),
    ({"image": "debian@sha256:abc"}, "image: must be sha256: and 64 lower-case hexadecimal digits"),
    ({"image": "debian@" + _DIGEST.upper()}, "image: must be sha256: and 64 lower-case hexadecimal digits"),
    ({"image": "debian:"}, "image: must be an image such as"),
    ({"image": "a//b"}, "image: must be an image such as"),
    ({"image": "a/../b"}, "image: must be an image such as"),
    ({"image": "debian 12"}, "image: must be an image such as"),
    ({"image": ""}, "image: must be an image such as"),
    ({"image": "debian\n"}, "image: must be an image such as"),
    ({"image": "/srv/../etc"}, "image: must be a directory below /, without .."),
    ({"image": "/"}, "image: must be a directory below /, without .."),
    ({"image": "a" * 100_000}, "image: must be an image such as"),
    ({"image": "host"}, "command: is missing: the image host has no command of its own"),
    # paths
    ({"workdir": "src"}, "workdir: must be an absolute path, got 'src'"),
    ({"workdir": "/a/../b"}, "workdir: must not contain .."),
    ({"workdir": "/proc/self/fd/3"}, "workdir: must not lie below /proc"),
    ({"workdir": "/proc/1/cwd"}, "workdir: must not lie below /proc"),
    ({"workdir": "//proc/./self/cwd"}, "workdir: must not lie below /proc"),
    ({"workdir": "/proc"}, "workdir: must not lie below /proc"),
    ({"workdir": "/dev/fd/3"}, "workdir: must not lie below /proc"),
    ({"workdir": "/a\0"}, "workdir: must not contain a NUL byte"),
    ({"workdir": "/" + "a" * 4096}, "workdir: must have at most 4095 bytes"),
    ({"mounts": ["data:/x"]}, "mounts[0].source: must be an absolute path, got 'data'"),
    ({"mounts": ["/a:/b:c"]}, "mounts[0]: must be SRC[:DST][:rw], got '/a:/b:c'"),
    ({"mounts": ["/a:"]}, "mounts[0]: must be SRC[:DST][:rw], got '/a:'"),
    ({"mounts": ["/a:/"]}, "mounts[0].target: must not be /"),
    ({"mounts": ["/a:/proc"]}, "mounts[0].target: must not lie below /proc, /sys or /dev"),
    ({"mounts": ["/a:/dev/shm"]}, "mounts[0].target: must not lie below /proc, /sys or /dev"),
    ({"mounts": ["/a:/b/../../c"]}, "mounts[0].target: must not contain .."),
    ({"mounts": ["/a:/x", "/b:/x/"]}, "mounts: must not have two mounts at '/x'"),
    ({"mounts": [{"source": "/a"}]}, "mounts[0].target: is missing"),
    ({"dir": ""}, "dir.path: must not be empty"),
    ({"dir": {"path": "/w", "host": "h"}}, "dir: must have host, device and inode together"),
    ({"dir": {"path": "w", "host": "h", "device": 1, "inode": 1}}, "dir: must have an absolute path"),
    ({"dir": {"bundle": _DIGEST, "path": "/w"}}, "dir: must have bundle alone"),
    ({"dir": {"bundle": "sha256:0"}}, "dir.bundle: must be sha256: and 64 lower-case hexadecimal digits"),
    ({"dir": {}}, "dir: must have a path or a bundle"),
    ({"artifacts": "../x"}, "artifacts.paths[0]: must not contain .., got '../x'"),
    ({"artifacts": "a/../../x"}, "artifacts.paths[0]: must not contain .."),
    ({"artifacts": "a/.."}, "artifacts.paths[0]: must not contain .."),
    ({"artifacts": "\\.\\./x"}, "artifacts.paths[0]: must not contain .."),
    ({"artifacts": "{..,a}/x"}, "artifacts.paths[0]: must not contain .."),
    ({"artifacts": "@(..|a)/x"}, "artifacts.paths[0]: must not contain .."),
    ({"artifacts": "a\0"}, "artifacts.paths[0]: must not contain a NUL byte"),
    ({"artifacts": ""}, "artifacts.paths[0]: must not be empty"),
    ({"artifacts": {"paths": ["ok"], "exclude": ["../x"]}}, "artifacts.exclude[0]: must not contain .."),
    # together
    ({"script": "a", "command": ["b"]}, "script: cannot be together with command"),
    ({"script": "a", "entrypoint": []}, "script: cannot be together with entrypoint"),
    # versions
    ({"version": 2, "zzz": 1}, "version: the document is of version 2, this Dayfly knows 1; update Dayfly here"),
    ({"version": 0}, "version: must be 1, got 0"),
    ({"version": True}, "version: must be 1, got true"),
    ({"version": "1"}, "version: must be 1, got '1'"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "message"), _REFUSED, ids=[message[:50] for _, message in _REFUSED])
def test_a_wrong_document_is_refused_with_path_and_reason(document, message):
    """One message that names the field and what is wrong with it; nothing is coerced or dropped."""
    refusal = _refusal(document)
    assert message in refusal
    assert "\n" not in refusal
    assert refusal.isprintable()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"inputs": []}, "inputs: is not built yet"),
        ({"resources": {"gpu": 1}}, "resources: is not built yet"),
        ({"cache": []}, "cache: is not built yet"),
        ({"concurrency": {}}, "concurrency: is not built yet"),
        ({"tty": True}, "tty: is not built yet"),
        ({"setup": {}}, "setup: is not built yet"),
        ({"memoize": True}, "memoize: is not built yet"),
        ({"artifacts": {"paths": ["x"], "reports": {"junit": "x"}}}, "artifacts.reports: is not built yet"),
        ({"after": {"ids": ["a"], "when": "each"}}, "after.when: each is not built yet"),
        ({"pipeline": {"stages": []}}, "pipeline: is not built yet"),
        ({"batch": {"matrix": {}}, "command": ["{x}"]}, "batch: is not built yet"),
    ],
)
def test_what_is_not_built_is_refused_by_name(document, message):
    """Not ignored, and not called unknown."""
    with pytest.raises(NotBuilt) as caught:
        read_job(document)
    assert str(caught.value) == message


def test_all_that_is_wrong_is_said_at_once():
    """Nobody mends a document one message at a time."""
    with pytest.raises(SpecError) as caught:
        read_job({"tty": True, "limits": {"pids": 0, "cpu": 1}, "script": "a", "command": ["b"], "name": "\0"})
    assert not isinstance(caught.value, NotBuilt)
    assert [error.path for error in caught.value.errors] == ["script", "name", "limits.pids", "limits.cpu", "tty"]
    assert str(caught.value).count("\n") == 4


@pytest.mark.parametrize("value", [None, [], "text", 3, [{"image": "x"}]])
def test_a_document_is_a_map(value):
    """Anything else has no fields to complain of."""
    assert _refusal(value).startswith("document: must be a map of fields")


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), Path("/x"), 1j])
def test_only_json_values_come_in(value):
    """What JSON cannot carry would not reach the worker."""
    assert _refusal({"name": value}).startswith("name: must be text, a number, true, false, a list or a map")


def test_names_of_fields_are_text():
    """A number as a name would turn into text on its way through Redis."""
    assert "env: must have names of text only, got 1" in _refusal({"env": {1: "x"}})

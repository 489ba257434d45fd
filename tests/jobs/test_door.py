"""The door: what it lets in, and what becomes of it."""

import signal

import pytest

from dayfly.jobs.door import read_job
from dayfly.jobs.model import JobModel
from dayfly.jobs.network import Network, NetworkUse
from dayfly.jobs.privileges import Device, Seccomp
from dayfly.jobs.secret_use import SecretUse
from dayfly.jobs.services import Ready, Service, ServiceLimits
from dayfly.jobs.spec import (
    After,
    AfterWhen,
    Artifacts,
    ArtifactsWhen,
    Directory,
    IoLimit,
    JobSpec,
    Keep,
    Limits,
    Mount,
    PullPolicy,
    Retry,
)
from dayfly.jobs.state import Outcome

_DIGEST = "sha256:" + "0123456789abcdef" * 4


def test_every_field_is_read():
    """The long form of every field that is built, and the frozen value it becomes."""
    document = {
        "version": 1,
        "name": "unit tests",
        "image": "registry.example:5000/team/python:3.12",
        "entrypoint": ["/usr/bin/env"],
        "command": ["pytest", "-q", ""],
        "env": {"A": "1", "EMPTY": "", "dotted.name": "x"},
        "workdir": "/workspace//sub/./dir/",
        "user": "1000:1000",
        "stdin": {"base64": "AAEC"},
        "merge_streams": True,
        "dir": {"path": "/srv/me/src", "host": "node-7", "device": 2049, "inode": 12},
        "mounts": [{"source": "/data", "target": "/data"}, {"source": "/s", "target": "/t", "writable": True}],
        "secrets": {"token": {"env": "TOKEN"}, "key": {"file": "/opt/key", "mode": "0440"}},
        "devices": [{"source": "/dev/kvm", "target": "/dev/own/kvm", "permissions": "r"}],
        "cap_add": ["SYS_PTRACE"],
        "cap_drop": ["CHOWN"],
        "seccomp": "unconfined",
        "privileged": True,
        "limits": {
            "cpus": 1.5,
            "cpu_burst": "20ms",
            "cpu_weight": 100,
            "memory": "2G",
            "swap": 0,
            "disk": "5G",
            "pids": 512,
            "shm": "64M",
            "io": [{"device": "8:0", "write_bps": "10M", "read_iops": 100}],
        },
        "timeout": "20m",
        "queue_timeout": "01:00:00",
        "stop_grace": 0,
        "stop_signal": "SIGINT",
        "network": "host",
        "services": [
            {
                "image": "example.org/db/postgres:16",
                "name": "db",
                "entrypoint": ["docker-entrypoint.sh"],
                "command": ["postgres", "-c", "fsync=off"],
                "env": {"POSTGRES_PASSWORD": "x"},
                "workdir": "/srv",
                "user": "postgres",
                "ready": {"cmd": ["pg_isready", "-q"]},
                "ready_timeout": "2m",
                "limits": {"cpus": 0.5, "memory": "256M", "pids": 64, "shm": "128M"},
                "stop_signal": "SIGINT",
                "stop_grace": "5s",
            }
        ],
        "artifacts": {
            "paths": ["report.xml", "dist/**", "/var/log/*.log"],
            "exclude": ["dist/tmp/**"],
            "changed": True,
            "when": "on_failure",
            "expire_in": "7d",
        },
        "keep": "failed",
        "pull": "always",
        "debug": True,
        "queue": "ci",
        "priority": -10,
        "labels": {"disk": "nvme", "gpu": ""},
        "after": {"ids": ["01JXABC", "01JXDEF"], "when": "any"},
        "delay": "5m",
        "unique": "deploy main",
        "retry": {"max": 2, "when": ["lost", "out_of_memory"], "exit_codes": [75]},
        "annotations": {"build url": "https://ci.example/1?a=b"},
    }
    assert set(document) == set(JobModel.model_fields) - {"script", "build"}
    assert read_job(document) == JobSpec(
        name="unit tests",
        image="registry.example:5000/team/python:3.12",
        entrypoint=("/usr/bin/env",),
        command=("pytest", "-q", ""),
        env={"A": "1", "EMPTY": "", "dotted.name": "x"},
        workdir="/workspace/sub/dir",
        user="1000:1000",
        stdin=b"\0\1\2",
        merge_streams=True,
        dir=Directory("/srv/me/src", "node-7", 2049, 12),
        mounts=(Mount("/data", "/data"), Mount("/s", "/t", writable=True)),
        secrets=(SecretUse("token", env="TOKEN"), SecretUse("key", file="/opt/key", mode=0o440)),
        devices=(Device("/dev/kvm", "/dev/own/kvm", "r"),),
        cap_add=("SYS_PTRACE",),
        cap_drop=("CHOWN",),
        seccomp=Seccomp.UNCONFINED,
        privileged=True,
        limits=Limits(
            cpus=1.5,
            cpu_burst_seconds=0.02,
            cpu_weight=100,
            memory_bytes=2 << 30,
            swap_bytes=0,
            disk_bytes=5 << 30,
            pids=512,
            shm_bytes=64 << 20,
            io=(IoLimit("8:0", write_bps=10 << 20, read_iops=100),),
        ),
        timeout_seconds=1200,
        queue_timeout_seconds=3600,
        stop_grace_seconds=0,
        stop_signal=signal.SIGINT,
        network=NetworkUse(Network.HOST),
        services=(
            Service(
                name="db",
                image="example.org/db/postgres:16",
                entrypoint=("docker-entrypoint.sh",),
                command=("postgres", "-c", "fsync=off"),
                env={"POSTGRES_PASSWORD": "x"},
                workdir="/srv",
                user="postgres",
                ready=Ready(command=("pg_isready", "-q")),
                ready_timeout_seconds=120,
                limits=ServiceLimits(0.5, 256 << 20, 64, 128 << 20),
                stop_signal=signal.SIGINT,
                stop_grace_seconds=5,
            ),
        ),
        artifacts=Artifacts(
            paths=("report.xml", "dist/**", "/var/log/*.log"),
            exclude=("dist/tmp/**",),
            changed=True,
            when=ArtifactsWhen.ON_FAILURE,
            expire_in_seconds=7 * 86400,
        ),
        pull=PullPolicy.ALWAYS,
        keep=Keep.FAILED,
        debug=True,
        queue="ci",
        priority=-10,
        labels={"disk": "nvme", "gpu": ""},
        after=After(("01JXABC", "01JXDEF"), AfterWhen.ANY),
        delay_seconds=300,
        unique="deploy main",
        retry=Retry(2, (Outcome.LOST, Outcome.OUT_OF_MEMORY), (75,)),
        annotations={"build url": "https://ci.example/1?a=b"},
    )


def test_an_empty_document_is_a_job_of_defaults():
    """The default image's own command runs; everything else is the worker's to fill in."""
    assert read_job({}) == JobSpec()


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"command": "make -j2 'a b'"}, {"command": ["make", "-j2", "a b"]}),
        ({"command": "echo $HOME # x"}, {"command": ["echo", "$HOME", "#", "x"]}),
        ({"entrypoint": ""}, {"entrypoint": []}),
        ({"env": "A=1=2"}, {"env": {"A": "1=2"}}),
        ({"env": ["A=1", "B="]}, {"env": {"A": "1", "B": ""}}),
        ({"labels": ["gpu", "disk=nvme"]}, {"labels": {"gpu": "", "disk": "nvme"}}),
        ({"labels": "gpu"}, {"labels": {"gpu": ""}}),
        ({"annotations": ["a=b=c"]}, {"annotations": {"a": "b=c"}}),
        ({"mounts": "/data"}, {"mounts": [{"source": "/data", "target": "/data"}]}),
        ({"mounts": ["/a:/b"]}, {"mounts": [{"source": "/a", "target": "/b"}]}),
        ({"mounts": ["/a:/b:rw", "/c:rw"]}, {"mounts": [{"source": "/a", "target": "/b", "writable": True},
                                                        {"source": "/c", "target": "/c", "writable": True}]}),
        ({"mounts": ["/a:/b:ro"]}, {"mounts": {"source": "/a", "target": "/b", "writable": False}}),
        ({"limits": "cpus=1.5 memory=2G pids=64"}, {"limits": {"cpus": 1.5, "memory": "2G", "pids": 64}}),
        ({"limits": {"io": "write_bps=10M"}}, {"limits": {"io": [{"device": "disk", "write_bps": "10M"}]}}),
        ({"limits": {"io": {"read_iops": 5}}}, {"limits": {"io": [{"device": "disk", "read_iops": 5}]}}),
        ({"limits": {"io": "8:0 write_bps=10M"}}, {"limits": {"io": [{"device": "8:0", "write_bps": "10M"}]}}),
        ({"artifacts": "dist/**"}, {"artifacts": {"paths": ["dist/**"]}}),
        ({"artifacts": ["a", "b"]}, {"artifacts": {"paths": ["a", "b"]}}),
        ({"artifacts": []}, {}),
        ({"artifacts": {"paths": "a", "exclude": "b"}}, {"artifacts": {"paths": ["a"], "exclude": ["b"]}}),
        ({"retry": 3}, {"retry": {"max": 3, "when": ["lost"]}}),
        ({"retry": {"max": 1, "when": "failed", "exit_codes": 75}},
         {"retry": {"max": 1, "when": ["failed"], "exit_codes": [75]}}),
        ({"after": "01JX"}, {"after": {"ids": ["01JX"], "when": "ok"}}),
        ({"after": ["01JX", "01JY"]}, {"after": {"ids": ["01JX", "01JY"]}}),
        ({"services": "example.org/a/My_db:16"}, {"services": [{"image": "example.org/a/My_db:16", "name": "my-db"}]}),
        ({"services": [{"image": "a", "ready": "tcp:5432"}]}, {"services": [{"image": "a", "ready": {"tcp": 5432}}]}),
        ({"services": {"image": "a", "ready": "cmd:x -y 'b c'"}},
         {"services": [{"image": "a", "ready": {"cmd": ["x", "-y", "b c"]}}]}),
        ({"services": {"image": "a", "limits": "pids=9"}}, {"services": [{"image": "a", "limits": {"pids": 9}}]}),
        ({"dir": "."}, {"dir": {"path": "."}}),
        ({"stdin": "héllo\n"}, {"stdin": {"text": "héllo\n"}}),
        ({"stop_signal": "INT"}, {"stop_signal": 2}),
        ({"user": 1000}, {"user": "1000"}),
        ({"timeout": "1h30m"}, {"timeout": 5400}),
        ({"limits": {"memory": "2G"}}, {"limits": {"memory": 2147483648}}),
    ],
)  # fmt: skip
def test_a_short_form_means_its_long_form(short, long):
    """One line for what is mostly one thing."""
    assert read_job(short) == read_job(long)


@pytest.mark.parametrize(
    "directory", [{"bundle": _DIGEST}, {"path": "/w", "host": "h", "device": 0, "inode": 1}, "src"]
)
def test_a_directory_has_one_of_three_forms(directory):
    """Stated, live, or frozen."""
    spec = read_job({"dir": directory})
    assert spec.dir is not None
    assert (spec.dir.is_live, spec.dir.is_frozen) == ("host" in directory, "bundle" in directory)


@pytest.mark.parametrize(
    "image",
    [
        "host",
        "debian",
        "debian:12",
        "debian:12@" + _DIGEST,
        _DIGEST,
        "ghcr.io/a/b_c/d-e:v1.0",
        "localhost:5000/x",
        "/srv/root",
    ],
)
def test_an_image_is_a_name_a_digest_or_a_directory(image):
    """What the image store can resolve."""
    assert read_job({"image": image, "command": ["true"]}).image == image


@pytest.mark.parametrize(
    "user", ["root", "0", "1000", "1000:1000", "www-data:adm", "_apt", "a.b", "machine$", "2147483647"]
)
def test_a_user_is_a_name_or_a_number(user):
    """With or without a group."""
    assert read_job({"user": user}).user == user

"""Flags of `run` and `submit` become the document that they mean."""

from pathlib import Path
from typing import Any

import click
import pytest

from dayfly.cli.job_flags import documents, job_flags
from dayfly.home import remember_last
from dayfly.jobs.errors import JobNotFound, SpecError


def parse(*arguments: str) -> list[dict[str, Any]]:
    """What `documents` makes of a command line."""
    taken: list[dict[str, Any]] = []

    @click.command(context_settings={"allow_interspersed_args": False})
    @job_flags
    def command(**flags: Any) -> None:
        taken.extend(documents(flags))

    command.main(list(arguments), standalone_mode=False)
    return taken


def test_ranges_that_a_job_reaches_make_its_network_a_bridge() -> None:
    """--network-allow alone asks for a bridge; with --network it says of which kind."""
    assert parse("--network-allow", "internet", "--network-allow", "10.1.0.0/16", "--", "true") == [
        {"network": {"mode": "bridge", "allow": ["internet", "10.1.0.0/16"]}, "command": ["true"]}
    ]
    assert parse("--network", "auto", "--network-allow", "10.1.0.0/16", "true")[0]["network"]["mode"] == "auto"


def test_every_flag_reaches_its_field() -> None:
    """Each flag sets the field of its name, in the form in which the document has it."""
    line = (
        "--image debian:12 -e A=1=2 -w /w -u 7:8 -m 2G --cpus 1.5 --pids 9 --disk 5G --mount /a:/b:rw --network host "
        "--entrypoint /e --dir /d --artifact x/** --artifact y --changed --timeout 20m --queue q --queue-timeout 1h "
        "--priority -3 --label disk=nvme --label gpu --name n --retry 2 --after 01A --after 01B --delay 5s --unique u "
        "--keep failed --debug --device /dev/kvm:r --cap-add NET_ADMIN --cap-drop ALL --privileged "
        "--security-opt seccomp=unconfined -- make -j2 --image=no"
    )
    assert parse(*line.split()) == [
        {
            "image": "debian:12",
            "env": {"A": "1=2"},
            "workdir": "/w",
            "user": "7:8",
            "limits": {"memory": "2G", "cpus": 1.5, "pids": 9, "disk": "5G"},
            "mounts": ["/a:/b:rw"],
            "network": "host",
            "entrypoint": ["/e"],
            "dir": "/d",
            "artifacts": {"paths": ["x/**", "y"], "changed": True},
            "timeout": "20m",
            "queue": "q",
            "queue_timeout": "1h",
            "priority": -3,
            "labels": {"disk": "nvme", "gpu": ""},
            "name": "n",
            "retry": {"max": 2},
            "after": {"ids": ["01A", "01B"], "when": "ok"},
            "delay": "5s",
            "unique": "u",
            "keep": "failed",
            "debug": True,
            "devices": ["/dev/kvm:r"],
            "cap_add": ["NET_ADMIN"],
            "cap_drop": ["ALL"],
            "seccomp": "unconfined",
            "privileged": True,
            "command": ["make", "-j2", "--image=no"],
        }
    ]


def test_what_no_flag_says_is_left_to_the_worker() -> None:
    """The document holds nothing that was not said."""
    assert parse("true") == [{"command": ["true"]}]


def test_command_begins_with_the_first_word_that_is_no_flag() -> None:
    """Flags behind the command are the command's own, as with `docker run`."""
    assert parse("-m", "1G", "ls", "-m") == [{"limits": {"memory": "1G"}, "command": ["ls", "-m"]}]


def test_environment_is_copied_by_name_and_by_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-e NAME` and `-e 'CI_*'` copy what the caller has; `--env-file` follows Docker's format; the flag wins."""
    monkeypatch.setenv("CI_A", "a")
    monkeypatch.setenv("CI_B", "b")
    monkeypatch.setenv("TOKEN", "t")
    monkeypatch.delenv("ABSENT", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\nX=1\nY='quoted' # kept\nTOKEN\n")
    assert parse("--env-file", str(file), "-e", "CI_*", "-e", "ABSENT", "-e", "X=2", "env") == [
        {"command": ["env"], "env": {"X": "2", "Y": "'quoted' # kept", "TOKEN": "t", "CI_A": "a", "CI_B": "b"}}
    ]


def test_script_and_stdin_come_from_files(tmp_path: Path) -> None:
    """--script is text and --stdin is bytes, whatever they hold."""
    (tmp_path / "script").write_text("make\n")
    (tmp_path / "stdin").write_bytes(b"\0\xff")
    found = parse("--script", str(tmp_path / "script"), "--stdin", str(tmp_path / "stdin"))
    assert found == [{"script": "make\n", "stdin": {"base64": "AP8="}}]


def test_flags_override_the_file(tmp_path: Path) -> None:
    """Maps are merged, lists replaced, and a command takes the place of the file's script."""
    file = tmp_path / "job.yaml"
    file.write_text(
        "image: a\nscript: make\nenv: {A: x, B: y}\nlimits: {memory: 1G, pids: 5}\n"
        "artifacts: {paths: [x], when: on_failure}\n"
    )
    [found] = parse("-f", str(file), "--image", "b", "-e", "B=3", "-m", "2G", "--artifact", "y", "--", "true")
    assert found["image"] == "b"
    assert found["command"] == ["true"]
    assert "script" not in found
    assert found["env"] == {"A": "x", "B": "3"}
    assert found["limits"] == {"memory": 2 << 30, "pids": 5}
    assert found["artifacts"] == {"paths": ["y"], "when": "on_failure"}


def test_flags_complete_what_the_file_lacks(tmp_path: Path) -> None:
    """What of the file is no job alone may be one with the flags: both are read as one document."""
    file = tmp_path / "job.yaml"
    file.write_text("image: host\nenv: [A=x]\nartifacts: {when: on_failure}\nretry: {exit_codes: [3]}\n")
    [found] = parse("-f", str(file), "--artifact", "a", "--retry", "1", "-e", "B=y", "--", "true")
    assert found["artifacts"] == {"paths": ["a"], "when": "on_failure"}
    assert found["retry"] == {"max": 1, "when": ["lost"], "exit_codes": [3]}
    assert found["env"] == {"A": "x", "B": "y"}


def test_a_fault_is_told_with_its_place_when_flags_lie_over_the_file(tmp_path: Path) -> None:
    """What the file says wrong has its file and line, what a flag says wrong has neither."""
    file = tmp_path / "job.yaml"
    file.write_text("command: [x]\nlimits:\n  pids: 0\nenv: 5\n")
    with pytest.raises(SpecError) as caught:
        parse("-f", str(file), "--cpus", "0", "-e", "A=1")
    told = {error.path: (error.source, error.line) for error in caught.value.errors}
    assert told == {"limits.pids": (str(file), 3), "env": (str(file), 4), "limits.cpus": (None, None)}


def test_json_lines_are_one_job_a_line(tmp_path: Path) -> None:
    """A file of JSON Lines makes as many documents, each with the flags over it."""
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"command": ["a"]}\n{"command": ["b"]}\n')
    assert [each["command"] for each in parse("-f", str(file))] == [["a"], ["b"]]
    assert {each["image"] for each in parse("-f", str(file), "--image", "i")} == {"i"}


def test_wrong_field_in_a_file_is_named_with_its_place(tmp_path: Path) -> None:
    """A mistake in the file is reported with the field's path, the file and the line."""
    file = tmp_path / "job.yaml"
    file.write_text("image: host\nlimits:\n  pids: 0\n")
    with pytest.raises(SpecError, match=r"limits\.pids") as caught:
        parse("-f", str(file))
    assert "job.yaml" in str(caught.value)


def test_after_takes_the_last_job() -> None:
    """`--after @last` is the job that was submitted from here before."""
    with pytest.raises(JobNotFound, match="no job was submitted from here yet"):
        parse("--after", "@last", "true")
    remember_last("01K")
    assert parse("--after", "@last:any", "true")[0]["after"] == {"ids": ["01K"], "when": "any"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--script", "x", "--", "true"], "a command or --script"),
        ([], "nothing to run"),
        (["--dir", ".", "--no-dir"], "--dir or --no-dir"),
        (["--script", "-", "--stdin", "-"], "only one"),
        (["--script", "/nowhere"], "cannot read /nowhere"),
        (["--env-file", "/nowhere", "true"], "cannot read /nowhere"),
        (["-f", "/nowhere"], "cannot read /nowhere"),
        (["--after", "A:ok", "--after", "B:any", "true"], "one condition"),
    ],
)
def test_contradiction_is_a_usage_error(arguments: list[str], message: str) -> None:
    """Flags that cannot be meant together are refused with the reason."""
    with pytest.raises(click.UsageError, match=message):
        parse(*arguments)


@pytest.mark.parametrize("option", ["no-new-privileges", "seccomp=profile.json", "apparmor=unconfined", "seccomp"])
def test_a_security_opt_that_there_is_not_is_refused(option: str) -> None:
    """Docker has more of them; one that would be ignored is an error."""
    with pytest.raises(click.UsageError, match="seccomp=unconfined"):
        parse("--security-opt", option, "--", "true")

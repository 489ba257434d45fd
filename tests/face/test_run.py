"""`dayfly run` and what follows it, from end to end: real Valkey, real worker, real containers."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.conftest import Command

pytestmark = pytest.mark.kernel


def shell(script: str) -> list[str]:
    return ["--", "sh", "-c", script]


def test_streams_are_apart_and_the_exit_code_is_the_jobs(dayfly: Command) -> None:
    """The job's stdout is our stdout, its stderr our stderr, its exit code ours."""
    done = dayfly("run", "-q", *shell("printf 'out\\0\\377'; echo err >&2; exit 3"))
    assert (done.stdout, done.returncode) == (b"out\0\xff", 3)
    assert done.stderr == b"err\n"


def test_a_job_larger_than_the_host_is_not_waited_for_in_silence(dayfly: Command) -> None:
    """What it asks for and what the worker has are named before the wait, also for the embedded worker."""
    assert dayfly("run", "-q", "--", "true").returncode == 0  # the worker is known by now
    done = dayfly("run", "--cpus", "4096", "--queue-timeout", "1s", "--", "true")
    assert done.returncode == 124
    assert any("it asks for 4096 cpus, more than any worker has" in line for line in dayfly.own_lines(done.stderr))


def test_says_in_one_line_which_redis(dayfly: Command) -> None:
    """One line names the job and the Redis; `-q` silences it."""
    loud = dayfly("run", "--network", "none", "--", "true")
    assert len(dayfly.own_lines(loud.stderr)) == 1
    assert f"the embedded Redis ({dayfly.home})" in dayfly.own_lines(loud.stderr)[0]
    assert dayfly("run", "-q", "--", "true").stderr == b""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (shell("exit 0"), 0),
        (shell("exit 124"), 124),
        (shell("exit 137"), 137),
        (shell("kill -9 $$"), 137),
        (shell("kill -USR1 $$"), 128 + signal.SIGUSR1),
        (["--", "/etc/passwd"], 126),
        (["--", "no-such-command"], 127),
        (["--timeout", "1s", "--", "sleep", "60"], 124),
        (["--image", "no-such-image", "--", "true"], 125),
        (["--cpus", "4096", "--queue-timeout", "1s", "--", "true"], 124),
    ],
)
def test_exit_code_is_the_documented_one(dayfly: Command, arguments: list[str], code: int) -> None:
    """Each way to end has the exit code of the table."""
    assert dayfly("run", *arguments).returncode == code


def test_out_of_memory_is_137_and_explained(dayfly: Command) -> None:
    """A job that outgrows its memory ends with 137 and says in at most six lines what happened."""
    done = dayfly("run", "-m", "32M", *shell("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo $x | wc -c"))
    assert done.returncode == 137
    said = dayfly.own_lines(done.stderr)[1:]
    assert 1 <= len(said) <= 6
    assert any("memory" in line for line in said)


def test_json_prints_one_result_and_moves_the_streams(dayfly: Command) -> None:
    """--json leaves stdout to the Result; both streams of the job are on stderr."""
    done = dayfly("run", "--json", *shell("echo out; echo err >&2; exit 4"))
    result = json.loads(done.stdout)
    assert (result["outcome"], result["exit_code"], done.returncode) == ("failed", 4, 4)
    assert b"out\n" in done.stderr
    assert b"err\n" in done.stderr


def test_result_file_tells_a_timeout_from_exit_124(dayfly: Command, tmp_path: Path) -> None:
    """--result writes the Result and leaves the streams alone."""
    file = tmp_path / "result.json"
    done = dayfly("run", "--result", str(file), *shell("echo out; exit 124"))
    assert (done.stdout, done.returncode) == (b"out\n", 124)
    assert json.loads(file.read_text())["outcome"] == "failed"


def test_finished_job_is_found_by_last_and_prefix(dayfly: Command) -> None:
    """status, logs, explain and artifacts find a job by `@last` and by a prefix, and agree with one another."""
    dayfly("run", "--name", "hello", *shell("echo out; echo err >&2; exit 5"))
    status = json.loads(dayfly("status", "--json", "@last").stdout)
    assert (status["name"], status["state"], status["exit_code"]) == ("hello", "finished", 5)
    assert json.loads(dayfly("status", "--json", status["id"][:-3].lower()).stdout)["id"] == status["id"]
    logs = dayfly("logs", "@last")
    assert (logs.stdout, logs.stderr, logs.returncode) == (b"out\n", b"err\n", 0)
    assert dayfly("logs", "--stderr", "@last").stdout == b""
    assert dayfly("logs", "-t", "@last").stdout.endswith(b"Z out\n")
    assert b"exit code 5" in dayfly("explain", "@last").stdout
    assert json.loads(dayfly("explain", "@last", "--json").stdout)["result"]["exit_code"] == 5
    assert json.loads(dayfly("attach", "@last", "--json").stdout)["exit_code"] == 5
    assert dayfly("wait", "@last").returncode == 5
    assert dayfly("attach", "@last").stdout == b"out\n"
    row = dayfly("ls", "--name", "hello").stdout.decode().splitlines()[1].split("\t")
    assert row[:3] == [status["id"], "hello", "failed"]
    assert json.loads(dayfly("ls", "--json", "--limit", "1").stdout)["id"] == status["id"]


def test_unknown_and_ambiguous_ids_end_with_125(dayfly: Command) -> None:
    """An id that means no job, or several, is refused with the reason."""
    dayfly("run", "--", "true")
    dayfly("run", "--", "true")
    assert dayfly("status", "ZZZZ").returncode == 125
    ambiguous = dayfly("status", "0")
    assert ambiguous.returncode == 125
    assert b"give more of it" in ambiguous.stderr


def test_job_sees_the_directory_and_cannot_change_it(dayfly: Command, tmp_path: Path) -> None:
    """The current directory is the job's own copy: what it writes stays out, what it was asked to bring comes back."""
    (tmp_path / "kept").write_text("before")
    script = "cat kept; echo after > kept; mkdir -p sub; printf 'a\\0b' > sub/made; echo x > other"
    done = dayfly("run", "--artifact", "sub/**", *shell(script), cwd=tmp_path)
    assert done.stdout == b"before"
    assert (tmp_path / "kept").read_text() == "before"
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "home") == ["kept", "sub"]
    assert (tmp_path / "sub/made").read_bytes() == b"a\0b"
    assert (tmp_path / "sub/made").stat().st_uid == os.geteuid()
    assert dayfly("artifacts", "@last").stdout.decode().split("\t")[1:] == ["3", "sub/made\n"]
    dayfly("artifacts", "--out", str(tmp_path / "again"), "@last")
    assert (tmp_path / "again/sub/made").read_bytes() == b"a\0b"


def test_changed_brings_back_what_the_job_wrote(dayfly: Command, tmp_path: Path) -> None:
    """--changed needs no globs."""
    (tmp_path / "kept").write_text("before")
    dayfly("run", "--changed", "--out", str(tmp_path / "out"), *shell("echo new > made"), cwd=tmp_path)
    assert (tmp_path / "out/made").read_text() == "new\n"
    assert not (tmp_path / "out/kept").exists()


def test_pattern_that_matches_nothing_is_a_warning(dayfly: Command, tmp_path: Path) -> None:
    """A job that succeeds without its artifact says so and still succeeds."""
    done = dayfly("run", "--artifact", "nothing/**", "--", "true", cwd=tmp_path)
    assert done.returncode == 0
    assert any("warning" in line and "nothing/**" in line for line in dayfly.own_lines(done.stderr))


def test_unwritable_out_is_refused_before_the_job_runs(dayfly: Command, tmp_path: Path) -> None:
    """Artifacts that cannot be delivered are noticed first, not after the work."""
    (tmp_path / "file").touch()
    done = dayfly("run", "--artifact", "*", "--out", str(tmp_path / "file"), "--", "touch", "x", cwd=tmp_path)
    assert done.returncode == 125
    assert b"--out" in done.stderr


def test_root_and_home_are_not_given_by_default(dayfly: Command, tmp_path: Path) -> None:
    """In / and in $HOME the job gets no directory, and one line says so; --no-dir says nothing."""
    assert any("gets none" in line for line in dayfly.own_lines(dayfly("run", "--", "true", cwd=Path("/")).stderr))
    there = dayfly("run", "--", "ls", "/workspace", cwd=tmp_path, HOME=str(tmp_path))
    assert any("your home" in line for line in dayfly.own_lines(there.stderr))
    assert not any(
        "gets none" in line for line in dayfly.own_lines(dayfly("run", "--no-dir", "--", "true", cwd=Path("/")).stderr)
    )


def test_environment_stdin_and_script_reach_the_job(dayfly: Command, tmp_path: Path) -> None:
    """Named variables, and those only; standard input; a script with each line echoed."""
    done = dayfly("run", "-q", "-e", "A=1", "-e", "CI_*", *shell('echo "$A $CI_X $OTHER"'), CI_X="x", OTHER="o")
    assert done.stdout == b"1 x \n"
    assert dayfly("run", "-q", "--stdin", "-", "--", "cat", stdin=b"in\0\xff").stdout == b"in\0\xff"
    assert dayfly("run", "-q", "--", "cat", stdin=b"not asked for").stdout == b""
    script = dayfly("run", "-q", "--script", "-", stdin=b"echo one\nfalse\necho two\n")
    assert (script.returncode, b"one" in script.stdout, b"two" in script.stdout) == (1, True, False)


def test_detached_job_is_attached_to(dayfly: Command) -> None:
    """--detach prints the id alone; attach follows from the first line to the job's exit code."""
    detached = dayfly("run", "--detach", *shell("echo first; sleep 1; echo last; exit 6"))
    job_id = detached.stdout.decode().strip()
    assert len(job_id) == 26
    attached = dayfly("attach", job_id)
    assert (attached.stdout, attached.returncode) == (b"first\nlast\n", 6)


def test_ctrl_c_detaches_from_an_attached_job(dayfly: Command) -> None:
    """Ctrl-C of attach leaves the job running."""
    job_id = dayfly("submit", *shell("echo first; sleep 60")).stdout.decode().strip()
    attached = dayfly.start("attach", job_id)
    assert attached.stdout is not None
    assert attached.stdout.readline() == b"first\n"
    attached.send_signal(signal.SIGINT)
    _, stderr = attached.communicate(timeout=20)
    assert (attached.returncode, b"goes on" in stderr) == (0, True)
    assert json.loads(dayfly("status", "--json", job_id).stdout)["state"] == "running"
    dayfly("cancel", "--now", job_id)
    assert dayfly("wait", job_id).returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_cancels_with_grace(dayfly: Command, number: signal.Signals) -> None:
    """One signal lets the job say goodbye; we wait for its end and end with 130."""
    running = dayfly.start("run", *shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"))
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(number)
    stdout, _ = running.communicate(timeout=30)
    assert (stdout, running.returncode) == (b"bye\n", 130)


def test_second_signal_kills_at_once(dayfly: Command) -> None:
    """A job that ignores its stop signal is dead after the second one, long before its grace period is over."""
    running = dayfly.start("run", *shell("trap 'echo no' TERM; echo ready; while :; do sleep 0.1; done"))
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGINT)
    assert running.stdout.readline() == b"no\n"
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=8)
    assert running.returncode == 130


def test_reader_that_goes_away_ends_job_and_us(dayfly: Command) -> None:
    """`dayfly run -- yes | head -1` ends, by the signal's exit code, and its job is cancelled."""
    program = f"{' '.join(dayfly.argv)} run -q --name yes -- yes | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, check=False, timeout=60, env=dayfly.environment, cwd=dayfly.here
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"y\n", b"", 141)
    assert dayfly("wait", "@last").returncode == 130


def test_stack_does_not_hold_our_pipe(dayfly: Command) -> None:
    """A pipeline ends when its job does: the stack that we started keeps nothing of ours open."""
    dayfly("down", "--now")
    program = f"timeout 20 sh -c '{' '.join(dayfly.argv)} run -- true | cat'"
    done = subprocess.run(["bash", "-c", program], check=False, timeout=60, env=dayfly.environment, cwd=dayfly.here)
    assert done.returncode == 0


def test_several_jobs_of_a_file_end_with_the_worst_code(dayfly: Command) -> None:
    """`run -f` with JSON Lines runs all; one Result a line; the largest exit code."""
    lines = "".join(json.dumps({"command": ["sh", "-c", f"exit {code}"]}) + "\n" for code in (0, 3, 2))
    done = dayfly("run", "--json", "-f", "-", stdin=lines.encode())
    assert done.returncode == 3
    assert sorted(json.loads(line)["exit_code"] for line in done.stdout.splitlines()) == [0, 2, 3]


def test_retry_and_submit_print_the_id_alone(dayfly: Command) -> None:
    """Scripts get the id and nothing else."""
    first = dayfly("submit", *shell("exit 7"))
    assert first.stderr == b""
    assert dayfly("wait", first.stdout.decode().strip()).returncode == 7
    second = dayfly("retry", first.stdout.decode().strip())
    assert second.stdout != first.stdout
    assert dayfly("wait", second.stdout.decode().strip()).returncode == 7


def test_submitted_directory_is_frozen(dayfly: Command, tmp_path: Path) -> None:
    """What is edited after `submit --dir` does not reach the job."""
    (tmp_path / "file").write_text("then")
    job_id = dayfly("submit", "--dir", str(tmp_path), "--delay", "1s", "--", "cat", "file").stdout.decode().strip()
    (tmp_path / "file").write_text("now")
    assert dayfly("attach", job_id).stdout == b"then"


@pytest.mark.parametrize("victim", ["valkey", "worker"])
def test_log_is_whole_and_once_over_a_death_in_the_stack(dayfly: Command, victim: str) -> None:
    """Server or worker are killed under a running job: it goes on, and its log comes out whole, each line once."""
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo $i; sleep 0.2; done"
    running = dayfly.start("run", *shell(script))
    assert running.stdout is not None
    assert running.stdout.readline() == b"1\n"
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((dayfly.home / f"run/{victim}.lock").read_text()), signal.SIGKILL)
    stdout, stderr = running.communicate(timeout=60)
    assert (stdout.split(), running.returncode) == ([b"%d" % i for i in range(2, 16)], 0), stderr


def test_ten_at_once_in_an_empty_home(dayfly_in: Callable[[Path], Command], tmp_path: Path) -> None:
    """Ten first runs of a machine share one stack, and all succeed."""
    command = dayfly_in(tmp_path / "empty")
    try:
        running = [command.start("run", "-q", "--", "echo", str(i)) for i in range(10)]
        ended = [(each.communicate(timeout=90), each.returncode) for each in running]
        assert [(out, err, code) for (out, err), code in ended] == [(b"%d\n" % i, b"", 0) for i in range(10)]
    finally:
        command("down", "--now")


@pytest.mark.slow
def test_job_whose_client_was_killed_is_cancelled(dayfly: Command) -> None:
    """When `dayfly run` is gone without a word its job is cancelled, and its record says why."""
    running = dayfly.start("run", *shell("echo ready; sleep 300"))
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.kill()
    running.communicate()
    assert dayfly("wait", "@last", timeout=90).returncode == 130
    assert json.loads(dayfly("status", "--json", "@last").stdout)["reason"] == "client_lost"


def test_idle_stack_ends_and_takes_its_server_along(dayfly_in: Callable[[Path], Command], tmp_path: Path) -> None:
    """After DAYFLY_IDLE without work worker and server are gone; the next run starts anew and knows the old job."""
    command = dayfly_in(tmp_path / "idle")
    command.environment["DAYFLY_IDLE"] = "1s"
    try:
        assert command("run", "-q", "--", "true").returncode == 0
        pidfd = os.pidfd_open(int((command.home / "run/worker.lock").read_text()))
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)
        assert not (command.home / "run/valkey.sock").exists()
        assert command("status", "@last").returncode == 0
    finally:
        command("down", "--now")


def test_worker_that_cannot_start_is_not_waited_for(dayfly_in: Callable[[Path], Command], tmp_path: Path) -> None:
    """When the embedded worker ends again and again, `run` ends with 125 and the worker's own last words."""
    command = dayfly_in(tmp_path / "broken")
    (command.home / "run").mkdir(parents=True)
    with open(command.home / "run/agent.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = command("run", "--", "true")
    command("down", "--now")
    assert done.returncode == 125
    assert b"another worker does already" in done.stderr

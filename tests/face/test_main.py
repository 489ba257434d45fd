"""The command line's outside: help, what is not built, exit codes of our own faults, and what gets imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DAYFLY = [sys.executable, "-m", "dayfly"]


def dayfly(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DAYFLY, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    "name", ["exec", "shell", "pipeline", "batch", "cron", "token", "store", "host", "server", "top"]
)
def test_command_that_is_not_built_is_refused_by_name(name: str) -> None:
    """A command of a later version says so and ends with 125."""
    done = dayfly(name, "--whatever")
    assert done.returncode == 125
    assert done.stderr == f"dayfly: `dayfly {name}` is not built yet; see `dayfly --help`\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["bogus"], ["run", "--bogus"], ["run", "--cpus", "many", "true"], ["status"], ["ls", "--limit", "x"], []],
)
def test_usage_error_ends_with_125_and_no_traceback(arguments: list[str]) -> None:
    """A mistake in the command line never looks like a job's own exit code."""
    done = dayfly(*arguments)
    assert done.returncode == 125
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_imports_nothing_but_click() -> None:
    """`dayfly --help` answers at once: no command's file, no Redis, no pydantic is loaded for it."""
    program = "import sys; from dayfly.cli.main import main; main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Usage: dayfly" in done.stdout
    for name in ("redis", "rq", "pydantic", "rich", "yaml", "structlog", "dayfly.cli.run", "dayfly.config"):
        assert f"'{name}'" not in done.stdout


def test_every_command_has_help() -> None:
    """Each command that the group lists can be loaded, and explains itself."""
    program = (
        "from dayfly.cli.main import main, dayfly\n"
        "for name in dayfly.list_commands(None):\n    assert main([name, '--help']) == 0, name\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: dayfly ") == 24


@pytest.mark.parametrize(
    "topic", ["exit-codes", "documents", "directory", "streams", "ids", "configuration", "completion"]
)
def test_topic_has_a_page(topic: str) -> None:
    """`dayfly help TOPIC` prints a page for each topic that the help names."""
    done = dayfly("help", topic)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 1


def test_help_of_a_subcommand_is_found() -> None:
    """`dayfly help config show` is `dayfly config show --help`."""
    assert dayfly("help", "config", "show").stdout == dayfly("config", "show", "--help").stdout


def test_closed_reader_ends_us_quietly() -> None:
    """Like any good tool we end without a word when our reader has gone."""
    program = f"{sys.executable} -m dayfly config schema | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == ""


def test_closed_standard_streams_do_no_harm(tmp_path: Path) -> None:
    """With all three standard descriptors closed the command still does its work."""
    program = f"{sys.executable} -m dayfly help ids <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", program], check=False).returncode == 0


def test_completion_names_commands_and_options() -> None:
    """The shell's completion knows the commands and a command's options."""
    words = {"_DAYFLY_COMPLETE": "bash_complete", "COMP_WORDS": "dayfly ", "COMP_CWORD": "1"}
    assert "plain,submit" in dayfly(**words).stdout
    words = {"_DAYFLY_COMPLETE": "bash_complete", "COMP_WORDS": "dayfly run --arti", "COMP_CWORD": "2"}
    assert "plain,--artifact" in dayfly(**words).stdout


def test_unknown_fault_is_one_line_unless_debugging(tmp_path: Path) -> None:
    """A broken configuration is one line with the reason; DAYFLY_DEBUG=1 shows where it happened."""
    broken = tmp_path / "config.toml"
    broken.write_text("[client]\nurk = 1\n")
    done = dayfly("config", "show", DAYFLY_CONFIG=str(broken))
    assert (done.returncode, len(done.stderr.splitlines())) == (125, 1)
    assert "Traceback" in dayfly("config", "show", DAYFLY_CONFIG=str(broken), DAYFLY_DEBUG="1").stderr

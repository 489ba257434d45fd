"""The pages of `dayfly help TOPIC`."""

from collections.abc import Mapping


def exit_code_table() -> str:
    """From the table by which `run` ends, so that they cannot differ."""
    from dayfly.jobs.state import EXIT_CODES

    rows = "\n".join(f"  {rule.code:<6} {rule.meaning}" for rule in EXIT_CODES)
    return f"""Exit codes of `dayfly run`, `wait`, `attach`:

{rows}

  125 stands for everything of Dayfly's own in every command: wrong usage, a bad document, no Redis, an unwritable
  directory. 141: the reader of our output went away. `dayfly doctor` ends with 1 when something is missing.
  A job's own 124, 125 or 137 pass unchanged: `--result FILE` and `--json` tell them apart (`outcome`).
  Several jobs (`wait A B`, `run -f` with many): the worst, that is the largest, code."""


TOPICS: Mapping[str, str] = {
    "documents": """
A job is YAML, JSON, or JSON Lines (one job a line): `dayfly run -f job.yaml`. The smallest:

  image: debian:12
  script: make test

Flags override the file: maps (env, labels, limits) are merged key by key, lists are replaced. `dayfly schema` prints
the JSON Schema of all fields. Sizes: K, M, G are powers of 1024; durations: 90s, 5m, 1h30m, HH:MM:SS.
Unknown fields are refused with their path and line; so are fields that this version does not have yet.
`run -f` with several jobs submits all, waits for all and ends with the worst exit code; their logs are not mixed
into one stream, `dayfly logs ID` has each.
""",
    "directory": """
`dayfly run` shows the current directory to the job as /workspace, copy-on-write: the job sees your files and may
write; your files stay as they are. What shall come back is named: --artifact 'dist/**', or --changed for everything
that was written; it arrives below --out (default: the current directory).

  --dir DIR   another directory         --no-dir   none

In / and in your home directory there is none by default. `run` mounts the directory live; `submit` takes one only
with --dir and freezes it first, so that a later edit does not reach a queued job. What `.dayflyignore` names is left
out.
""",
    "streams": """
The job's stdout goes to stdout and its stderr to stderr, byte for byte; -t puts the time before each line. Dayfly's
own lines go to stderr and begin with `dayfly: `; -q silences them, except errors.

  --json          print one Result on stdout at the end; both streams of the job go to stderr
  --result FILE   write the Result to a file and leave the streams alone

Standard input is empty unless --stdin FILE or --stdin - is given; it is read before the job is submitted.
SIGINT, SIGTERM and SIGHUP cancel the job, let it have its stop_grace, and wait for its end; a second one kills it at
once. A job whose `run` is gone for 30 seconds is cancelled; `--detach` and `submit` leave it alone.
""",
    "ids": """
A job's id has 26 characters and sorts by time. Any unique prefix will do, in either case, and `@last` is the last
job that you submitted on this machine: `dayfly logs @last`.
""",
    "configuration": """
One file: $DAYFLY_CONFIG, else $XDG_CONFIG_HOME/dayfly/config.toml, else /etc/dayfly/config.toml. Precedence: flag,
environment, file, default. `dayfly config show` prints each value and where it was set; `dayfly config schema` its
JSON Schema. The environment variable of a key is DAYFLY_SECTION_KEY (DAYFLY_WORKER_SLOTS=4), and four have names of
their own: DAYFLY_URL or DAYFLY_REDIS_URL (client.url), DAYFLY_HOME (worker.home), DAYFLY_IDLE (worker.idle).

Which Redis: --url, DAYFLY_URL, DAYFLY_REDIS_URL, the file, else the embedded one, which is started when needed and
ends after ten idle minutes. `dayfly up` keeps it, `dayfly down` stops it.
""",
    "completion": """
  bash: eval "$(_DAYFLY_COMPLETE=bash_source dayfly)"      in ~/.bashrc
  zsh:  eval "$(_DAYFLY_COMPLETE=zsh_source dayfly)"       in ~/.zshrc
  fish: _DAYFLY_COMPLETE=fish_source dayfly | source       in ~/.config/fish/config.fish
""",
}

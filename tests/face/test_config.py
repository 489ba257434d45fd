"""Configuration: precedence, origins, and errors that name the place."""

from pathlib import Path

import jsonschema
import pytest

from dayfly.cli.config import show
from dayfly.config import load
from dayfly.config_keys import KEYS, json_schema
from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import ConfigError
from dayfly.jobs.spec import ArtifactsWhen
from dayfly.settings import worker_settings
from dayfly.worker.capacity import open_ledger


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "config.toml"
    file.touch()
    monkeypatch.setenv("DAYFLY_CONFIG", str(file))
    return file


def test_flag_beats_environment_beats_file_beats_default(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The precedence is flag, environment, file, default, and each value says which of them it came from."""
    assert load().values["worker.slots"].origin == "default"
    config_file.write_text("\n[worker]\nslots = 2\n")
    assert (load().whole("worker.slots"), load().origin("worker.slots")) == (2, f"{config_file}:3")
    monkeypatch.setenv("DAYFLY_WORKER_SLOTS", "3")
    assert (load().whole("worker.slots"), load().origin("worker.slots")) == (3, "environment DAYFLY_WORKER_SLOTS")
    flagged = load({"worker.slots": 4})
    assert (flagged.whole("worker.slots"), flagged.origin("worker.slots")) == (4, "flag --slots")


def test_dayfly_url_beats_dayfly_redis_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two variables that name a Redis, DAYFLY_URL wins."""
    monkeypatch.setenv("DAYFLY_REDIS_URL", "redis://second")
    assert load().text("client.url") == "redis://second"
    monkeypatch.setenv("DAYFLY_URL", "redis://first")
    assert load().text("client.url") == "redis://first"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[worker]\nslots = 2\nslott = 3\n", 3, "unknown key `worker.slott`; did you mean `worker.slots`?"),
        ("[worker]\nslots = 0\n", 2, "worker.slots: must be a whole number, 1 or more, got 0"),
        ("[worker]\nslots = true\n", 2, "worker.slots: must be a whole number"),
        ("\n\n[wurker]\nslots = 1\n", 3, "unknown section `wurker`"),
        ("url = 'redis://x'\n", 1, "unknown section `url`"),
        ("worker.slotz = 1\n", 1, "unknown key `worker.slotz`"),
        ("[worker]\nmemory = 'much'\n", 2, "worker.memory: 'much' is not a size"),
        ("[allow]\nmounts = '/a, /b'\nnetwork_host = 'perhaps'\n", 3, "allow.network_host: must be true or false"),
        ("[worker]\nlabels = {disk = 1}\n", 2, "worker.labels: must map names to texts"),
        ("[defaults]\nshm = '0'\n", 2, "defaults.shm: must be 4K or more, got '0'"),
        ("[defaults]\nshm = 4095\n", 2, "defaults.shm: must be 4K or more, got 4095"),
        (
            "[defaults]\nartifacts_when = 'never'\n",
            2,
            "defaults.artifacts_when: must be always or on_success or on_failure, got 'never'",
        ),
        ("[defaults]\ntimeout = 0\n", 2, "defaults.timeout: must be 1ms or more, got 0"),
        ("[worker\n", 1, "not TOML"),
    ],
)
def test_wrong_file_is_refused_with_file_and_line(config_file: Path, text: str, line: int, reason: str) -> None:
    """Whatever is wrong in the file is said with its name and the line."""
    config_file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load()
    assert str(caught.value).startswith(f"{config_file}, line {line}: {reason}")


def test_wrong_environment_is_refused_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that cannot be read is named."""
    monkeypatch.setenv("DAYFLY_IDLE", "soon")
    with pytest.raises(ConfigError, match="environment DAYFLY_IDLE: 'soon' is not a duration"):
        load()


def test_named_file_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DAYFLY_CONFIG that leads nowhere is not passed over in silence."""
    monkeypatch.setenv("DAYFLY_CONFIG", "/nowhere/config.toml")
    with pytest.raises(ConfigError, match="no such file"):
        load()


def test_users_file_is_found_below_xdg_config_home(tmp_path: Path) -> None:
    """Without DAYFLY_CONFIG the user's own file counts."""
    file = tmp_path / "xdg-config/dayfly/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[images]\ndefault_image = "debian:12"\n')
    assert load().text("images.default_image") == "debian:12"


def test_values_are_read_in_human_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, durations, lists and labels may be written as people write them."""
    for name, text in {"MEMORY": "2G", "LEASE": "1m", "QUEUES": "a, b", "LABELS": "disk=nvme,gpu="}.items():
        monkeypatch.setenv(f"DAYFLY_WORKER_{name}", text)
    settings = load()
    assert settings.whole("worker.memory") == 2 << 30
    assert settings.number("worker.lease") == 60.0
    assert settings.texts("worker.queues") == ("a", "b")
    assert settings.labels("worker.labels") == {"disk": "nvme", "gpu": ""}


def test_the_operator_changes_what_a_job_does_not_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What [defaults] say reaches the worker; a share is never more than the whole host."""
    for name, text in {
        "CPUS": "0.5",
        "MEMORY": "1T",
        "DISK": "64M",
        "RETRY": "0",
        "ARTIFACTS_WHEN": "on_failure",
    }.items():
        monkeypatch.setenv(f"DAYFLY_DEFAULTS_{name}", text)
    settings = worker_settings(
        load({"worker.cpus": 4, "worker.memory": "8G"}), url="", is_embedded=False, ends_when_idle=False
    )
    settings.home.mkdir(parents=True)
    assert open_ledger(settings).share == Capacity(500, 8192, 64)
    assert settings.defaults.retry.max == 0
    assert settings.defaults.artifacts_when is ArtifactsWhen.ON_FAILURE


def test_schema_accepts_every_default_and_refuses_unknown_keys() -> None:
    """The published schema describes the same keys, all of whose defaults it accepts."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document: dict[str, dict[str, object]] = {}
    for key in KEYS.values():
        if key.default is not None:
            document.setdefault(key.section, {})[key.name.partition(".")[2]] = key.default
    jsonschema.validate(document, schema)
    for wrong in ({"worker": {"slott": 1}}, {"defaults": {"shm": 0}}, {"defaults": {"timeout": 0}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_defaults_of_a_job_have_the_documents_minimums(config_file: Path) -> None:
    """What a job may state, the operator may make the default, and nothing less."""
    config_file.write_text("[defaults]\nshm = '4K'\ntimeout = '1ms'\nstop_grace = 0\n")
    settings = load()
    stated = read_job({"command": ["x"], "limits": {"shm": "4K"}, "timeout": "1ms", "stop_grace": 0})
    assert (settings.whole("defaults.shm"), settings.number("defaults.timeout")) == (
        stated.limits.shm_bytes,
        stated.timeout_seconds,
    )
    assert settings.number("defaults.stop_grace") == stated.stop_grace_seconds


@pytest.mark.parametrize("arguments", [[], ["--json"]])
@pytest.mark.parametrize("url", ["redis://user:geheim@host/0", "redis://host/0?password=geheim&db=1"])
def test_no_form_of_show_tells_a_password(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], url: str, arguments: list[str]
) -> None:
    """What people paste into a report has the URL without its password, for people and for machines."""
    monkeypatch.setenv("DAYFLY_URL", url)
    show.main(arguments, standalone_mode=False)
    shown = capfd.readouterr().out
    assert ("geheim" in shown, "***" in shown) == (False, True)

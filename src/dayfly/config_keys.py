"""Every key of config.toml: its type, its environment variables, its default and its meaning, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from dayfly.jobs.ranges import INTERNET
from dayfly.jobs.spec import (
    DEFAULT_ARTIFACTS_WHEN,
    DEFAULT_IMAGE,
    DEFAULT_PIDS,
    DEFAULT_PULL,
    DEFAULT_QUEUE,
    DEFAULT_RETRY,
    ArtifactsWhen,
    PullPolicy,
)


class Kind(Enum):
    """How a value is written, and what JSON Schema says of it."""

    TEXT = "text"
    CHOICE = "choice"
    COUNT = "count"
    TIMES = "times"
    NUMBER = "number"
    SIZE = "size"
    DURATION = "duration"
    SWITCH = "switch"
    TEXTS = "texts"
    CAPABILITIES = "capabilities"
    LABELS = "labels"
    RANGES = "ranges"
    PORTS = "ports"
    SUBNET4 = "subnet4"
    SUBNET6 = "subnet6"
    ADDRESSES = "addresses"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `default` is written as in the file; None means: worked out from the host or the home.

    `minimum` is in bytes or seconds, and that of a job document's field where the key is what a job does not state.
    """

    name: str
    kind: Kind
    default: object
    meaning: str
    environment: tuple[str, ...] = ()
    minimum: float = 0
    choices: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, the first one wins."""
        return self.environment or ("DAYFLY_" + self.name.replace(".", "_").upper(),)


KEYS: Mapping[str, Key] = {
    key.name: key
    for key in (
        Key("client.url", Kind.TEXT, None, "Redis of the queue (redis://, rediss://, unix://); unset: the embedded one",
            ("DAYFLY_URL", "DAYFLY_REDIS_URL")),
        Key("client.signing_key", Kind.TEXT, None, "file of the key that jobs are signed with; unset: unsigned"),
        Key("client.signature_valid", Kind.DURATION, "7d", "how long a signed job may wait for a worker", minimum=1),
        Key("client.secret_recipients", Kind.TEXTS, [], "public key files of the workers that secrets are sealed for"),
        Key("worker.home", Kind.TEXT, None, "directory of everything that Dayfly keeps on this host", ("DAYFLY_HOME",)),
        Key("worker.name", Kind.TEXT, None, "name of the worker in Redis; unset: the host's name"),
        Key("worker.queues", Kind.TEXTS, [DEFAULT_QUEUE], "queues that the worker serves"),
        Key("worker.slots", Kind.COUNT, None, "jobs at one time; unset: the host's cpus"),
        Key("worker.cpus", Kind.NUMBER, None, "cpus offered to jobs; unset: the host's"),
        Key("worker.memory", Kind.SIZE, None, "memory offered to jobs; unset: the host's"),
        Key("worker.disk", Kind.SIZE, None, "disk offered to jobs; unset: what is free below the home"),
        Key("worker.labels", Kind.LABELS, {}, "labels that jobs may ask for"),
        Key("worker.trusted_keys", Kind.TEXTS, [], "key files, or directories of them: only jobs signed by these run"),
        Key("worker.secret_keys", Kind.TEXTS, [], "key files or directories that open secrets (else HOME/secrets.key)"),
        Key("worker.log_limit", Kind.SIZE, "64M", "log kept of one job: its head and its tail"),
        Key("worker.lease", Kind.DURATION, "30s", "a job whose worker is silent for longer is given to another"),
        Key("worker.idle", Kind.DURATION, "10m", "idle time after which the embedded worker ends", ("DAYFLY_IDLE",)),
        Key("defaults.cpus", Kind.NUMBER, None, "cpus of a job that states none; unset: one slot's share"),
        Key("defaults.memory", Kind.SIZE, None, "memory of a job that states none; unset: one slot's share"),
        Key("defaults.disk", Kind.SIZE, None, "disk of a job that states none; unset: one slot's share"),
        Key("defaults.retry", Kind.TIMES, DEFAULT_RETRY.max, "tries more of a job that was lost and states no retry"),
        Key("defaults.artifacts_when", Kind.CHOICE, DEFAULT_ARTIFACTS_WHEN.value, "when artifacts are collected",
            choices=tuple(ArtifactsWhen)),
        Key("defaults.timeout", Kind.DURATION, "1h", "timeout of a job that states none", minimum=0.001),
        Key("defaults.stop_grace", Kind.DURATION, "10s", "time between the stop signal and SIGKILL"),
        Key("defaults.pids", Kind.COUNT, DEFAULT_PIDS, "processes and threads of one job"),
        Key("defaults.shm", Kind.SIZE, "64M", "size of /dev/shm, at least 4K", minimum=4096),
        Key("defaults.network_ingress", Kind.SIZE, None, "bytes a second that a job on the bridge receives; unset: any",
            minimum=1024),
        Key("defaults.network_egress", Kind.SIZE, None, "bytes a second that a job on the bridge sends; unset: any",
            minimum=1024),
        Key("allow.mounts", Kind.TEXTS, [], "directories that a job may mount, with all below them"),
        Key("allow.dirs", Kind.TEXTS, [], "directories that a job may have as its live --dir, with all below them"),
        Key("allow.image_dirs", Kind.TEXTS, [], "directories that a job may name as its image, with all below them"),
        Key("allow.images", Kind.TEXTS, ["*"], "images that jobs may name, as globs: ghcr.io/us/*, debian:*"),
        Key("allow.builds", Kind.TEXTS, [], "names that images built for the queue may have, as globs; []: no builds"),
        Key("allow.network_host", Kind.SWITCH, False, "may a job have the host's network?"),
        Key("allow.cap_add", Kind.CAPABILITIES, [], "capabilities that a job may add: SYS_PTRACE; all is every one"),
        Key("allow.seccomp_unconfined", Kind.SWITCH, False, "may a job be without the filter of system calls?"),
        Key("allow.privileged", Kind.SWITCH, False, "may a job be privileged?"),
        Key("allow.devices", Kind.TEXTS, [], "devices that a job may have, as globs: /dev/kvm, /dev/dri/*"),
        Key("allow.ports", Kind.PORTS, [], "ports of this host that a job's services may publish: 8080, 8000-8999"),
        Key("runtime.oci", Kind.TEXT, None, "OCI runtime that starts jobs: runc, crun, a path; unset: Dayfly itself"),
        Key("allow.network", Kind.RANGES, [], "ranges that a job may ask for beside [network] egress"),
        Key("network.bridge", Kind.SWITCH, True, "may jobs have a bridge, where this host can give one?"),
        Key("network.subnet", Kind.SUBNET4, None, "IPv4 range of jobs; unset: one that is free here"),
        Key("network.subnet6", Kind.SUBNET6, None, "IPv6 range of jobs; unset: a unique local one"),
        Key("network.dns", Kind.ADDRESSES, [], "name servers of jobs; unset: the host's"),
        Key("network.egress", Kind.RANGES, [INTERNET], "what every job on the bridge reaches"),
        Key("network.deny", Kind.RANGES, [], "what no job on the bridge reaches, whatever else is said"),
        Key("store.url", Kind.TEXT, None, "store of logs and artifacts: file:///PATH; unset: HOME/store"),
        Key("images.default_image", Kind.TEXT, DEFAULT_IMAGE, "image of a job that names none"),
        Key("images.pull", Kind.CHOICE, DEFAULT_PULL.value, "when a registry is asked: always, missing, never",
            choices=tuple(PullPolicy)),
        Key("images.mirrors", Kind.LABELS, {}, "by registry, the mirrors that are asked first: HOST[:PORT], …"),
        Key("images.insecure", Kind.TEXTS, [], "registries that may be asked without trusted TLS: HOST[:PORT]"),
        Key("images.inside", Kind.TEXTS, [], "registries of the internet that may send us to addresses inside"),
        Key("images.disk_high", Kind.NUMBER, 90, "per cent of the home's disk in use, above which idle images go"),
        Key("images.disk_low", Kind.NUMBER, 80, "per cent of it at which that ends"),
        Key("images.max_unpacked", Kind.SIZE, "128G", "what one image may unpack to", minimum=1 << 20),
        Key("images.max_files", Kind.COUNT, 2_000_000, "files and directories that one image may have"),
    )
}  # fmt: skip

SECTIONS = tuple(dict.fromkeys(key.section for key in KEYS.values()))


def json_schema() -> dict[str, object]:
    """The JSON Schema (2020-12) of config.toml."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Dayfly configuration (config.toml)",
        "type": "object",
        "additionalProperties": False,
        "properties": {section: _section_schema(section) for section in SECTIONS},
    }


def _section_schema(section: str) -> dict[str, object]:
    keys = [key for key in KEYS.values() if key.section == section]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name.partition(".")[2]: _key_schema(key) for key in keys},
    }


def _key_schema(key: Key) -> dict[str, object]:
    default = {} if key.default is None else {"default": key.default}
    minimum = {"minimum": key.minimum} if key.minimum else {}
    choices = {"enum": list(key.choices)} if key.choices else {}
    return {**_TYPES[key.kind], **minimum, **choices, "description": key.meaning, **default}


_TYPES: Mapping[Kind, dict[str, object]] = {
    Kind.TEXT: {"type": "string", "minLength": 1},
    Kind.CHOICE: {"type": "string"},
    Kind.COUNT: {"type": "integer", "minimum": 1},
    Kind.TIMES: {"type": "integer", "minimum": 0},
    Kind.NUMBER: {"type": "number", "exclusiveMinimum": 0},
    Kind.SIZE: {"type": ["string", "integer"], "minimum": 0},
    Kind.DURATION: {"type": ["string", "number"], "minimum": 0},
    Kind.SWITCH: {"type": "boolean"},
    Kind.TEXTS: {"type": "array", "items": {"type": "string", "minLength": 1}},
    Kind.CAPABILITIES: {"type": "array", "items": {"type": "string", "minLength": 1}},
    Kind.RANGES: {"type": "array", "items": {"type": "string", "examples": [INTERNET, "10.1.0.0/16"]}},
    Kind.PORTS: {"type": "array", "items": {"type": "string", "examples": ["8080", "8000-8999"]}},
    Kind.SUBNET4: {"type": "string", "examples": ["10.64.0.0/20"]},
    Kind.SUBNET6: {"type": "string", "examples": ["fd00:1:2:3::/64"]},
    Kind.ADDRESSES: {"type": "array", "items": {"type": "string", "examples": ["192.168.0.1"]}},
    Kind.LABELS: {"type": "object", "additionalProperties": {"type": "string"}},
}

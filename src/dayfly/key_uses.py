"""Which settings name key files, and what the keys are for."""

from dataclasses import dataclass
from pathlib import Path

from dayfly.config import Settings


@dataclass(frozen=True, slots=True)
class KeyUse:
    """`setting` names one file, or a list of files and directories; `word` is what `dayfly key ls` calls the use.

    `without` says what it means that there is none.
    """

    setting: str
    word: str
    title: str
    without: str

    def paths(self, settings: Settings) -> tuple[Path, ...]:
        one = settings.text(self.setting)
        return tuple(Path(each) for each in ((one,) if one is not None else settings.texts(self.setting)))


USES = (
    KeyUse("client.signing_key", "sign", "signing key", "none configured: jobs from here are not signed"),
    KeyUse(
        "worker.trusted_keys",
        "trust",
        "trusted keys",
        "none configured: a worker here runs jobs of anybody who can write to its Redis",
    ),
    KeyUse("client.secret_recipients", "seal", "secrets sealed", "no recipient configured: for this host's own worker"),
    KeyUse("worker.secret_keys", "open", "secrets opened", "none configured: with HOME/secrets.key, if it is there"),
)

"""What the configuration says of images: which registries, how much an image may take."""

from dayfly.config import Settings
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.registry.settings import RegistrySettings


def registry_settings(settings: Settings) -> RegistrySettings:
    mirrors = settings.labels("images.mirrors")
    return RegistrySettings(
        mirrors={registry: tuple(hosts.replace(",", " ").split()) for registry, hosts in mirrors.items()},
        insecure=frozenset(settings.texts("images.insecure")),
        inside=frozenset(settings.texts("images.inside")),
    )


def import_limits(settings: Settings) -> ImportLimits:
    standard = ImportLimits()
    return ImportLimits(
        bytes=settings.whole("images.max_unpacked") or standard.bytes,
        entries=settings.whole("images.max_files") or standard.entries,
    )

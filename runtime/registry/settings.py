"""What an operator says of registries."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """`mirrors`: by registry, the hosts that are asked before it. `insecure`: hosts that need no trusted TLS, nor have
    token servers that do. `inside`: registries of the internet that may send us to addresses inside."""

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    inside: frozenset[str] = frozenset()

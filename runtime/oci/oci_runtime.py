"""The OCI runtime that a worker was told to use in place of the last step of its own containers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dayfly.runtime import capabilities
from dayfly.runtime.channel import Channel
from dayfly.runtime.init import Birthright
from dayfly.runtime.oci import monitor, seccomp_section
from dayfly.runtime.shape import Privileges


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """`program` is an absolute path, `filter_path` that of the default filter (`seccomp.cached`)."""

    program: str
    filter_path: str

    @property
    def life(self) -> Callable[[str, Birthright, Channel, tuple[int, int]], None]:
        """What the process does that stands where init stands."""
        return partial(monitor.run, self.program)

    def section(self, privileges: Privileges | None) -> str | None:
        """The path of the filter as the runtime takes it, for a job with these privileges; None is none."""
        if privileges is None:
            return seccomp_section.cached(self.filter_path, capabilities.DEFAULT_MASK)
        if privileges.filter_path is None:
            return None
        return seccomp_section.cached(privileges.filter_path, privileges.capabilities)

"""A container's plan in words, before anything of it is done for the job: the steps describe themselves."""

from collections.abc import Iterator
from dataclasses import fields

from dayfly.runtime import capabilities
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.inputs import input_operations
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.operations import PivotRoot
from dayfly.runtime.rootfs import handover_operations, kernel_operations, proc_operations, tree_operations
from dayfly.runtime.shape import ContainerPlan, Privileges, Quotas, Shape
from dayfly.runtime.users import ROOT

_NOT_YET = -1  # no operation is applied, so none needs its descriptors


def describe(plan: ContainerPlan, ids: IdMap | None, has_cgroup2: bool, oci_program: str | None = None) -> list[str]:
    """One line a step, in the order of container.py. `ids`: what all jobs have, of a rootless worker; `oci_program`:
    the runtime that starts the command, if any."""
    ids = ids or IdMap(0)
    shape, namespaces = plan.shape, Namespaces({"user": _NOT_YET})
    operations = [
        *proc_operations(shape),
        *kernel_operations(shape, ids, _NOT_YET, []),
        *tree_operations(shape, _NOT_YET, ids, _NOT_YET, has_cgroup2),
        *input_operations(ids, namespaces, plan, ROOT, [], {}),
        *([PivotRoot("root")] if oci_program is None else handover_operations()),
    ]
    steps = (operation.describe() for operation in operations)
    handed = [] if oci_program is None else [f"have the rest done by {oci_program}:"]
    return [*_before(shape), *_bridge(shape), *steps, *handed, *_after(plan)]


def _before(shape: Shape) -> Iterator[str]:
    yield f"make namespaces: mount, pid, user, ipc, uts, cgroup{'' if shape.network == 'host' else ', net'}"
    yield f"make a control group: {_limits(shape.quotas) or 'no limits'}"
    if shape.devices:
        yield f"let it use no devices but the standard ones and {' '.join(each.target for each in shape.devices)}"
    yield f"make a disk of {shape.disk_bytes} bytes" if shape.disk_bytes else "make a directory for a disk"


def _bridge(shape: Shape) -> Iterator[str]:
    if shape.bridge is not None:
        reach = "what the operator allows" if shape.bridge.allow is None else ", ".join(shape.bridge.allow) or "nobody"
        yield f"put it on the bridge, to reach {reach}"


def _limits(quotas: Quotas) -> str:
    values = ((each.name, getattr(quotas, each.name)) for each in fields(quotas))
    return ", ".join(f"{name} {value}" for name, value in values if value not in (None, ()))


def _after(plan: ContainerPlan) -> Iterator[str]:
    process = plan.process
    yield f"become user {process.user or 'root'} of the job's user namespace, in {process.cwd}"
    own = plan.privileges or Privileges(capabilities=capabilities.DEFAULT_MASK, filter_path="the default one")
    names = " ".join(name for name, number in capabilities.NUMBERS.items() if own.capabilities >> number & 1)
    yield f"keep no capability but {names}" if names else "keep no capability"
    yield "let setuid programs count" if own.gains else "set no_new_privs"
    yield "install the filter of system calls" if own.filter_path else "leave all system calls open"
    variables = [f"{each.env} (secret {each.name})" for each in plan.secrets if each.env is not None]
    if variables:
        yield f"set the variables {', '.join(variables)}"
    yield f"execute {' '.join(ascii(word) for word in process.argv)}"

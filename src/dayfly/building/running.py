"""RUN: a job like any other, whose upper is kept as a layer instead of thrown away."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dayfly.building import layers
from dayfly.building.state import PROXIES, State
from dayfly.building.step_mounts import step_mounts
from dayfly.building.workshop import Workshop
from dayfly.jobs.build import STEP
from dayfly.jobs.containerfile.instructions import Instruction
from dayfly.jobs.containerfile.lines import without_heredocs
from dayfly.jobs.door import read_job
from dayfly.jobs.mounts import Mount
from dayfly.jobs.network import Network, NetworkUse
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec, Keep
from dayfly.runtime.images.adding import archive_of
from dayfly.runtime.removal import remove_tree
from dayfly.worker.kept_jobs import KeptJob

_NETWORKS = {"default": "auto", "host": "host", "none": "none"}


def run(shop: Workshop, state: State, instruction: Instruction, now: Callable[[], float]) -> State:
    """Raises ContainerfileError when the command fails, DayflyError."""
    if state.base is None:
        raise instruction.line.fault("there is nothing to run in yet", "COPY something into it, or begin FROM an image")
    argv = _argv(instruction, state)
    given = step_mounts(shop, state, instruction)
    network = instruction.flags.get("network", shop.request.network)
    environment = {**state.arguments, **state.environment}
    keyed = {name: value for name, value in environment.items() if name not in PROXIES}
    step = ("RUN", argv, keyed, state.user, state.directory, given.key, network)
    shown = f"RUN {instruction.text}" if instruction.words is None and not instruction.documents else f"RUN {argv}"

    def make(done: State) -> str:
        with given.made(shop, instruction) as mounts:
            spec = _spec(state, argv, environment, mounts, _network(instruction, network))
            result = shop.run(spec)
        return _keep(shop, state, done, instruction, result)

    return layers.made(shop, state, step, shown[:1000], make, now)


def _argv(instruction: Instruction, state: State) -> list[str]:
    if instruction.words is not None:
        return list(instruction.words)
    text = without_heredocs(instruction.text) if instruction.documents else instruction.text
    if not instruction.documents:
        return [*state.shell, text]
    document = instruction.documents[0]
    if not text:
        return _script(document.content, state)
    # `RUN cat <<EOF > /file`: the shell has here-documents itself.
    bodies = "".join(f"{each.content}{each.name}\n" for each in instruction.documents)
    return [*state.shell, f"{instruction.text}\n{bodies}"]


def _script(content: str, state: State) -> list[str]:
    """A here-document alone is a script: of the interpreter that its first line names, else of the shell."""
    first, _, _ = content.partition("\n")
    if first.startswith("#!"):
        return [*first.removeprefix("#!").split(), "-c", content]
    return [*state.shell, content]


def _spec(
    state: State, argv: list[str], environment: dict[str, str], mounts: Sequence[Mount], network: NetworkUse
) -> JobSpec:
    given = [each.to_document() for each in mounts]
    document: dict[str, object] = {"image": state.base, "command": argv, "entrypoint": [], "env": environment}
    document |= {"workdir": state.directory, "user": state.user or "0", "mounts": given}
    document |= {"annotations": {STEP: "true"}}
    return replace(read_job({**document, "keep": Keep.ALWAYS.value, "retry": 0}), network=network)


def _network(instruction: Instruction, name: str) -> NetworkUse:
    known = {**_NETWORKS, **{each.value: each.value for each in Network}}
    if name not in known:
        raise instruction.line.fault(f"--network={name[:40]}: there are default, none and host")
    return NetworkUse(Network(known[name]))


def _keep(shop: Workshop, before: State, after: State, instruction: Instruction, result: Result) -> str:
    """The digest of the image with what the job wrote, which goes."""
    failed = instruction.line.fault(f"{instruction.text[:200]} {result.describe()}")
    if result.kept is None:
        raise failed
    job = KeptJob.await_(shop.home, result.id)
    try:
        if not result.is_success:
            raise failed
        with job.root() as upper, job.image() as image:
            skip = frozenset(job.not_its_own(upper, image))
            changes = archive_of(upper, f"line {instruction.line.number}", skip, shop.epoch)
            return layers.add(shop, before, after, changes)
    finally:
        remove_tree(job.directory)

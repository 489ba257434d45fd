"""A build: the stages of a Containerfile that its image needs, each instruction upon the one before."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from dayfly.building import archives, layers, running
from dayfly.building.metadata import METADATA
from dayfly.building.state import PROXIES, State
from dayfly.building.workshop import Workshop
from dayfly.committing import rfc3339
from dayfly.jobs.containerfile.instructions import Instruction
from dayfly.jobs.containerfile.stages import Containerfile, Stage, read_containerfile
from dayfly.jobs.containerfile.words import expand
from dayfly.jobs.errors import ContainerfileError, ImageError
from dayfly.runtime.images.image import Imported
from dayfly.runtime.images.manifest import host_architecture


def build(shop: Workshop) -> Imported:
    """Raises ContainerfileError, with the line, and DayflyError."""
    try:
        return _Build(shop, read_containerfile(shop.request.text)).run()
    except RecursionError as error:
        raise ContainerfileError(0, "something in it is nested too deeply") from error


class _Build:
    def __init__(self, shop: Workshop, file: Containerfile) -> None:
        self._shop = shop
        self._file = file
        self._now: Callable[[], float] = time.time
        self._global = self._global_arguments()
        self._total = 0
        self._done = 0

    def run(self) -> Imported:
        request = self._shop.request
        last = self._file.stages[-1] if not request.target else self._file.stage(request.target)
        if last is None:
            raise ImageError(f"there is no stage {request.target!r}")
        needed = [self._file.stages[number] for number in sorted(self._needed(last))]
        self._total = sum(1 + len(stage.instructions) for stage in needed)
        for stage in needed:
            self._shop.stages[str(stage.number)] = state = self._stage(stage)
            if stage.name:
                self._shop.stages[stage.name] = state
        return self._finished(self._shop.stages[str(last.number)])

    def _finished(self, state: State) -> Imported:
        request, base = self._shop.request, state.base
        if base is None:
            raise ImageError("the image would have no layer", "COPY something into it")
        if request.labels:
            labels = {**(state.settings.get("Labels") or {}), **request.labels}
            state = state.with_settings(Labels=labels)
        return self._shop.store.configure(base, state.config, request.name)

    def _needed(self, stage: Stage) -> set[int]:
        """The numbers of the stage and of those that it is made of."""
        found, to_look_at = {stage.number}, [stage]
        while to_look_at:
            this = to_look_at.pop()
            for name in self._named_in(this):
                other = self._file.stage(name, before=this.number)
                if other is not None and other.number not in found:
                    found.add(other.number)
                    to_look_at.append(other)
        return found

    def _named_in(self, stage: Stage) -> list[str]:
        names = [self._expanded(stage.base, stage.image, self._global)]
        for each in stage.instructions:
            if "from" in each.flags:
                names.append(each.flags["from"])
            options = (part.partition("=") for text in each.repeated.get("mount", ()) for part in text.split(","))
            names += [value for name, _, value in options if name == "from"]
        return [name for name in names if name]

    def _global_arguments(self) -> dict[str, str]:
        """The ARGs above the first FROM, and those of the platform."""
        architecture = host_architecture()
        found = {
            f"{whose}{what}": value
            for whose in ("TARGET", "BUILD")
            for what, value in (("PLATFORM", f"linux/{architecture}"), ("OS", "linux"), ("ARCH", architecture))
        }
        for each in self._file.arguments:
            for word in each.split():
                name, equals, value = word.partition("=")
                given = self._shop.request.arguments.get(name)
                if given is not None:
                    found[name] = given
                elif equals:
                    found[name] = self._expanded(each, value, found)
        return found

    def _stage(self, stage: Stage) -> State:
        name = self._expanded(stage.base, stage.image, self._global)
        self._say(f"FROM {stage.base.text}")
        platform = stage.base.flags.get("platform")
        own = f"linux/{host_architecture()}"
        if platform and self._expanded(stage.base, platform, self._global) not in (own, f"{own}/v8"):
            raise stage.base.line.fault(f"--platform={platform}: this machine builds {own}")
        if not name:
            raise stage.base.line.fault(f"{stage.image!r} names no image", "give the ARG a value: --build-arg")
        proxies = {each: self._shop.request.arguments[each] for each in PROXIES if each in self._shop.request.arguments}
        state = replace(self._shop.image(name), arguments=proxies, has_own_command=False)
        self._triggers(stage, state)
        for instruction in stage.instructions:
            self._say(f"{instruction.name} {instruction.line.rest}")
            state = self._step(state, instruction)
        return state

    def _triggers(self, stage: Stage, state: State) -> None:
        if state.settings.get("OnBuild"):
            self._shop.say(f"warning: {stage.image} has ONBUILD steps, which are not taken")

    def _step(self, state: State, instruction: Instruction) -> State:
        now = self._now
        if instruction.name == "ARG":
            return self._argument(state, instruction)
        if instruction.name == "RUN":
            return running.run(self._shop, state, instruction, now)
        if instruction.name in ("COPY", "ADD"):
            return self._copy(state, instruction)
        if instruction.name == "WORKDIR":
            path = layers.absolute(state, self._expanded(instruction, instruction.text, state.variables))
            made = layers.make_directory(self._shop, state, path.rstrip("/") or "/", f"WORKDIR {path}", now)
            return made.with_settings(WorkingDir=path.rstrip("/") or "/")
        after = METADATA[instruction.name](state, instruction, self._shop.say)
        created = rfc3339(now() if self._shop.epoch is None else self._shop.epoch)
        shown = f"{instruction.name} {instruction.line.rest}"
        return after.after((instruction.name, dict(after.settings))).with_history(created, shown, has_layer=False)

    def _copy(self, state: State, instruction: Instruction) -> State:
        with self._shop.tree_of(state) as image:
            if instruction.name == "ADD":
                return archives.add(self._shop, state, instruction, image, self._now)
            name = instruction.flags.get("from")
            if name is None:
                return layers.copy(self._shop, state, instruction, self._shop.context, image, self._now)
            with self._shop.tree_of(self._shop.image(name)) as tree:
                return layers.copy(self._shop, state, instruction, tree, image, self._now)

    def _argument(self, state: State, instruction: Instruction) -> State:
        """In scope from here on; what RUN sees is in its key, so this is in none."""
        arguments = dict(state.arguments)
        for word in instruction.split():
            name, equals, value = word.partition("=")
            given = self._shop.request.arguments.get(name, self._global.get(name) if not equals else None)
            if given is not None:
                arguments[name] = given
            elif equals:
                arguments[name] = self._expanded(instruction, value, {**state.variables, **arguments})
        return replace(state, arguments=arguments)

    def _expanded(self, instruction: Instruction, text: str, variables: Mapping[str, str]) -> str:
        try:
            return expand(text, variables, instruction.line.escape)
        except ValueError as error:
            raise instruction.line.fault(str(error)) from error

    def _say(self, text: str) -> None:
        self._done += 1
        self._shop.say(f"step {self._done} of {self._total}: {text[:200]}")

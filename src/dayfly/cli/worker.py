"""`dayfly worker`: serve queues on this host until told to stop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dayfly.config import Settings


@click.command(name="worker")
@click.option("--url", metavar="URL", help="Redis of the queues: redis://, rediss:// or unix://.")
@click.option("--queues", metavar="A,B", help="Queues to serve.")
@click.option("--slots", type=int, metavar="N", help="Jobs at one time (default: the host's cpus).")
@click.option("--cpus", metavar="N", help="Cpus offered to jobs (default: the host's).")
@click.option("--memory", metavar="SIZE", help="Memory offered to jobs (default: the host's).")
@click.option("--disk", metavar="SIZE", help="Disk offered to jobs (default: what is free).")
@click.option("--labels", multiple=True, metavar="NAME=VALUE", help="A label that jobs may ask for; repeatable.")
@click.option("--name", metavar="NAME", help="Name of the worker in Redis (default: the host's name).")
@click.option("--oci", metavar="NAME", help="OCI runtime that starts jobs: runc, crun (default: Dayfly itself).")
@click.option("--idle-exit", metavar="DURATION", help="End after so long without a job.")
@click.option("--embedded", is_flag=True, hidden=True, help="Started by embedded.py, with its lock as descriptor 3.")
def command(
    url: str | None,
    labels: tuple[str, ...],
    oci: str | None,
    idle_exit: str | None,
    embedded: bool,
    **flags: object,
) -> None:
    """Serve queues on this host until told to stop.

    SIGTERM: finish what runs and take nothing new; a second SIGTERM: requeue what runs.
    """
    from dayfly.worker.stopping import signals

    with signals() as told:  # before all else: what is told while we still load is heeded too
        if embedded:
            _settle_down()
        from dayfly.config import load

        given = {f"worker.{name}": value for name, value in flags.items()}
        given |= {"client.url": url, "worker.labels": labels, "runtime.oci": oci, "worker.idle": idle_exit}
        settings = load(given)
        if embedded:
            _serve_embedded(settings, told)
        else:
            _serve(settings, told, ends_when_idle=idle_exit is not None)


def _settle_down() -> None:
    from dayfly import daemon

    daemon.adopt_lock()
    # The directory that the stack was started in must stay deletable and unmountable.
    os.chdir("/")
    os.umask(0o022)


def _serve(settings: Settings, told: int, *, ends_when_idle: bool) -> None:
    from dayfly.address import find_address
    from dayfly.jobs.errors import DayflyError
    from dayfly.settings import worker_settings
    from dayfly.worker.agent import serve

    address = find_address(settings)
    if address.stack is not None:
        raise DayflyError(
            "no Redis is configured for this worker",
            remedy="give --url or set DAYFLY_URL; `dayfly up` starts an embedded Redis with a worker",
        )
    serve(worker_settings(settings, url=address.url, is_embedded=False, ends_when_idle=ends_when_idle), told)


def _serve_embedded(settings: Settings, told: int) -> None:
    """Until a signal, or until idle with nobody left who uses the stack; then the server goes with us."""
    from dayfly.config import home_directory
    from dayfly.embedded import Stack
    from dayfly.settings import worker_settings
    from dayfly.worker.agent import serve

    stack = Stack(home_directory(settings))
    while True:
        plan = worker_settings(settings, url=stack.url, is_embedded=True, ends_when_idle=not stack.is_kept())
        is_idle = serve(plan, told)
        if not is_idle or stack.end_if_unused():
            return

"""What only version 1 does."""

import os

import pytest

from dayfly.runtime.cgroups import v1, v1_limits
from dayfly.runtime.shape import Quotas

pytestmark = pytest.mark.kernel


def test_every_controller_gets_a_directory(v1_only: v1.Hierarchy, token: str) -> None:
    """One in each mounted tree, all gone after discard."""
    group = v1_only.create(token)
    paths = [os.path.join(parent, token) for parent in v1_only.describe()["directories"].values()]
    assert all(os.path.isdir(path) for path in paths)
    assert group.discard()
    assert not any(os.path.isdir(path) for path in paths)


def test_a_half_made_group_is_found_and_removed(v1_only: v1.Hierarchy, token: str) -> None:
    """A keeper killed between two mkdir leaves a directory in some trees: listed, and removed."""
    parent = v1_only.describe()["directories"]["pids"]
    os.mkdir(os.path.join(parent, token))
    assert v1_only.existing() == [token]
    assert v1_only.remove(token)
    assert v1_only.existing() == []


def test_a_failed_creation_leaves_nothing(v1_only: v1.Hierarchy, token: str) -> None:
    """What was made before the failing step is taken back."""
    parent = v1_only.describe()["directories"]["blkio"]
    os.mkdir(os.path.join(parent, token))
    with pytest.raises(Exception, match="File exists"):
        v1_only.create(token)
    os.rmdir(os.path.join(parent, token))
    assert v1_only.existing() == []


def test_no_pressure_on_version_1(v1_only: v1.Hierarchy, token: str) -> None:
    """It is said to be missing, not made up."""
    group = v1_only.create(token)
    assert group.pressure() is None
    assert "pressure" in v1_only.lacking
    assert group.discard()


@pytest.mark.parametrize(
    ("cpus", "period", "quota"),
    [(None, 100_000, None), (1.5, 100_000, 150_000), (0.01, 100_000, 1_000), (0.004, 1_000_000, 4_000)],
)
def test_small_shares_of_a_cpu_get_a_longer_period(cpus: float | None, period: int, quota: int | None) -> None:
    """The kernel takes no quota below 1 ms."""
    assert v1_limits.period_and_quota(cpus) == (period, quota)


def test_the_weight_is_that_of_version_2() -> None:
    """100 is everybody's share in both versions; the ends of the scale stay within the kernel's."""
    assert v1_limits.cpu(Quotas())["cpu.shares"] == "1024"
    assert v1_limits.cpu(Quotas(cpu_weight=50))["cpu.shares"] == "512"
    assert v1_limits.cpu(Quotas(cpu_weight=1))["cpu.shares"] == "10"
    assert v1_limits.cpu(Quotas(cpu_weight=10000))["cpu.shares"] == "102400"

"""Whose alone the group of a user's number is."""

from __future__ import annotations

import grp
import pwd

import pytest

from dayfly.runtime.own_group import own_group


@pytest.mark.parametrize(
    ("primary", "has_group", "expected"),
    [(1234, True, 1234), (100, True, None), (None, True, None), (None, False, 1234)],
)
def test_a_group_is_the_users_own_only_where_it_is_his_primary_one_or_nobodys(
    monkeypatch: pytest.MonkeyPatch, primary: int | None, has_group: bool, expected: int | None
) -> None:
    """A user who is not in passwd(5) has it, unless group(5) gives the number to somebody else."""
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: _found(pwd.struct_passwd, primary))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: _found(grp.struct_group, 1 if has_group else None))
    own_group.cache_clear()
    assert own_group(1234) == expected
    own_group.cache_clear()


def _found(kind: type, gid: int | None) -> object:
    if gid is None:
        raise KeyError(gid)
    return kind(("x", "x", 1234, gid, "", "", "")[: 7 if kind is pwd.struct_passwd else 4])


def test_roots_is_root() -> None:
    """On any host."""
    assert own_group(0) == 0

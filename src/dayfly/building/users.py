"""Who USER and --chown mean: numbers, or names looked up in the image."""

from dayfly.building.trees import Tree, read_file

_LARGEST = 65535
_MAX_BYTES = 1 << 20


def owner_of(text: str, tree: Tree) -> tuple[int, int]:
    """The uid and gid of "user", "user:group" or ":group" (which is root's), each a name or a number.

    Raises ValueError with what is wrong.
    """
    user, colon, group = text.partition(":")
    uid, own = _user(user, tree) if user or not group else (0, 0)
    return uid, (_group(group, tree) if colon and group else own)


def _user(text: str, tree: Tree) -> tuple[int, int]:
    if text.isdecimal():
        return _number(text), _number(text)
    for fields in _entries(tree, "/etc/passwd"):
        if fields[0] == text and len(fields) > 3:
            return _number(fields[2]), _number(fields[3])
    raise ValueError(f"the image has no user {text!r} in /etc/passwd")


def _group(text: str, tree: Tree) -> int:
    if text.isdecimal():
        return _number(text)
    for fields in _entries(tree, "/etc/group"):
        if fields[0] == text and len(fields) > 2:
            return _number(fields[2])
    raise ValueError(f"the image has no group {text!r} in /etc/group")


def _number(text: str) -> int:
    if not text.isdecimal() or int(text[:10]) > _LARGEST:
        raise ValueError(f"{text[:20]!r} is no id up to {_LARGEST}")
    return int(text)


def _entries(tree: Tree, path: str) -> list[list[str]]:
    content = read_file(tree, path, _MAX_BYTES).decode(errors="replace")
    return [line.split(":") for line in content.splitlines()]

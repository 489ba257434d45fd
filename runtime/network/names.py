"""What bears the name of one home on its host: bridge, ports and tables, by the tag that its control groups have."""


def bridge_name(tag: str) -> str:
    return f"df-{tag}"


def port_prefix(tag: str) -> str:
    """A port's name is this and four digits: 14 characters of the 15 that IFNAMSIZ leaves."""
    return f"df{tag}"


def table_name(tag: str) -> str:
    return f"dayfly-{tag}"

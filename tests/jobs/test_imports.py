"""What importing the words costs: keepers and producers import them, each start pays for it."""

import subprocess
import sys

import pytest

_LIGHT = (
    "errors",
    "spec",
    "state",
    "ids",
    "units",
    "demand",
    "result",
    "verdict",
    "signals",
    "plain",
    "services",
    "service_result",
)
_SLOW = {"pydantic", "pydantic_core", "yaml", "redis", "rq", "json", "click", "structlog", "decimal", "logging"}


@pytest.mark.parametrize("name", _LIGHT)
def test_a_light_module_imports_the_standard_library_only(name):
    """Neither pydantic nor PyYAML, nor the slower parts of the standard library."""
    code = f"import dayfly.jobs.{name}, sys; print(sorted({_SLOW} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_room_imports_nothing_of_ours_but_itself():
    """The import rule: jobs stands below all other rooms."""
    modules = (*_LIGHT, "door", "schema")
    code = "import sys\n" + "".join(f"import dayfly.jobs.{name}\n" for name in modules)
    code += "print([n for n in sys.modules if n.startswith('dayfly.') and not n.startswith('dayfly.jobs')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

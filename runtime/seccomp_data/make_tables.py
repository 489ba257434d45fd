"""Write x86_64.json and aarch64.json from the kernel headers of this machine (needs cc and linux-libc-dev).

Run it in this directory: `python3 make_tables.py`. Numbers that the headers are too old for stand in NEWER; from 424 on
a call has the same number on every architecture.
"""

import json
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent

ARM64 = ("RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "SYS_CLONE3", "MEMFD_SECRET")
"""What arch/arm64/include/uapi/asm/unistd.h asks of asm-generic/unistd.h (`__ARCH_WANT_…`)."""

NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
    "listns": 470,
}
NEWER_X86 = {"uretprobe": 335, "uprobe": 336}


def numbers_in(header: str, *defines: str) -> dict[str, int]:
    """Every __NR_ macro of a header that comes to a number."""
    text = subprocess.run(
        ["cc", "-E", "-dM", *defines, "-include", header, "-x", "c", "/dev/null"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    macros: dict[str, str] = dict(re.findall(r"^#define (__NR\w+) (\w+)$", text, re.MULTILINE))
    found = {}
    for name, value in macros.items():
        value = macros.get(value, value)  # __NR_lseek is __NR3264_lseek, which is 62
        if name.startswith("__NR_") and value.isdigit() and name not in ("__NR_syscalls", "__NR_arch_specific_syscall"):
            found[name.removeprefix("__NR_")] = int(value)
    return found


def write(architecture: str, numbers: dict[str, int]) -> None:
    ordered = dict(sorted(numbers.items(), key=lambda item: item[1]))
    (HERE / f"{architecture}.json").write_text(json.dumps(ordered, indent=0) + "\n")


if __name__ == "__main__":
    write("x86_64", numbers_in("asm/unistd_64.h") | NEWER | NEWER_X86)
    wanted = [f"-D__ARCH_WANT_{name}" for name in ARM64]
    write("aarch64", numbers_in("asm-generic/unistd.h", "-D__BITS_PER_LONG=64", *wanted) | NEWER)

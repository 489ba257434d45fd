"""`dayfly doctor`: what this host can enforce and how to mend what it cannot."""

import click

from dayfly.cli.say import print_out


@click.command(name="doctor")
@click.option("--url", metavar="URL", help="Redis to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(url: str | None, as_json: bool) -> int:
    """Say what this host can enforce and how to mend what it cannot. Ends with 1 when something is missing."""
    from dayfly.config import load
    from dayfly.doctor import examine
    from dayfly.doctor_check import Verdict

    checks = []
    for check in examine(load({"client.url": url})):
        checks.append(check)
        if not as_json:
            mark = {Verdict.OK: "ok     ", Verdict.WARNING: "warning", Verdict.MISSING: "MISSING"}[check.verdict]
            print_out(f"{mark}  {check.name:<16}  {check.finding}")
            if check.remedy:
                print_out(f"{'':27}remedy: {check.remedy}")
    if as_json:
        import json

        rows = [
            {"name": each.name.strip(), "verdict": each.verdict.value, "finding": each.finding, "remedy": each.remedy}
            for each in checks
        ]
        print_out(json.dumps(rows, indent=2))
    return int(any(each.verdict is Verdict.MISSING for each in checks))

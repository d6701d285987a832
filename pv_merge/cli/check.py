"""``pv-merge check``."""

from __future__ import annotations

import json

import click


@click.command("check")
@click.argument("recipe", type=click.Path())
@click.option(
    "--deep", is_flag=True, help="Also read every weight, for values that are not finite."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(recipe: str, deep: bool, as_json: bool) -> None:
    """Report every problem of RECIPE at once; exit with 1 if there is an error."""
    from pv_merge.cli.findings import print_findings
    from pv_merge.recipe.opening import check

    findings = check(recipe, deep=deep)
    errors = sum(finding.level == "error" for finding in findings)
    if as_json:
        entries = [{"level": finding.level, "text": finding.text} for finding in findings]
        click.echo(json.dumps({"recipe": recipe, "errors": errors, "findings": entries}, indent=2))
    else:
        print_findings(findings)
        if not errors:
            click.echo(f"{recipe}: can be merged")
    if errors:
        raise SystemExit(1)

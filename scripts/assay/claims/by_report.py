"""Claims about how images behave, looked up in the last run's report."""

from __future__ import annotations

import re

from assay.claims.table import Context, Measured, NotMeasuredError
from assay.findings import Status


def toolkit_beside_torch(context: Context) -> Measured:
    """Look up whether torch imports beside a toolkit of another release, and whether the contract is what fails."""
    rows = [row for row in context.rows if row.id in ("cu120", "cu122")]
    if not rows:
        raise NotMeasuredError("no report with the rows cu120 and cu122")
    asked = ("torch.import", "toolkit.matches-torch")
    facts = {
        row.id: [one.check for one in row.findings if one.check in asked and one.status is Status.PASSED]
        for row in rows
    }
    imports, matches = ([name for name, passed in facts.items() if check in passed] for check in asked)
    return Measured(
        text=f"of {', '.join(facts)}: torch imports in {', '.join(imports) or 'none'}; "
        f"the toolkit is torch's own in {', '.join(matches) or 'none'}",
        supports=imports == list(facts) and not matches,
        data={"passed": facts},
    )


def flash_attn_compiler(context: Context) -> Measured:
    """Look up which compiler made the flash-attn of a row, and whether it imported."""
    unknown = None
    for row in context.rows:
        given = next((item for item in row.ingredients if item.get("name") == "flash-attn"), None)
        imported = any(one.check == "flash-attn.import" and one.status is Status.PASSED for one in row.findings)
        if given is None or not imported:
            continue
        if not given.get("compiler"):
            unknown = unknown or row.id
            continue
        return Measured(
            text=f"row {row.id}: flash-attn by {given['compiler']} imports beside its torch",
            supports=re.search(r"\bnvcc 12\.1(?!\d)", str(given["compiler"])) is None,
            data={"row": row.id, "compiler": given["compiler"]},
        )
    if unknown:
        return Measured(
            text=f"row {unknown}: flash-attn imports beside its torch; its wheel came ready-made, compiler unrecorded",
            supports=None,
            data={"row": unknown, "compiler": None},
        )
    raise NotMeasuredError("no report with a row whose flash-attn was imported")


def soak(context: Context) -> Measured:
    """Look up the soak test of a certified row."""
    for finding in context.findings("sample.soak"):
        return Measured(text=f"sample.soak: {finding.measured}", supports=finding.status is Status.PASSED)
    raise NotMeasuredError("no report in which sample.soak was asked")

"""The report as JUnit XML: one suite per row, one case per check, and one case for the row's expectation."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from assay.findings import Finding, Status
from assay.report.model import Report, RowReport

# XML 1.0 has no way to write these, escaped or not, and a check's evidence may hold them (terminal colours).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """Return the report as JUnit XML.

    A row's own case fails when the row is not as expected, and is an error when it is not so yet. The cases of its
    checks carry their findings; a check that failed in a row that is expected to be rejected for it is no test failure,
    so it is written as passed with the evidence in `system-out`.
    """
    root = Element("testsuites", name="assay", time=f"{report.seconds:.1f}")
    for row in report.rows:
        _suite(root, row)
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _suite(root: Element, row: RowReport) -> None:
    suite = SubElement(root, "testsuite", name=row.id, time=f"{row.build_seconds + row.check_seconds:.1f}")
    expected = SubElement(suite, "testcase", classname=row.id, name=f"row is as expected ({row.expect})")
    if not row.as_expected:
        # As the exit code has it: what another run could still bring out as expected is no failure of the matrix.
        kind = "failure" if row.complete else "error"
        SubElement(expected, kind, message=_clean(f"{row.verdict}: {row.why}"))
    wanted = {reason["check"] for reason in row.because} if row.as_expected else set()
    for finding in row.findings:
        _case(suite, row, finding, expected=finding.check in wanted)
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))


def _case(suite: Element, row: RowReport, finding: Finding, *, expected: bool) -> None:
    case = SubElement(suite, "testcase", classname=row.id, name=finding.check, time=f"{finding.seconds:.1f}")
    text = _clean(f"required: {finding.required}\nmeasured: {finding.measured}\n{finding.evidence}")
    if finding.status is Status.FAILED and not expected:
        SubElement(case, "failure", message=_clean(finding.measured)).text = text
    elif finding.status is Status.ERROR:
        SubElement(case, "error", message=_clean(finding.measured)).text = text
    elif finding.status in (Status.BLOCKED, Status.NOT_RUN):
        SubElement(case, "skipped", message=_clean(f"{finding.status.value}: {finding.measured}"))
    else:
        SubElement(case, "system-out").text = text


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)

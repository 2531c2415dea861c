"""What a run leaves for people and machines: report.json, report.html, junit.xml, and the table at the end."""

from assay.report.model import ImageRecord, Report, RowReport, read
from assay.report.write import write

__all__ = ["ImageRecord", "Report", "RowReport", "read", "write"]

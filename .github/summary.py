"""Print a report's rows as a Markdown table, for a workflow's step summary. Standard library only."""

import html
import json
import sys
from pathlib import Path

WIDTH = 500
"""Characters of a reason: GitHub shows no summary of more than 1 MiB, and a matrix may have 256 rows."""


def main(path: str) -> None:
    """Print the rows of the report at `path`; where there is none, say so."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        print("No row left a report: the steps above say why, and the logs of the rows' jobs.")
        return
    report = json.loads(text)
    print("| row | expected | verdict | as expected | level | root failures | why not as expected |")
    print("|---|---|---|---|---|---|---|")
    for row in report["rows"]:
        failures = ", ".join(f"`{check}`" for check in row["root_failures"])
        mark = "yes" if row["as_expected"] else "**NO**"
        level = row["level"] if row["findings"] else "none"
        why = "" if row["as_expected"] else cell(row["why"])
        print(f"| `{row['id']}` | {row['expect']} | {row['verdict']} | {mark} | {level} | {failures} | {why} |")


def cell(text: str) -> str:
    """Return a text as one cell shows it: on one line, not longer than is read, none of it taken for markup."""
    line = " ".join(text.split())
    shown = line if len(line) <= WIDTH else f"{line[:WIDTH]} ... (the report has all of it)"
    return html.escape(shown, quote=False).translate({ord(mark): f"&#{ord(mark)};" for mark in "|*_`[]"})


if __name__ == "__main__":
    main(sys.argv[1])

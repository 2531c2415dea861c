"""Print a report's rows as a Markdown table, for a workflow's step summary. Standard library only."""

import html
import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Print the rows of the report at `path`."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    print("| row | expected | verdict | as expected | level | root failures | why not as expected |")
    print("|---|---|---|---|---|---|---|")
    for row in report["rows"]:
        failures = ", ".join(f"`{check}`" for check in row["root_failures"])
        mark = "yes" if row["as_expected"] else "**NO**"
        level = row["level"] if row["findings"] else "none"
        why = "" if row["as_expected"] else cell(row["why"])
        print(f"| `{row['id']}` | {row['expect']} | {row['verdict']} | {mark} | {level} | {failures} | {why} |")


def cell(text: str) -> str:
    """Return a text as one cell shows it: on one line, none of it taken for markup."""
    return html.escape(" ".join(text.split()), quote=False).translate(
        {ord(mark): f"&#{ord(mark)};" for mark in "|*_`[]"}
    )


if __name__ == "__main__":
    main(sys.argv[1])

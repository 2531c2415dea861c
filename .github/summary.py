"""Print a report's rows as a Markdown table, for a workflow's step summary. Standard library only."""

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Print the rows of the report at `path`."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    print("| row | expected | verdict | as expected | level | root failures |")
    print("|---|---|---|---|---|---|")
    for row in report["rows"]:
        failures = ", ".join(f"`{check}`" for check in row["root_failures"])
        mark = "yes" if row["as_expected"] else "**NO**"
        print(f"| `{row['id']}` | {row['expect']} | {row['verdict']} | {mark} | {row['level']} | {failures} |")


if __name__ == "__main__":
    main(sys.argv[1])

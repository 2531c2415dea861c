"""`python -m assay.matrix > schema/matrix.schema.json` writes the JSON schema for editors."""

import sys

from assay.matrix.schema import schema_text

if __name__ == "__main__":
    sys.stdout.write(schema_text())

"""The matrix file: which combinations there are, and what is expected of each."""

from assay.matrix.file import Matrix, Publish, load
from assay.matrix.row import FlashAttn, Reason, Row
from assay.matrix.rules import PARTS
from assay.matrix.schema import json_schema

__all__ = ["PARTS", "FlashAttn", "Matrix", "Publish", "Reason", "Row", "json_schema", "load"]

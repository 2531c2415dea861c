"""Certificates: the record of a row's verdict, bound to the image, signed where there is a key."""

from assay.certificate import cache, store
from assay.certificate.cache import CacheInputs
from assay.certificate.evidence import GpuUsed, ImageIdentity, Ingredient, RowEvidence, row_json
from assay.certificate.record import Certificate, make_certificate

__all__ = [
    "CacheInputs",
    "Certificate",
    "GpuUsed",
    "ImageIdentity",
    "Ingredient",
    "RowEvidence",
    "cache",
    "make_certificate",
    "row_json",
    "store",
]

"""What every test here runs under."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# About what comes out, on a machine however busy: one that stands still for a moment fails no test.
settings.register_profile("assay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assay")

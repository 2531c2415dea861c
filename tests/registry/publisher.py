"""Publishes rows as the command does, without the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from assay import checks, releases
from assay.engine import Engine
from assay.findings import Level
from assay.keys import SigningKey
from assay.matrix.row import Row
from assay.oci import parse_reference
from assay.publish.flow import Published, Settings, publish
from assay.publish.gate import Policy, select
from assay.registry import Registry


@dataclass
class Publisher:
    """What stays the same between publications of a test. lines: everything that was told to people."""

    engine: Engine
    registry: Registry
    out: Path
    key: SigningKey | None
    repository: str = "newbie"
    lines: list[str] = field(default_factory=list)

    def __call__(
        self,
        *rows: Row,
        level: Level = Level.IMAGE,
        named: tuple[str, ...] = (),
        accept_unsigned: bool = False,
        backwards: bool = False,
    ) -> list[Published]:
        """Publish what may be published of `rows`."""
        policy = Policy(
            level=level,
            key=self.key.public if self.key else None,
            accept_unsigned=accept_unsigned,
            checks_digest=checks.digest(),
            releases_digest=releases.load().digest,
            required=checks.required,
            capability=lambda name: releases.load().gpu(name).capability,
        )
        chosen = select(
            rows,
            named=named,
            out=self.out,
            image_id=self.engine.image_id,
            policy=policy,
            on_line=self.lines.append,
        )
        settings = Settings(
            target=parse_reference(f"{self.registry.host}/{self.repository}"),
            prefix="exp0.1",
            key=self.key,
            out=self.out,
            backwards=backwards,
        )
        return publish(chosen, engine=self.engine, registry=self.registry, settings=settings, on_line=self.lines.append)

    def tags(self) -> list[str]:
        """Return every tag that the repository has."""
        return self.registry.tags(self.repository)


def publisher_to(engine: Engine, host: str, folder: Path, key: SigningKey | None) -> Publisher:
    """Return a publisher to a registry; it does not really pause between attempts."""
    registry = Registry(host, allow_http=True, sleep=lambda seconds: None)
    return Publisher(engine, registry, folder / "out", key)

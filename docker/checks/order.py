"""In which order checks run, and what becomes of a check whose needs did not pass. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .framework import Answer, Check, Expect


def problems(registry: Mapping[str, Check]) -> list[str]:
    """Return what is wrong with the needs: unknown ids, circles, an image-level check that needs a GPU-level one."""
    found = []
    for check in registry.values():
        for need in check.every_need:
            if need not in registry:
                found.append(f"check {check.id!r} needs {need!r}, which no family defines")
            elif need in check.needs and check.level == "image" and registry[need].level == "gpu":
                found.append(f"check {check.id!r} of level 'image' needs {need!r} of level 'gpu'")
    if not found:
        try:
            in_order(registry.values())
        except ValueError as error:
            found.append(str(error))
    return found


def in_order(checks: Iterable[Check]) -> list[Check]:
    """Return the checks so that each comes after its needs, otherwise as they are listed.

    A need that is not among `checks` is left out. Raises ValueError for a cycle, naming it.
    """
    by_id = {check.id: check for check in checks}
    ordered: dict[str, Check] = {}

    def add(check: Check, path: tuple[str, ...]) -> None:
        if check.id in path:
            raise ValueError("checks need each other in a circle: " + " -> ".join((*path, check.id)))
        if check.id in ordered:
            return
        for need in check.every_need:
            if need in by_id:
                add(by_id[need], (*path, check.id))
        ordered[check.id] = check

    for check in by_id.values():
        add(check, ())
    return list(ordered.values())


def selected(registry: Mapping[str, Check], expect: Expect, level: str) -> list[Check]:
    """Return the checks that belong to this row at this level, each after its needs."""
    levels = ("image", "gpu") if level == "gpu" else ("image",)
    return in_order(
        check
        for check in registry.values()
        if check.level in levels and (check.applies is None or check.applies(expect))
    )


def without_asking(check: Check, answers: Mapping[str, Answer]) -> Answer | None:
    """Return the answer of a check that cannot be asked because of its needs, or None when it can be.

    A failed or blocked need makes it `blocked`: a consequence. A need without an answer of its own (`error`,
    `not-run`) makes it `not-run`: nothing is known. A need that does not belong to the row is no obstacle.
    """
    needed = [(need, answers[need]) for need in check.every_need if need in answers]
    for status, needed_statuses in (
        ("blocked", ("failed", "blocked")),
        ("not-run", ("error", "not-run")),
    ):
        for need, answer in needed:
            if answer.status in needed_statuses:
                # A need that was blocked says already which one failed.
                root = answer.measured if answer.status == "blocked" else f"{answer.status}: {answer.measured}"
                return Answer(status, measured=f"needs {need}, {root}")
    return None

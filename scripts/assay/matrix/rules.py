"""What a row must mean beyond its shape: names that exist, values that go together, an expectation that can come true.

It judges only what no check could: a row whose releases do not fit together is no mistake of the file, it is what the
checks are for. `assay.matrix.buildable` has the rules about what no engine could build.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from assay.errors import MatrixError
from assay.matrix import buildable, own
from assay.matrix.draft import Draft
from assay.matrix.locate import TomlPath
from assay.matrix.rule import Context, Problem, Rule
from assay.matrix.schema import HINTS, ID, RowFields, is_id
from assay.redact import has_userinfo
from assay.suggest import perhaps

# The parts of an image whose building can fail, in the order in which they are stacked.
PARTS = ("base", "python", "torch", "flash-attn", "runtime", "requirements", "toolkit", "files", "own")

# Packages whose libraries have to be loadable, as `docker/checks/libraries.py` has them.
NEVER_OPTIONAL = frozenset({"torch", "functorch", "flash_attn", "flash_attn_2_cuda", "nvidia", "triton"})

# Reasons that can never come true: (check id or prefix ending in ".", when, why).
IMPOSSIBLE: tuple[tuple[str, Callable[[RowFields], bool], str], ...] = (
    ("sample.", lambda row: row.runtime == "none", 'runtime = "none" leaves out what draws the sample'),
    ("flash-attn.", lambda row: row.flash_attn.source == "none", 'flash-attn.source = "none" leaves it out'),
    (
        "build.flash-attn",
        lambda row: row.flash_attn.source in ("none", "base"),
        "nothing of flash-attn is built with that flash-attn.source",
    ),
    ("build.torch", lambda row: row.torch == "base", 'torch = "base": nothing of it is built'),
    ("build.toolkit", lambda row: row.toolkit == "none", 'toolkit = "none": nothing of it is built'),
    ("build.runtime", lambda row: row.runtime == "none", 'runtime = "none": nothing of it is built'),
    ("build.files", lambda row: not row.files, "the row lays no files over the image"),
    ("build.requirements", lambda row: not row.requirements, "the row has no requirements"),
    ("build.own", lambda row: not row.dockerfile, "the row has no dockerfile"),
)


def problems(draft: Draft, context: Context) -> Iterator[tuple[TomlPath, str]]:
    """Yield everything that is wrong with a row, with the place in the file that says it."""
    if draft.path in context.broken:
        return
    row = draft.fields()
    for rule in RULES:
        for keys, message in rule(draft, row, context):
            yield draft.where(*keys), message


def _names(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """CUDA release, torch build, GPUs and compiler are in the tables."""
    releases = context.releases
    lookups: list[tuple[tuple[str | int, ...], Callable[[str], object], str]] = [(("cuda",), releases.cuda, row.cuda)]
    if row.torch != "base":
        lookups.append((("torch",), releases.torch, row.torch))
    if row.flash_attn.source in ("auto", "compile"):
        lookups.append((("flash-attn", "nvcc"), releases.compiler, row.flash_attn.nvcc))
    lookups += [(("gpus", index), releases.gpu, name) for index, name in enumerate(row.gpus)]
    for keys, look_up, name in lookups:
        try:
            look_up(name)
        except MatrixError as error:
            yield keys, str(error)


def _id(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """Templates may make ids that a folder or a tag cannot have."""
    if not is_id(draft.id):
        yield ("id",), f"the id cannot be {draft.id!r}: {HINTS[ID]}"


def _toolkit(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """There is a toolkit where one is used, and packages where it comes from wheels."""
    if row.library_path == "toolkit" and row.toolkit == "none":
        yield ("library-path",), 'library-path = "toolkit" needs a toolkit, and toolkit is "none"'
    release = context.cuda(row)
    if row.toolkit == "wheels" and release is not None and not release.packages:
        yield ("toolkit",), f"releases/cuda.toml names no packages for CUDA {release.name}; toolkit cannot be 'wheels'"


def _flash_attn(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """A release wheel is named by address and hash together."""
    wheel = row.flash_attn
    if any({"url", "sha256"} & set(path) for path in context.broken):
        return  # one that the schema refused is not missing
    if (wheel.url is None) != (wheel.sha256 is None):
        absent = "sha256" if wheel.sha256 is None else "url"
        yield ("flash-attn",), f"flash-attn.{absent} is missing: a wheel is named by its url and its sha256 together"
    elif wheel.url is not None and has_userinfo(wheel.url):
        yield (
            ("flash-attn", "url"),
            "flash-attn.url holds a user, password or token, and certificates would publish it: leave it out of the "
            "address and put it into ~/.netrc, or fetch the wheel into a --wheelhouse",
        )
    elif wheel.source == "release" and wheel.url is None:
        yield ("flash-attn", "source"), 'flash-attn.source = "release" needs flash-attn.url and flash-attn.sha256'


def _files(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """Files to lay over the image lie beside the matrix file."""
    for target, source in row.files.items():
        if why := own.beside(source, context.folder):
            yield ("files", target), why


def _optional_libraries(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """What `libraries.resolved` never lets be unloadable is not called optional in vain."""
    for index, place in enumerate(row.optional_libraries):
        package = place.partition("/")[0]
        if package in NEVER_OPTIONAL:
            yield (
                ("optional-libraries", index),
                f"{place!r} is of {package}, of which every library has to be loadable: leave it out",
            )


def _expectation(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """A row says what is expected; only a rejection has reasons, and it has at least one."""
    if context.refused(draft, "expect", "because"):
        return
    if row.expect is None:
        yield (), 'it does not say what is expected; add expect = "certify", or "reject" with \'because\''
    elif row.expect == "certify" and row.because:
        yield ("because",), 'a row with expect = "certify" has no \'because\'; did you mean expect = "reject"?'
    elif row.expect == "reject" and not row.because:
        yield ("expect",), "expect = \"reject\" needs 'because': the checks that must fail, with their evidence"


def _reasons(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """Each reason names an existing check that this row can fail, with an expression that can fail to match."""
    seen: set[str] = set()
    for index, reason in enumerate(row.because):
        where = ("because", index)
        yield from (((*where, "check"), message) for message in _check_id(reason.check, context.known_checks))
        yield from (((*where, "matches"), message) for message in _expression(reason.matches))
        for prefix, applies, why in IMPOSSIBLE:
            named = reason.check.startswith(prefix) if prefix.endswith(".") else reason.check == prefix
            if named and applies(row):
                yield (*where, "check"), f"{reason.check!r} can never fail in this row: {why}"
        if reason.check in seen:
            yield (*where, "check"), f"{reason.check!r} is named twice; one expression must match its evidence"
        seen.add(reason.check)
    builds = [reason.check for reason in row.because if reason.check.startswith("build.")]
    if builds and len(row.because) > 1:
        yield (
            ("because",),
            f"{builds[0]!r} cannot come with another reason: a build stops where it fails, and leaves nothing to check",
        )


def _check_id(check: str, known_checks: Collection[str] | None) -> Iterator[str]:
    builds = [f"build.{part}" for part in PARTS]
    if check in builds:
        return
    if known_checks is None:
        if check.startswith("build.") or "." not in check:
            yield f"unknown check {check!r}; {perhaps(check, builds)}"
    elif check not in known_checks:
        yield f"unknown check {check!r}; {perhaps(check, [*known_checks, *builds])}"


def _expression(pattern: str) -> Iterator[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        yield f"{pattern!r} is not a regular expression: {error}"
        return
    if compiled.search(""):
        yield f"{pattern!r} matches anything; give text that only the true cause prints"


RULES: tuple[Rule, ...] = (
    _id,
    _names,
    _toolkit,
    _flash_attn,
    _files,
    _optional_libraries,
    own.packages,
    own.instructions,
    *buildable.RULES,
    _expectation,
    _reasons,
)


OUTPUT_NAMES = frozenset({"report.json", "report.html", "junit.xml", "claims.json", "check"})
"""What a run writes beside the rows' folders, and the folder in which `assay check` writes."""


def together(rows: Collection[Draft]) -> Iterator[tuple[TomlPath, str]]:
    """Yield what is wrong between rows: an id that is taken, a moving tag that two certified rows would fight over."""
    ids: dict[str, Draft] = {}
    tags: dict[str, Draft] = {}
    for draft in rows:
        if draft.id in ids:
            yield draft.where("id"), f"the id {draft.id!r} is taken by another row; ids name folders and must differ"
        elif draft.id in OUTPUT_NAMES:
            yield draft.where("id"), f"the id {draft.id!r} is taken by what assay writes; ids name folders beside it"
        ids.setdefault(draft.id, draft)
        if draft.values.get("expect") == "certify":
            for tag in dict.fromkeys(draft.values.get("tags", ())):
                if tag in tags and tags[tag].id != draft.id:
                    yield draft.where("tags"), f"the tag {tag!r} follows row {tags[tag].id!r} already"
                tags.setdefault(tag, draft)

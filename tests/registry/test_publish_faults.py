"""A registry that fails in the middle: survived where it recovers, and nothing left where it does not."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import publish_samples as samples
import pytest
from publisher import Publisher
from servers import HTPASSWD, PASSWORD, USER, Fault, Proxy, docker_registry

from assay import keys
from assay import registry as registries
from assay.engine import Engine
from assay.errors import AssayError, RegistryError
from assay.registry import Registry

FULL_TAG = "exp0.1-cu12.1.105-torch2.4.0-fa2.8.3-py311"


def ready(publisher: Publisher, image: Callable[..., str]) -> str:
    image_id = image()
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image_id), publisher.key)
    return image_id


def tags(host: str) -> list[str]:
    """Return the registry's tags, asked past the proxy."""
    return Registry(host, allow_http=True).tags("newbie")


def assert_published(host: str, digest: str | None) -> None:
    assert digest
    stem = digest.replace(":", "-")
    assert tags(host) == sorted([FULL_TAG, "latest", stem, f"{stem}.att", f"{stem}.sig"])


def after_the_push(rule: Callable[[str, str], Fault | None]) -> Callable[[str, str], Fault | None]:
    """Return a rule that begins when the engine has done its part: what follows are assay's own requests."""
    pushed: list[str] = []

    def begin(method: str, path: str) -> Fault | None:
        if pushed:
            return rule(method, path)
        if method == "PUT" and "/manifests/candidate-" in path:
            pushed.append(path)
        return None

    return begin


def attempt(publisher: Publisher) -> AssayError | None:
    """Publish, and return what went wrong."""
    try:
        publisher(samples.row())
    except AssayError as error:
        return error
    return None


@pytest.mark.parametrize("after", [False, True], ids=["refused", "answer-lost"])
def test_every_third_request_fails_once(
    behind_proxy: Publisher, proxy: Proxy, host: str, image: Callable[..., str], after: bool
) -> None:
    ready(behind_proxy, image)
    count = itertools.count(1)
    proxy.rule = after_the_push(lambda method, path: Fault(503, after) if next(count) % 3 == 0 else None)
    (done,) = behind_proxy(samples.row())
    assert next(count) > 30
    assert_published(host, done.reference.digest)


def test_the_engine_pushes_again_after_a_broken_manifest(
    behind_proxy: Publisher, proxy: Proxy, host: str, image: Callable[..., str]
) -> None:
    """With its classic store it gives up at once, and is asked again; with containerd's it tries again by itself."""
    ready(behind_proxy, image)
    failures = iter([Fault(500)])

    def of_the_push(method: str, path: str) -> bool:
        return method == "PUT" and "/manifests/candidate-" in path

    proxy.rule = lambda method, path: next(failures, None) if of_the_push(method, path) else None
    (done,) = behind_proxy(samples.row())
    assert next(failures, None) is None
    assert sum(of_the_push(*request) for request in proxy.seen) >= 2
    assert_published(host, done.reference.digest)


BREAKING = {
    "engine's layers": r"PUT /v2/newbie/blobs/uploads/",
    "engine's manifest": r"PUT /v2/newbie/manifests/candidate-",
    "reading the push back": r"GET /v2/newbie/manifests/sha256:",
    "artifact manifests": r"PUT /v2/newbie/manifests/sha256:",
    "referrers tag": r"PUT /v2/newbie/manifests/sha256-[0-9a-f]{64}$",
    "cosign attestations": r"PUT /v2/newbie/manifests/sha256-[0-9a-f]{64}\.att$",
    "cosign signatures": r"PUT /v2/newbie/manifests/sha256-[0-9a-f]{64}\.sig$",
    "full tag": r"PUT /v2/newbie/manifests/exp0\.1-",
    "moving tag": r"PUT /v2/newbie/manifests/latest$",
    "reading a tag back": r"GET /v2/newbie/manifests/latest$",
}


@pytest.mark.parametrize("where", BREAKING)
def test_a_lasting_500_leaves_no_tag_and_the_next_run_publishes(
    behind_proxy: Publisher, proxy: Proxy, host: str, image: Callable[..., str], where: str
) -> None:
    ready(behind_proxy, image)
    pattern = re.compile(BREAKING[where])
    proxy.rule = lambda method, path: Fault(500) if pattern.match(f"{method} {path}") else None
    with pytest.raises(RegistryError, match="500"):
        behind_proxy(samples.row())
    assert tags(host) == []
    proxy.rule = None
    (done,) = behind_proxy(samples.row())
    assert_published(host, done.reference.digest)


@pytest.mark.parametrize(
    "where", ["artifact manifests", "referrers tag", "cosign signatures", "full tag", "moving tag"]
)
def test_answers_that_are_always_lost_do_not_matter(
    behind_proxy: Publisher, proxy: Proxy, host: str, image: Callable[..., str], where: str
) -> None:
    ready(behind_proxy, image)
    pattern = re.compile(BREAKING[where])
    proxy.rule = lambda method, path: Fault(500, after=True) if pattern.match(f"{method} {path}") else None
    (done,) = behind_proxy(samples.row())
    assert_published(host, done.reference.digest)


@pytest.mark.parametrize("answered", range(0, 81, 8))
def test_a_registry_that_dies_and_comes_back(
    behind_proxy: Publisher, proxy: Proxy, host: str, image: Callable[..., str], answered: int
) -> None:
    """Dead at any moment, nothing can be taken back: what is left is named, and the next run clears it."""
    ready(behind_proxy, image)
    count = itertools.count()
    proxy.rule = after_the_push(lambda method, path: Fault(502) if next(count) >= answered else None)
    error = attempt(behind_proxy)
    left = [tag for tag in tags(host) if error]
    assert all(tag in str(error) for tag in left), (left, error)
    proxy.rule = None
    (done,) = behind_proxy(samples.row())
    assert_published(host, done.reference.digest)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "docker login"), (403, "may not write to"), (413, "client_max_body_size")],
)
def test_refusals_come_in_clear_words_and_are_not_repeated(
    behind_proxy: Publisher, proxy: Proxy, host: str, image: Callable[..., str], status: int, words: str
) -> None:
    ready(behind_proxy, image)
    pattern = re.compile(r"PUT /v2/newbie/manifests/sha256:")
    proxy.rule = lambda method, path: Fault(status) if pattern.match(f"{method} {path}") else None
    with pytest.raises(RegistryError, match=words):
        behind_proxy(samples.row())
    assert len([one for one in proxy.seen if pattern.match(" ".join(one))]) <= 2
    assert tags(host) == []


def test_a_registry_without_deleting_keeps_only_names_of_nothing(
    behind_proxy: Publisher, proxy: Proxy, image: Callable[..., str]
) -> None:
    ready(behind_proxy, image)
    proxy.rule = lambda method, path: Fault(405) if method == "DELETE" else None
    (done,) = behind_proxy(samples.row())
    (left,) = [tag for tag in behind_proxy.tags() if tag.startswith("candidate-")]
    held = behind_proxy.registry.manifest("newbie", left)
    assert held
    assert held.json["artifactType"] == "application/vnd.assay.removed"
    assert held.digest != done.reference.digest
    assert any("allows no deleting" in line for line in behind_proxy.lines)


def test_retries_pause_longer_each_time(host: str, proxy: Proxy) -> None:
    pauses: list[float] = []
    proxy.rule = lambda method, path: Fault(503)
    patient = registries.Registry(proxy.host, allow_http=True, sleep=pauses.append)
    with pytest.raises(RegistryError, match="503"):
        patient.manifest("newbie", "latest")
    assert len(pauses) == 4
    assert all(later > earlier * 1.5 for earlier, later in itertools.pairwise(pauses))


def test_a_registry_that_asks_for_a_password(
    tmp_path: Path, engine: Engine, image: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine and assay both use what `docker login` left, or say what is missing."""
    with docker_registry(tmp_path, htpasswd=HTPASSWD) as host:
        for user, accepted in ((USER, True), ("nobody", False), (None, False)):
            auth = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
            config = {"auths": {host: {"auth": auth}} if user else {}}
            (tmp_path / "config.json").write_text(json.dumps(config))
            monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
            registry = Registry(host, allow_http=True, sleep=lambda _: None)
            publisher = Publisher(Engine.connect(start=False), registry, tmp_path / "out", keys.generate())
            ready(publisher, image)
            if accepted:
                publisher(samples.row())
                assert FULL_TAG in publisher.tags()
            else:
                with pytest.raises(RegistryError, match="docker login"):
                    publisher(samples.row())

"""Passwords of the machine do not get into what is written down."""

from __future__ import annotations

from typing import Any

import pytest
from docker.api import APIClient
from docker.utils.proxy import ProxyConfig

from assay.apt import AptSource
from assay.engine import containers
from assay.network import NetworkSettings
from assay.redact import has_userinfo, secrets_of, without_passwords

SETTINGS = NetworkSettings(
    index="https://alice:ind%40x-word@index.invalid/simple",
    extra_indexes=("https://tok3n-of-a-robot@extra.invalid/simple",),
    apt_sources=(AptSource(uri="http://carol:apt-word@mirror.invalid/debian", suite="bookworm", components=("main",)),),
    apt_proxies={"http": "http://dave:apt-proxy@proxy.invalid:3128"},
    proxies={"https_proxy": "bob:s3cr@et-word@proxy.invalid:3128", "no_proxy": "localhost,host.invalid"},
)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("fetching https://bob:s3cret@host.invalid/x", "fetching https://****@host.invalid/x"),
        ("'HTTP://bob@host.invalid'", "'HTTP://****@host.invalid'"),
        ("socks5h://u:p@ss@host.invalid:1 and http://t@b.invalid", "socks5h://****@host.invalid:1 and http://****@b.invalid"),
        ("https://host.invalid/a@b", "https://host.invalid/a@b"),
        ("https://host.invalid?mail=a@b", "https://host.invalid?mail=a@b"),
        ("git@host.invalid:x.git, a@b", "git@host.invalid:x.git, a@b"),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_their_users(said: str, shown: str) -> None:
    assert without_passwords(said) == shown


@pytest.mark.parametrize(
    "secret",
    [
        "alice:ind%40x-word", "alice:ind@x-word", "ind@x-word", "tok3n-of-a-robot", "carol:apt-word", "dave:apt-proxy",
        "bob:s3cr@et-word", "s3cr@et-word",
    ],
)  # fmt: skip
def test_this_machines_passwords_are_masked_wherever_they_stand(secret: str) -> None:
    assert SETTINGS.masked(f"curl: <{secret}>, refused") == "curl: <****>, refused"


def test_a_short_password_by_itself_could_be_any_word() -> None:
    found = secrets_of(["http://bob:torch@host.invalid", "http://[unfinished"])
    assert without_passwords("import torch as bob:torch", found) == "import torch as ****"
    # Nor does a short pair change words that happen to hold it.
    assert without_passwords("volume:xfs at http://me:x@host.invalid", secrets_of(["http://me:x@host.invalid"])) == (
        "volume:xfs at http://****@host.invalid"
    )


def test_settings_without_passwords_change_no_line() -> None:
    plain = NetworkSettings(index="https://index.invalid/simple", proxies={"http_proxy": "proxy.invalid:3128"})
    assert plain.secrets == frozenset()
    assert plain.masked("any line, a@b") == "any line, a@b"


def test_an_address_with_a_user_is_known() -> None:
    assert has_userinfo("https://token@host.invalid/x.whl")
    assert not has_userinfo("https://host.invalid/x@y.whl")


def test_the_image_under_test_does_not_see_the_proxies_of_docker_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    api = APIClient(base_url="unix:///nowhere.sock", version="1.41")
    api._proxy_configs = ProxyConfig(https="http://bob:s3cret@proxy.invalid")
    created: list[dict[str, Any]] = []

    def create(config: dict[str, Any], *_: object) -> dict[str, str]:
        created.append(config)
        return {"Id": "42"}

    monkeypatch.setattr(api, "create_container_from_config", create)
    monkeypatch.setattr(containers, "remove", lambda *_: None)
    with containers._container(api, "image", ["true"], {"environment": {"A": "b"}}, working_dir=None, user=None):
        pass
    assert [config["Env"] for config in created] == [["A=b"]]

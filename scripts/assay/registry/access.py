"""How a registry lets us in: the credentials of `docker login`, and the tokens that they are exchanged for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import requests
from docker import auth as docker_auth
from docker.errors import DockerException
from requests.auth import AuthBase, HTTPBasicAuth

from assay.errors import RegistryError


@dataclass(frozen=True)
class Credentials:
    """What `docker login` left for a registry: name and password, or an identity token."""

    username: str = ""
    password: str = ""
    identity_token: str = ""


def docker_credentials(host: str) -> Credentials | None:
    """Return what the Docker configuration has for a registry, asking the credential helper that it names.

    Raises RegistryError when the helper fails.
    """
    try:
        found = docker_auth.load_config().resolve_authconfig(host)
    except DockerException as error:
        raise RegistryError(f"the Docker credential helper for {host} failed: {error}") from error
    if not found:
        return None
    fields = {key.lower(): value or "" for key, value in found.items()}
    return Credentials(fields.get("username", ""), fields.get("password", ""), fields.get("identitytoken", ""))


class Header(AuthBase):
    """Sets one Authorization header, or none; either way requests does not send what stands in ~/.netrc."""

    def __init__(self, value: str | None) -> None:
        self.value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the header into a request that is about to be sent."""
        if self.value:
            request.headers["Authorization"] = self.value
        return request


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for when it answers 401. scheme: `basic`, `bearer`, or anything else that it made up."""

    scheme: str
    realm: str
    service: str
    scope: str

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """Read a WWW-Authenticate header."""
        scheme, _, rest = header.strip().partition(" ")
        parts = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        return cls(scheme.lower(), parts.get("realm", ""), parts.get("service", ""), parts.get("scope", ""))


def token_request(challenge: Challenge, scope: str, credentials: Credentials | None) -> requests.Request:
    """Return the request that exchanges credentials, or nothing, for a token of one scope.

    The registry's own idea of the scope wins over ours: it knows what it is about to refuse.
    """
    asked: Mapping[str, str] = {"service": challenge.service, "scope": challenge.scope or scope}
    if credentials and credentials.identity_token:
        grant = {"grant_type": "refresh_token", "client_id": "assay", "refresh_token": credentials.identity_token}
        return requests.Request("POST", challenge.realm, data={**asked, **grant}, auth=Header(None))
    who = HTTPBasicAuth(credentials.username, credentials.password) if credentials else Header(None)
    return requests.Request("GET", challenge.realm, params=asked, auth=who)


def basic_header(credentials: Credentials) -> str:
    """Return the Authorization header for a name and password."""
    prepared = requests.Request("GET", "https://x").prepare()
    HTTPBasicAuth(credentials.username, credentials.password)(prepared)
    return prepared.headers["Authorization"]

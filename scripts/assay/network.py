"""What this machine needs to reach the package indexes, handed to build steps without leaving a trace in an image.

`NetworkSettings.from_host()` reads the CA bundle, pip's and uv's index settings, apt's sources and the proxies of this
machine. `write()` puts them into a build context's `network/` folder, which build steps mount at `/run/network`; there
`run.sh COMMAND...` runs a command with them. Nothing of the folder is copied into a layer. Addresses of proxies and
indexes may hold passwords: the folder is for its owner alone, and `masked()` keeps them out of logs and records.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from assay.apt import AptSource, read_sources
from assay.errors import IngredientError
from assay.index_settings import pip_settings, uv_settings
from assay.redact import secrets_of, without_passwords

MOUNT = "/run/network"
"""Where build steps find the folder."""

SYSTEM_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

# Environment variables and pip settings that name a CA bundle, the most specific first.
_CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")

# A Debian suite that a build step may need on a machine that runs another one: compilers come from these.
_SUITES = ("bookworm", "trixie")

_RUN = """\
#!/bin/sh
# Runs a command with the network settings of the machine that builds: `sh run.sh COMMAND...`.
# Written by assay for this machine, mounted into build steps, in no layer.
here=$(dirname "$0")
{exports}
if [ -z "$APT_CONFIG" ] && [ -r /etc/os-release ]; then
    conf="$here/apt/$(. /etc/os-release && echo "$VERSION_CODENAME").conf"
    if [ ! -f "$conf" ]; then conf="$here/apt/other.conf"; fi
    APT_CONFIG=$conf; export APT_CONFIG
fi
exec "$@"
"""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """How this machine reaches the package indexes.

    ca_bundle: PEM bundle to trust, or None to trust what the image itself trusts.
    index: the Python package index that replaces the default one; extra_indexes: those asked besides.
    find_links: pages with links to packages. Folders of this machine are left out here and everywhere else.
    insecure_hosts: hosts whose certificate is not verified, as pip's `trusted-host` names them.
    apt_sources: the machine's Debian entries; empty on other systems.
    apt_proxies: apt's own proxy settings, `http` or `https` to URL.
    proxies: `http_proxy` and its kin, in lower case.
    """

    ca_bundle: Path | None = None
    index: str | None = None
    extra_indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    insecure_hosts: tuple[str, ...] = ()
    apt_sources: tuple[AptSource, ...] = ()
    apt_proxies: Mapping[str, str] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_host(cls, *, environment: Mapping[str, str] | None = None, root: Path = Path("/")) -> NetworkSettings:
        """Read the settings of this machine.

        environment: instead of the process's own; root: where `/etc` is looked for, for tests.
        Raises IngredientError when a settings file cannot be read, or names a CA bundle that is not there.
        """
        env = os.environ if environment is None else environment
        pip = pip_settings(env, root)
        uv = uv_settings(env, root)
        index = _remote([uv.get("index", ""), pip.get("index-url", "")])
        extra = [*uv.get("extra", "").split(), *pip.get("extra-index-url", "").split()]
        links = [*uv.get("find-links", "").split(), *pip.get("find-links", "").split()]
        return cls(
            ca_bundle=_ca_bundle(env, pip, root),
            index=index[0] if index else None,
            extra_indexes=_remote(extra),
            find_links=_remote(links),
            insecure_hosts=_unique([*uv.get("insecure", "").split(), *pip.get("trusted-host", "").split()]),
            apt_sources=read_sources(root / "etc/apt"),
            apt_proxies=_apt_proxies() if root == Path("/") else {},
            proxies={name: value for name in _PROXY_VARIABLES if (value := env.get(name) or env.get(name.upper()))},
        )

    @property
    def build_args(self) -> dict[str, str]:
        """Proxies as build arguments: Docker predefines these names and keeps them out of an image's history."""
        return {name: value for key, value in self.proxies.items() for name in (key, key.upper())}

    @cached_property
    def secrets(self) -> frozenset[str]:
        """What of these settings must not be shown: the users and passwords in their addresses."""
        sources = [source.uri for source in self.apt_sources]
        addresses = [
            *self.extra_indexes,
            *self.find_links,
            *self.proxies.values(),
            *self.apt_proxies.values(),
            *sources,
        ]
        return secrets_of([self.index or "", *addresses])

    def masked(self, text: str) -> str:
        """Return a text, such as a line that a build step printed, without this machine's passwords."""
        return without_passwords(text, self.secrets)

    def environment(self) -> dict[str, str]:
        """Return the variables that `run.sh` sets for the command that it runs."""
        variables = self.build_args
        if self.ca_bundle:
            bundle = f"{MOUNT}/ca.crt"
            variables |= dict.fromkeys((*_CA_VARIABLES, "GIT_SSL_CAINFO"), bundle)
        variables |= self.index_variables()
        if self.extra_indexes:
            # pip takes the best version over all indexes; uv stops at the first that knows the name unless told.
            variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        return dict(sorted(variables.items()))

    def index_variables(self) -> dict[str, str]:
        """Return the package indexes as pip and uv read them from the environment."""
        variables: dict[str, str] = {}
        if self.index:
            variables |= {"PIP_INDEX_URL": self.index, "UV_DEFAULT_INDEX": self.index}
        if self.extra_indexes:
            joined = " ".join(self.extra_indexes)
            variables |= {"PIP_EXTRA_INDEX_URL": joined, "UV_INDEX": joined}
        if self.find_links:
            variables["PIP_FIND_LINKS"] = " ".join(self.find_links)
            variables["UV_FIND_LINKS"] = ",".join(self.find_links)  # the one list that uv parts at commas
        if self.insecure_hosts:
            variables["PIP_TRUSTED_HOST"] = " ".join(self.insecure_hosts)
            variables["UV_INSECURE_HOST"] = " ".join(self.insecure_hosts)
        return variables

    def debian_sources(self, suite: str, components: Iterable[str] = ("main",)) -> str:
        """Return one-line apt entries for a Debian suite and its security updates, from the mirrors of this machine.

        Empty when this machine has no Debian entries.
        """
        lines = [source.for_suite(suite, tuple(components)) for source in self.apt_sources]
        return "".join(f"{line}\n" for line in _unique(line for line in lines if line))

    def write(self, folder: Path) -> None:
        """Write the `network/` folder of a build context.

        It holds `run.sh`, `ca.crt` where there is a bundle, and `apt/<suite>.conf` and `.list` for Debian suites,
        `apt/other.conf` for other systems: `run.sh` picks the one of the image that it runs in, unless APT_CONFIG names
        another.

        Only the owner may read it, on this machine. Build steps read it as root, whoever sends it to the engine.
        """
        apt = folder / "apt"
        for place in (folder, apt):
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o700)
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self.environment().items())
        _write_private(folder / "run.sh", _RUN.format(exports=exports))
        if self.ca_bundle:
            _write_private(folder / "ca.crt", self.ca_bundle.read_bytes())
        for suite in _SUITES:
            if text := self.debian_sources(suite, ("main", "contrib", "non-free")):
                _write_private(apt / f"{suite}.list", text)
                _write_private(apt / f"{suite}.conf", self._apt_conf(suite))
        _write_private(apt / "other.conf", self._apt_conf(None))

    def _apt_conf(self, suite: str | None) -> str:
        """Return apt's settings for a suite: our sources instead of the image's own, the CA bundle, the proxies.

        suite: None for a distribution that this machine has no sources for; then the image's own serve.
        """
        lines = []
        if suite:
            lines += [f'Dir::Etc::SourceList "{MOUNT}/apt/{suite}.list";', 'Dir::Etc::SourceParts "-";']
        if self.ca_bundle:
            # apt downloads as a user of its own, who may not read this folder where plain Docker sends it as it is.
            lines += [f'Acquire::https::CAInfo "{MOUNT}/ca.crt";', 'APT::Sandbox::User "root";']
        lines += [f'Acquire::{scheme}::Proxy "{url}";' for scheme, url in sorted(self.apt_proxies.items())]
        return "\n".join(lines) + "\n"


def _write_private(path: Path, content: str | bytes) -> None:
    """Write a file that nobody else could read at any moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    """Return the values without repetition, in their order."""
    return tuple(dict.fromkeys(values))


def _remote(values: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses that mean something inside a build step: folders of this machine do not."""
    return _unique(value for value in values if value.startswith(("http://", "https://")))


def _ca_bundle(env: Mapping[str, str], pip: Mapping[str, str], root: Path) -> Path | None:
    """Return the bundle that this machine's own tools trust: named by the environment or pip, else the system's."""
    named = next((env[name] for name in _CA_VARIABLES if env.get(name)), None) or pip.get("cert")
    if named:
        path = Path(named)
        if not path.is_file():
            raise IngredientError(
                f"the CA bundle {named} does not exist; it is named by one of {', '.join(_CA_VARIABLES)} "
                "or by pip's `cert` setting: correct that, or unset it"
            )
        return path
    system = root / SYSTEM_CA_BUNDLE.relative_to("/")
    return system if system.is_file() else None


def _apt_proxies() -> dict[str, str]:
    """Return apt's own proxies, as `apt-config` prints them; none where there is no apt."""
    try:
        answer = subprocess.run(
            ["apt-config", "shell", "http", "Acquire::http::Proxy", "https", "Acquire::https::Proxy"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return {}
    pairs = (word.partition("=") for word in shlex.split(answer.stdout))
    return {name: value for name, _, value in pairs if value and value != "DIRECT"}

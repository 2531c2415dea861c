"""One request to a registry: let in, sent again where that may help, and failing in words that say what to do."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests

from assay.errors import RegistryError
from assay.registry.access import (
    Challenge,
    Credentials,
    Header,
    basic_header,
    docker_credentials,
    token_request,
)

ATTEMPTS = 5
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; doubled for each further one, with up to a quarter of jitter."""
LONGEST_PAUSE = 30.0
TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and between two bytes of an answer."""
CERTIFICATES = Path("/etc/docker/certs.d")
"""Where the engine finds the authorities that it trusts for a registry: HOST/ca.crt."""
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another attempt may turn into an answer."""


class AnswerError(RegistryError):
    """The registry answered with an error status, kept in `status`."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


_SILENCE_ADVICE = "see whether it runs and this machine reaches it (name, port, proxy), then run this again"


class Transport:
    """A registry's HTTP side, with what it has let us do so far."""

    def __init__(
        self,
        host: str,
        *,
        allow_http: bool = False,
        credentials: Callable[[str], Credentials | None] = docker_credentials,
        sleep: Callable[[float], None] = time.sleep,
        on_retry: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Prepare; nothing is sent yet.

        allow_http: plain HTTP will do where the registry speaks no TLS.
        on_retry: gets a line for people whenever something is asked for again.
        """
        self.host = host
        self._allow_http = allow_http
        self._find_credentials = credentials
        self._sleep = sleep
        self._on_retry = on_retry
        self._authorization: dict[str, str] = {}
        self._found_base: str | None = None
        self._session = requests.Session()
        ca = CERTIFICATES / host / "ca.crt"
        # Given with each request: requests lets REQUESTS_CA_BUNDLE win over what a session is set to.
        self._verify: str | bool = str(ca) if ca.is_file() else True

    @property
    def base(self) -> str:
        """`https://HOST`, or `http://HOST` where that is allowed and TLS is not spoken there."""
        if self._found_base is None:
            self._found_base = f"https://{self.host}"
            if self._allow_http:
                try:
                    self._session.get(
                        f"{self._found_base}/v2/", timeout=TIMEOUT, auth=Header(None), verify=self._verify
                    )
                except requests.RequestException:
                    self._found_base = f"http://{self.host}"
        return self._found_base

    def send(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        attempts: int = ATTEMPTS,
    ) -> requests.Response:
        """Return a good answer.

        scope: what access the request needs, `repository:NAME:pull,push`.
        Raises AnswerError for a bad answer, RegistryError where there is none.
        """
        parts = urlsplit(url)
        ours = parts.netloc == self.host  # an upload may go to another host: our header is not for that one
        if ours:
            # A registry behind a proxy that ends TLS may name itself by plain HTTP, where our header would be read.
            url = parts._replace(scheme=urlsplit(self.base).scheme).geturl()
        asked_for_access = False
        attempt = 1
        while True:
            authorization = Header(self._authorization.get(scope) if ours else None)
            try:
                answer = self._session.request(
                    method,
                    url,
                    data=data,
                    headers=dict(headers or {}),
                    auth=authorization,
                    timeout=TIMEOUT,
                    verify=self._trusted(url),
                )
            except requests.exceptions.SSLError as error:  # no pause mends this
                raise RegistryError(self._untrusted(error)) from error
            except (requests.ConnectionError, requests.Timeout) as error:
                failure: RegistryError = RegistryError(f"no answer from {self.host}: {_cause(error)}")
                retry_after = None
            except requests.RequestException as error:
                raise RegistryError(f"{method} {url}: {error}") from error
            else:
                if answer.ok:
                    return answer
                if answer.status_code == 401 and ours and not asked_for_access:
                    asked_for_access = True
                    self._authorization[scope] = self._access(answer, scope)
                    continue
                failure = AnswerError(answer.status_code, self._words(answer, method, data))
                retry_after = answer.headers.get("Retry-After")
                if answer.status_code not in PASSING:
                    raise failure
            if attempt >= attempts:
                if not isinstance(failure, AnswerError):
                    raise RegistryError(f"{failure}; {_SILENCE_ADVICE}")
                raise failure
            self.pause(attempt, str(failure), retry_after)
            attempt += 1

    def pause(self, attempt: int, trouble: str, retry_after: str | None = None) -> None:
        """Wait before the attempt after this one, as long as the registry asks for or longer each time."""
        seconds = FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(1.0, 1.25)  # noqa: S311
        if retry_after and retry_after.isdigit():
            seconds = float(retry_after)
        seconds = min(seconds, LONGEST_PAUSE)
        self._on_retry(f"{trouble.splitlines()[0]}; trying again in {seconds:.1f} s")
        self._sleep(seconds)

    def _access(self, refusal: requests.Response, scope: str) -> str:
        """Return the Authorization header that a 401 asks for. Raises AnswerError when we cannot have it."""
        challenge = Challenge.parse(refusal.headers.get("WWW-Authenticate", ""))
        credentials = self._find_credentials(self.host)
        if challenge.scheme == "basic":
            if credentials is None:
                raise AnswerError(401, self._no_access("it asks for a name and password"))
            return basic_header(credentials)
        if challenge.scheme == "bearer":
            return f"Bearer {self._token(challenge, scope, credentials)}"
        raise AnswerError(401, self._no_access(f"it asks in an unknown way ({challenge.scheme!r})"))

    def _token(self, challenge: Challenge, scope: str, credentials: Credentials | None) -> str:
        if urlsplit(challenge.realm).scheme != "https" and not self._allow_http:
            raise RegistryError(f"{self.host} wants credentials sent to {challenge.realm!r} without TLS: refused")
        request = self._session.prepare_request(token_request(challenge, scope, credentials))
        # `send` alone would know nothing of REQUESTS_CA_BUNDLE.
        trusted = self._trusted(challenge.realm)
        settings = self._session.merge_environment_settings(request.url, {}, None, trusted, None)
        attempt = 1
        while True:
            try:
                # A redirect would carry the body, and the identity token in it, to wherever it leads.
                answer = self._session.send(request, timeout=TIMEOUT, allow_redirects=not request.body, **settings)
            except requests.RequestException as error:
                trouble = f"no answer from the token service {challenge.realm}: {_cause(error)}"
            else:
                if answer.ok:
                    return _token_in(answer)
                trouble = f"its token service answered {answer.status_code}"
                if answer.status_code not in PASSING:
                    raise AnswerError(answer.status_code, self._no_access(trouble))
            if attempt >= ATTEMPTS:
                raise RegistryError(f"{trouble}; {_SILENCE_ADVICE}")
            self.pause(attempt, trouble)
            attempt += 1

    def _trusted(self, url: str) -> str | bool:
        """Return whom to trust at an address: the registry's own authority is not that of another host."""
        return self._verify if urlsplit(url).netloc == self.host else True

    # -- words

    def _untrusted(self, error: requests.RequestException) -> str:
        return (
            f"{self.host} speaks no TLS, or shows a certificate that is not trusted here; give --allow-http for a"
            f" registry on plain HTTP, or put its authority into /etc/docker/certs.d/{self.host}/ca.crt"
            f" ({_cause(error)})"
        )

    def _no_access(self, why: str) -> str:
        return f"{self.host} does not let us in: {why}; run `docker login {self.host}` first"

    def _words(self, answer: requests.Response, method: str, data: bytes | None) -> str:
        said = _error_text(answer)
        path = urlsplit(answer.url).path
        status = answer.status_code
        if status == 401:
            return self._no_access(f"it refuses the credentials for {path}{said}")
        if status == 403:
            doing = "read" if method in ("GET", "HEAD") else "write to"
            return (
                f"{self.host}: these credentials may not {doing} {path}{said}; ask its owner for the right, or"
                f" `docker login {self.host}` as someone who has it"
            )
        if status == 413:
            return (
                f"{self.host} refuses {len(data or b''):,} bytes for {path} as too large{said}; raise the limit of the"
                " registry or of the proxy before it (nginx: client_max_body_size)"
            )
        return f"{self.host}: {method} {path} answered {status}{said}"


def _token_in(answer: requests.Response) -> str:
    """Return the token of a token service's answer. Raises RegistryError where it holds none."""
    try:
        fields = answer.json()
        token = fields.get("token") or fields.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str):
        place = urlsplit(answer.url)
        raise RegistryError(
            f"the token service {place.scheme}://{place.netloc}{place.path} answered {answer.status_code} without a "
            "token; try again, or ask the registry's owner"
        )
    return token


def _cause(error: requests.RequestException) -> str:
    """Return what went wrong on the wire, without the layers of wrapping around it."""
    inner: object = error.args[0] if error.args else error
    text = str(getattr(inner, "reason", None) or inner)
    return text.rpartition("object at 0x")[2].partition(">: ")[2] or text


def _error_text(answer: requests.Response) -> str:
    """Return the registry's own explanation, as ` (CODE: message)`, or nothing."""
    try:
        return f" ({'; '.join('{code}: {message}'.format_map(one) for one in answer.json()['errors'])})"
    except (ValueError, KeyError, TypeError):
        return ""

"""What is read of a machine's network settings, and what a build step gets of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from assay.apt import AptSource, read_sources
from assay.errors import IngredientError
from assay.network import NetworkSettings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/apt/sources.list.d", "etc/uv", "etc/ssl/certs", "home/.config/pip", "home/.config/uv"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def settings(root: Path, **environment: str) -> NetworkSettings:
    return NetworkSettings.from_host(environment={"HOME": str(root / "home"), **environment}, root=root)


def test_a_machine_without_settings(root: Path) -> None:
    assert settings(root) == NetworkSettings()
    assert NetworkSettings().environment() == {}


def test_the_system_bundle_is_taken_where_nothing_else_is_named(root: Path) -> None:
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.write_text("PEM")
    assert settings(root).ca_bundle == bundle
    other = root / "other.crt"
    other.write_text("PEM")
    assert settings(root, SSL_CERT_FILE=str(other)).ca_bundle == other


def test_a_bundle_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(IngredientError, match=r"/no/such\.crt does not exist.*PIP_CERT"):
        settings(root, PIP_CERT="/no/such.crt")


def test_indexes_of_pip(root: Path) -> None:
    (root / "etc/pip.conf").write_text(
        "[global]\nindex-url = https://site.invalid/simple\n"
        "extra-index-url = file:///opt/simple https://extra.invalid/simple\n"
        "find-links = /opt/wheels\ntrusted-host = site.invalid\n"
    )
    (root / "home/.config/pip/pip.conf").write_text("[global]\nindex-url = https://user.invalid/simple\n")
    found = settings(root)
    assert found.index == "https://user.invalid/simple"
    assert found.extra_indexes == ("https://extra.invalid/simple",)
    assert found.find_links == ()
    assert found.insecure_hosts == ("site.invalid",)
    assert settings(root, PIP_INDEX_URL="https://env.invalid/simple").index == "https://env.invalid/simple"
    assert settings(root, PIP_CONFIG_FILE="/dev/null").index is None


def test_local_folders_are_not_carried(root: Path) -> None:
    found = settings(
        root,
        PIP_FIND_LINKS="/opt/wheels",
        PIP_INDEX_URL="file:///opt/simple",
        UV_FIND_LINKS="./wheels",
        UV_INDEX="file:///opt/simple",
    )
    assert found.index is None
    assert found.extra_indexes == ()
    assert found.find_links == ()
    assert not any("/opt" in value for value in found.environment().values())


def test_indexes_of_uv_come_before_those_of_pip(root: Path) -> None:
    (root / "home/.config/uv/uv.toml").write_text(
        '[[index]]\nurl = "https://uv.invalid/simple"\ndefault = true\n[[index]]\nurl = "https://more.invalid/simple"\n'
    )
    found = settings(root, PIP_INDEX_URL="https://pip.invalid/simple")
    assert found.index == "https://uv.invalid/simple"
    assert found.extra_indexes == ("https://more.invalid/simple",)
    named = settings(root, UV_INDEX="mine=https://named.invalid/simple")
    assert named.extra_indexes == ("https://named.invalid/simple", "https://more.invalid/simple")


def test_both_files_of_uv_count_and_the_users_goes_before_the_sites(root: Path) -> None:
    (root / "etc/uv/uv.toml").write_text(
        'index-url = "https://site.invalid/simple"\nallow-insecure-host = ["site.invalid"]\n'
        '[[index]]\nurl = "https://site-more.invalid/simple"\n'
    )
    (root / "home/.config/uv/uv.toml").write_text(
        '[[index]]\nurl = "https://user-more.invalid/simple"\n'
        '[[index]]\nname = "by-name"\nurl = "https://explicit.invalid/simple"\nexplicit = true\n'
    )
    found = settings(root)
    assert found.index == "https://site.invalid/simple"
    assert found.extra_indexes == ("https://user-more.invalid/simple", "https://site-more.invalid/simple")
    assert found.insecure_hosts == ("site.invalid",)


def test_what_is_set_for_uv_is_read_and_handed_on_as_uv_itself_reads_it(root: Path) -> None:
    """As uv 0.13 shows with `--emit-index-url --emit-find-links`: lists of variables and files are joined."""
    (root / "home/.config/uv/uv.toml").write_text(
        'index-url = "https://file.invalid/simple"\nextra-index-url = ["https://file-more.invalid/simple"]\n'
        'find-links = ["https://file-links.invalid/"]\nallow-insecure-host = ["file.invalid"]\n'
    )
    found = settings(
        root,
        UV_DEFAULT_INDEX="https://env.invalid/simple",
        UV_INDEX="named=https://a.invalid/simple https://b.invalid/simple",
        UV_EXTRA_INDEX_URL="https://c.invalid/simple",
        UV_FIND_LINKS="https://d.invalid/,https://e.invalid/",
        UV_INSECURE_HOST="env.invalid",
    )
    assert found.index == "https://env.invalid/simple"
    assert found.extra_indexes == (
        *(f"https://{name}.invalid/simple" for name in "abc"),
        "https://file-more.invalid/simple",
    )
    assert found.find_links == ("https://d.invalid/", "https://e.invalid/", "https://file-links.invalid/")
    assert found.insecure_hosts == ("env.invalid", "file.invalid")
    assert found.index_variables()["UV_FIND_LINKS"] == ",".join(found.find_links)
    assert found.index_variables()["PIP_FIND_LINKS"] == " ".join(found.find_links)
    assert settings(root, UV_NO_CONFIG="y") == NetworkSettings()


def test_settings_for_the_whole_machine_may_lie_where_xdg_says(root: Path) -> None:
    """Of uv's the first alone counts, of pip's all do, the later before the earlier."""
    for folder, name in (("etc/xdg", "xdg"), ("opt/company", "company")):
        for tool in ("pip", "uv"):
            (root / folder / tool).mkdir(parents=True)
        (root / folder / "uv/uv.toml").write_text(f'extra-index-url = ["https://{name}.invalid/uv"]\n')
        (root / folder / "pip/pip.conf").write_text(f"[global]\nextra-index-url = https://{name}.invalid/pip\n")
    (root / "etc/uv/uv.toml").write_text('extra-index-url = ["https://etc.invalid/uv"]\n')
    assert settings(root).extra_indexes == ("https://xdg.invalid/uv", "https://xdg.invalid/pip")
    named = settings(root, XDG_CONFIG_DIRS="/opt/absent:/opt/company:relative")
    assert named.extra_indexes == ("https://company.invalid/uv", "https://company.invalid/pip")


def test_a_file_that_is_named_to_uv_is_its_only_one(root: Path) -> None:
    (root / "etc/uv/uv.toml").write_text('index-url = "https://site.invalid/simple"\n')
    (root / "chosen.toml").write_text('extra-index-url = ["https://chosen.invalid/simple"]\n')
    found = settings(root, UV_CONFIG_FILE=str(root / "chosen.toml"))
    assert (found.index, found.extra_indexes) == (None, ("https://chosen.invalid/simple",))
    assert settings(root, UV_NO_CONFIG="1").index is None
    with pytest.raises(IngredientError, match=r"uv's settings in .*absent\.toml"):
        settings(root, UV_CONFIG_FILE=str(root / "absent.toml"))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("etc/uv/uv.toml", "not toml", "uv's settings"),
        ("etc/uv/uv.toml", '[[index]]\nname = "mine"\n', "uv's settings in .*uv.toml: what it says of indexes"),
        ("etc/uv/uv.toml", "index = 1\n", "uv's settings in .*uv.toml: what it says of indexes"),
        ("etc/pip.conf", "no section", "pip's settings"),
    ],
)
def test_settings_that_cannot_be_read(root: Path, file: str, content: str, said: str) -> None:
    (root / file).write_text(content)
    with pytest.raises(IngredientError, match=said):
        settings(root)


def test_a_line_that_cannot_be_read_is_quoted_without_its_password(root: Path) -> None:
    (root / "etc/pip.conf").write_text("index-url = https://bob:s3cret@index.invalid/simple\n")
    with pytest.raises(IngredientError, match=r"(?s)pip\.conf.*index\.invalid") as caught:
        settings(root)
    assert "s3cret" not in str(caught.value)


def test_proxies_reach_the_build_as_predefined_arguments(root: Path) -> None:
    found = settings(root, HTTPS_PROXY="http://proxy.invalid:3128", no_proxy="localhost")
    assert found.proxies == {"https_proxy": "http://proxy.invalid:3128", "no_proxy": "localhost"}
    assert found.build_args["HTTPS_PROXY"] == found.build_args["https_proxy"] == "http://proxy.invalid:3128"


DEB822 = """\
# the mirror
Types: deb deb-src
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.invalid/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: False
URIs: http://off.invalid/debian
Suites: bookworm
Components: main

Types: deb
Enabled: no
URIs: http://off.invalid/debian
Suites: bookworm
Components: main
"""


def test_both_forms_of_apt_sources(root: Path) -> None:
    folder = root / "etc/apt"
    (folder / "sources.list.d/debian.sources").write_text(DEB822)
    (folder / "sources.list.d/other.list").write_text("deb https://tools.invalid/apt stable-tools main\n")
    (folder / "sources.list.d/old.list.disabled").write_text("deb http://disabled.invalid/debian bookworm main\n")
    (folder / "sources.list").write_text(
        "# deb http://comment.invalid/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/root/own.gpg] http://second.invalid/debian bookworm main non-free # note\n"
        "deb-src http://second.invalid/debian bookworm main\n"
    )
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert read_sources(folder) == (
        AptSource(uri="http://second.invalid/debian", suite="bookworm", components=("main", "non-free")),
        AptSource(uri="http://mirror.invalid/debian", suite="bookworm", components=("main",), signed_by=keyring),
        AptSource(
            uri="http://mirror.invalid/debian", suite="bookworm-updates", components=("main",), signed_by=keyring
        ),
        AptSource(uri="http://mirror.invalid/debian-security", suite="bookworm-security", components=("main",)),
    )


def test_entries_for_another_suite_keep_mirror_and_pocket(root: Path) -> None:
    (root / "etc/apt/sources.list.d/debian.sources").write_text(DEB822)
    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    assert settings(root).debian_sources("trixie", ("main", "non-free")).splitlines() == [
        f"deb {keyring}http://mirror.invalid/debian trixie main non-free",
        f"deb {keyring}http://mirror.invalid/debian trixie-updates main non-free",
        "deb http://mirror.invalid/debian-security trixie-security main non-free",
    ]


def test_the_folder_is_what_a_build_step_runs_with(root: Path, tmp_path: Path) -> None:
    (root / "etc/apt/sources.list").write_text("deb http://mirror.invalid/debian bookworm main\n")
    bundle = root / "own.crt"
    bundle.write_text("PEM of the machine")
    found = settings(root, PIP_CERT=str(bundle), UV_DEFAULT_INDEX="https://user:pa$$'word@index.invalid/simple")
    folder = tmp_path / "network"
    found.write(folder)
    assert (folder / "ca.crt").read_text() == "PEM of the machine"
    assert "trixie main contrib non-free" in (folder / "apt/trixie.list").read_text()
    assert 'CAInfo "/run/network/ca.crt"' in (folder / "apt/bookworm.conf").read_text()
    command = 'echo "$UV_DEFAULT_INDEX|$PIP_INDEX_URL|$SSL_CERT_FILE|$1"'
    answer = subprocess.run(
        ["sh", str(folder / "run.sh"), "sh", "-c", command, "sh", "an argument"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    address = "https://user:pa$$'word@index.invalid/simple"
    assert answer.stdout == f"{address}|{address}|/run/network/ca.crt|an argument\n"


def test_nobody_else_may_read_the_folder(root: Path, tmp_path: Path) -> None:
    (root / "etc/apt/sources.list").write_text("deb http://bob:s3cret@mirror.invalid/debian bookworm main\n")
    bundle = root / "own.crt"
    bundle.write_text("PEM")
    folder = tmp_path / "network"
    folder.mkdir(mode=0o755)
    (folder / "run.sh").write_text("as an earlier version left it")
    settings(root, PIP_CERT=str(bundle)).write(folder)
    modes = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert {name for name, mode in modes.items() if mode & 0o077} == set()
    assert folder.stat().st_mode & 0o777 == modes["apt"] == 0o700
    assert {"run.sh", "ca.crt", "apt/bookworm.list", "apt/other.conf"} <= set(modes)
    # Else apt's own user could not read the bundle where plain Docker sends the folder with these modes.
    assert 'APT::Sandbox::User "root";' in (folder / "apt/bookworm.conf").read_text()

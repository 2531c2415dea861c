"""Reads which package indexes pip and uv are set to on this machine, as those two read it themselves."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

import tomli

from assay.errors import IngredientError
from assay.redact import without_passwords

_UV_VARIABLES = {
    "index": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "insecure": ("UV_INSECURE_HOST",),
}


def pip_settings(env: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return pip's settings as pip merges them: site files, then the user's, then PIP_CONFIG_FILE, then PIP_*.

    Raises IngredientError when one of the files cannot be read.
    """
    home = Path(env.get("HOME", "/nonexistent"))
    config_home = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    files = [*(folder / "pip/pip.conf" for folder in _site_folders(env, root)), root / "etc/pip.conf"]
    files += [home / ".pip/pip.conf", config_home / "pip/pip.conf"]
    if chosen := env.get("PIP_CONFIG_FILE"):
        # pip's own rule: os.devnull here switches all files off.
        files = [] if chosen == os.devnull else [*files, Path(chosen)]
    settings: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            said = without_passwords(str(error))  # it quotes the line
            raise IngredientError(f"cannot read pip's settings in {file}: {said}") from error
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update(parser.items(section))
    names = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert")
    for name in names:
        if value := env.get(f"PIP_{name.upper().replace('-', '_')}"):
            settings[name] = value
    return settings


def uv_settings(env: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return uv's index settings: `index`, `extra`, `find-links`, `insecure`, lists joined by blanks.

    As uv merges them: of one default index the nearest counts (variable, user's file, site's file); lists of all
    variables and of both files are joined, the nearest first. Raises IngredientError when one of the files cannot be
    read.
    """
    found = [_uv_variables(env), *map(_uv_file, _uv_files(env, root))]
    settings = {name: " ".join(filter(None, (one[name] for one in found))) for name in _UV_VARIABLES}
    settings["index"] = next(filter(None, (one["index"] for one in found)), "")
    return settings


def addresses(listed: str) -> list[str]:
    """Return the addresses in a list of indexes as uv takes it, where one may carry a name: `name=https://...`."""
    return [word.partition("=")[2] if "=http" in word else word for word in listed.split()]


def _uv_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment says of indexes."""
    settings = {}
    for name, variables in _UV_VARIABLES.items():
        # uv parts find-links at commas, as their paths may hold blanks, and all else at blanks.
        values = [env.get(key, "").replace(",", " ") if name == "find-links" else env.get(key, "") for key in variables]
        words = addresses(" ".join(values))
        settings[name] = " ".join(words[:1] if name == "index" else words)
    return settings


def _uv_files(env: Mapping[str, str], root: Path) -> list[Path]:
    """Return uv's settings files, the nearest first; one that is named has to be there."""
    if env.get("UV_NO_CONFIG", "").lower() in ("1", "true", "t", "yes", "y", "on"):
        return []
    if chosen := env.get("UV_CONFIG_FILE"):
        return [Path(chosen)]
    home = Path(env.get("HOME", "/nonexistent"))
    config_home = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    users = config_home / "uv/uv.toml"
    sites = [*(folder / "uv/uv.toml" for folder in _site_folders(env, root)), root / "etc/uv/uv.toml"]
    # Of several files for the whole site, uv takes the first alone.
    first = next((file for file in sites if file.is_file()), None)
    return [file for file in (users, first) if file and file.is_file()]


def _site_folders(env: Mapping[str, str], root: Path) -> list[Path]:
    """Return the folders of settings for the whole machine, as the XDG base directory specification names them."""
    named = [folder for folder in env.get("XDG_CONFIG_DIRS", "").split(":") if folder.startswith("/")]
    return [root / folder.lstrip("/") for folder in named or ["/etc/xdg"]]


def _uv_file(file: Path) -> dict[str, str]:
    """Return what one file says of indexes. Those that are `explicit` serve only packages that ask for them by name."""
    try:
        data = tomli.loads(file.read_text(encoding="utf-8"))
        data = {**data, **data.get("pip", {})}
        indexes = [entry for entry in data.get("index", []) if not entry.get("explicit")]
        default = [entry["url"] for entry in indexes if entry.get("default")]
        others = [entry["url"] for entry in indexes if not entry.get("default")]
        return {
            "index": next(iter(default), data.get("index-url", "")),
            "extra": " ".join([*others, *data.get("extra-index-url", [])]),
            "find-links": " ".join(data.get("find-links", [])),
            "insecure": " ".join(data.get("allow-insecure-host", [])),
        }
    except (tomli.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise IngredientError(f"cannot read uv's settings in {file}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise IngredientError(
            f"cannot read uv's settings in {file}: what it says of indexes is not of the form that uv takes ({error!r})"
        ) from error

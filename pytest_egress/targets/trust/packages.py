"""Finds the root certificates that SDKs bring into an image, and the browsers that have roots of their own.

No folder is read whole: its archive would bring all of its content, which may be gigabytes. Known files are asked for
by their paths, in milliseconds, where the environment, the history or a link of the image says that packages may be.
All knowledge is in the tables here: one row for each SDK.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_egress.base.paths import is_within, normal
from pytest_egress.engine.archive import File
from pytest_egress.targets.trust.certificates import from_pem
from pytest_egress.targets.trust.roots import FileKind, Files

OF_PYTHON: Final = (  # below a site-packages or dist-packages
    "certifi/cacert.pem",  # requests, httpx, and all others that use certifi
    "pip/_vendor/certifi/cacert.pem",
    "botocore/cacert.pem",
    "awscli/botocore/cacert.pem",
    "stripe/data/ca-certificates.crt",
    "braintree/ssl/api_braintreegateway_com.ca.crt",
    "httplib2/cacerts.txt",  # google-api-python-client
    "grpc/_cython/_credentials/roots.pem",
    "pusher/cacert.pem",
    "razorpay/ca-bundle.crt",
    "duo_client/ca_certs.pem",
)
OF_DEBIAN: Final = (  # those of OF_PYTHON that Debian's own packages have; the others read the image's bundle there
    "pip/_vendor/certifi/cacert.pem",
    "botocore/cacert.pem",
    "awscli/botocore/cacert.pem",
    "grpc/_cython/_credentials/roots.pem",
)
OF_PREFIX: Final = "ssl/cacert.pem"  # below a conda environment
OF_NODE: Final[Mapping[str, str]] = {"certifi": "cacert.pem"}
OF_COMPOSER: Final = (  # below a vendor folder of PHP's
    "composer/ca-bundle/res/cacert.pem",
    "stripe/stripe-php/data/ca-certificates.crt",
    "braintree/braintree_php/lib/ssl/api_braintreegateway_com.ca.crt",
)
OF_GEMS: Final[Mapping[str, str]] = {
    "aws-sdk-core": "ca-bundle.crt",
    "braintree": "lib/ssl/api_braintreegateway_com.ca.crt",
    "certifi": "lib/certifi/vendor/cacert.pem",
    "excon": "data/cacert.pem",
    "httpclient": "lib/httpclient/cacert.pem",
    "stripe": "lib/data/ca-certificates.crt",
}
SPECIFICATION: Final = re.compile(r"([\w-]+?)-(\d[\w.]*(?:-[\w.-]+)?)\.gemspec")
PEEK_BYTES: Final = 1 << 18  # to read of a folder at most: takes as long as one call
INDEX_BYTES: Final = 16 << 20  # to read of a list of packages at most: a large one is much smaller
MAX_LISTED: Final = 50  # paths that one list of an image names: each costs at least a call
NPM_INDEX: Final = ".package-lock.json"  # npm's list of a node_modules, since its version 7

HISTORY_PATH: Final = re.compile(r"(?<![^\s=:\"'\[])/[\w.@+-][\w.@+/-]*")
# Folders without applications. The files of distributions in them are asked for by name.
OF_THE_SYSTEM: Final = re.compile(
    r"/(?:bin|boot|dev|etc|lib|lib64|media|mnt|proc|run|sbin|sys|tmp|usr(?!/src/)|var(?!/(?:www|task|app)))(?:/|$)"
)
# The rest of such a path, inside an application.
INSIDE: Final = re.compile(
    r"/(?:node_modules|vendor|bin|lib|[^/]+\.(?:cfg|in|ini|js|json|lock|php|py|rb|sh|toml|txt|ya?ml))(?:/.*)?$"
)
MAX_APPLICATIONS: Final = 8  # folders to search at most: each costs five calls
DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin"  # of an image without PATH, as the engine's has
VERSION: Final = re.compile(r"python(\d+\.\d+)")
RUBY_VERSION: Final = re.compile(r"ruby(\d+\.\d+)")
PREFIXES: Final = ("VIRTUAL_ENV", "CONDA_PREFIX")
SITES: Final = ("PYTHONPATH", "LAMBDA_TASK_ROOT")
GEM_HOMES: Final = ("GEM_HOME", "GEM_PATH")
LEADING: Final = (
    *("PATH", "HOME", "BUNDLE_PATH", "NODE_PATH", "PYTHON_VERSION", "RUBY_VERSION"),
    *(*PREFIXES, *SITES, *GEM_HOMES),
)
"""Variables that say where packages are."""

CHROMIUM: Final[Mapping[str, str]] = {
    "/usr/bin/chromium": "/etc/chromium/policies/managed",
    "/usr/bin/chromium-browser": "/etc/chromium/policies/managed",
    "/opt/google/chrome": "/etc/opt/chrome/policies/managed",
}
"""For each Chromium, the folder that it reads policies from."""

FIREFOX: Final = ("/usr/bin/firefox-esr", "/usr/bin/firefox")
# Firefox reads these policies first, then those in its own folder.
FIREFOX_POLICIES: Final = "/etc/firefox/policies/policies.json"


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders in which an image may have packages, by its configuration, its history and the test's options."""

    bins: tuple[str, ...] = ()  # folders of programs; a Python may be in any of them
    applications: tuple[str, ...] = ()  # folders that may have packages below, the likeliest first
    sites: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # folders of Node.js's packages
    gems: tuple[str, ...] = ()  # folders of Ruby's packages, Bundler's among them
    home: str = "/root"
    python: str = ""  # the version of its Python, if a variable tells it
    ruby: str = ""  # the version of its Ruby, if a variable tells it


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """The roots and policies of SDKs and browsers that were found in a container.

    Attributes:
        bundles: PEM bundles of SDKs, each at its real path.
        mounted: The paths of bundles in a mount that is not the container's own.
        large: The paths of bundles that were left, since no roots are so large.
        chromium: The folders that the Chromiums of the image read policies from.
    """

    bundles: Mapping[str, File] = field(default_factory=dict)
    mounted: Sequence[str] = ()
    large: Sequence[str] = ()
    chromium: Sequence[str] = ()
    firefox: Mapping[str, Any] | None = None


def places(env: Mapping[str, str], workdir: str, user: str, history: Iterable[str]) -> Places:
    """The folders in which an image may have packages.

    Args:
        env: The image's variables, and the test's.
        history: The instructions by which the image was built, the last one first.
    """
    bins = [path for path in listed(env.get("PATH", DEFAULT_PATH)) if not path.endswith("/sbin")]
    bins += [f"{prefix}/bin" for name in PREFIXES for prefix in listed(env.get(name, ""))]
    named = [path for text in history for path in HISTORY_PATH.findall(text)]
    outer = [INSIDE.sub("", normal(path)) or "/" for path in [workdir or "/", *named]]
    applications = [p for p in dict.fromkeys(outer) if p != "/" and not OF_THE_SYSTEM.match(p)]
    bundler = [f"{path}/ruby" for path in listed(env.get("BUNDLE_PATH", ""))]
    return Places(
        bins=tuple(path for path in dict.fromkeys(bins) if path != "/bin"),
        applications=tuple(applications[:MAX_APPLICATIONS]),
        sites=tuple(path for each in SITES for path in listed(env.get(each, ""))),
        modules=tuple(listed(env.get("NODE_PATH", ""))),
        gems=tuple(dict.fromkeys([p for v in GEM_HOMES for p in listed(env.get(v, ""))] + bundler)),
        python=minor(env.get("PYTHON_VERSION", "")),
        ruby=minor(env.get("RUBY_VERSION", "")),
        home=env.get("HOME") or home_of(user.partition(":")[0]),
    )


def home_of(user: str) -> str:
    """The name of a user that is a number is not known, so its home is root's."""
    return f"/home/{user}" if user and user != "root" and not user.isdigit() else "/root"


def minor(version: str) -> str:
    found = re.match(r"\d+\.\d+", version)
    return found[0] if found else ""


def listed(text: str) -> list[str]:
    """The absolute paths of a variable that holds several, the first of them."""
    return [normal(path) for path in text.split(":") if path.startswith("/")][:MAX_LISTED]


def find_packaged(files: Files, where: Places) -> Packaged:
    look = Look(files, where)
    paths = dict.fromkeys(look.bundles())
    mounted = [path for path in paths if is_within(path, files.mounts)]
    found = files.read_small(path for path in paths if path not in mounted)
    return Packaged(
        bundles={path: file for path, file in found.items() if from_pem(file.content)},
        mounted=mounted,
        large=[path for path in files.large if path in paths],
        chromium=list(dict.fromkeys(path for each, path in CHROMIUM.items() if look.has(each))),
        firefox=look.firefox(),
    )


class Look:
    """One search in a created container."""

    def __init__(self, files: Files, where: Places) -> None:
        self.files, self._where = files, where
        self._mounted = bool(files.foreign)  # a link among the folders of a path may lead there
        self._pythons: dict[str, None] = {}  # the versions that were seen

    def real(self, path: str) -> tuple[str, FileKind]:
        """The real path of a path and the kind of file there, through links among its folders if these matter."""
        if self._mounted or self.files.is_read(path):
            return self.files.resolve(path)
        return self.files.look(path)

    def folder(self, path: str) -> str | None:
        """The real path; None where there is no folder."""
        if self._mounted:
            path, _ = self.files.resolve(path)
        real, kind = self.files.peek(path, PEEK_BYTES)
        return real if kind is FileKind.DIRECTORY else None

    def has(self, path: str) -> bool:
        return self.real(path)[1] is not FileKind.MISSING

    def among(self, folder: str, names: Iterable[str]) -> Iterator[str]:
        """The real paths of those of the named files that a folder has."""
        if (found := self.folder(folder)) is None:
            return
        for name in names:
            real, kind = self.real(posixpath.join(found, name))
            if kind is FileKind.REGULAR:
                yield real

    def bundles(self) -> Iterator[str]:
        """The real paths of all known bundles that the container has."""
        where = self._where
        for folder in where.bins:
            yield from self._python(folder)
        for version in self._pythons.copy():
            yield from self._site(f"{where.home}/.local/lib/python{version}/site-packages")
        for folder in where.sites:
            yield from self._site(folder)
        for folder in where.modules:
            yield from self._modules(folder)
        ruby = where.ruby or self._version("/usr/bin/ruby", RUBY_VERSION)
        for folder in [*where.gems, *([f"/var/lib/gems/{ruby}.0"] if ruby else [])]:
            yield from self._gems(folder)
        for folder in where.applications:
            yield from self._application(folder, ruby)

    def _application(self, folder: str, ruby: str) -> Iterator[str]:
        if self.folder(folder) is None:
            return
        for version in self._pythons.copy():
            yield from self._site(f"{folder}/lib/python{version}/site-packages")
        for name in (".venv", "venv") if self._pythons else ("", ".venv", "venv"):
            yield from self._python(posixpath.join(folder, name, "bin"))
        yield from self._modules(f"{folder}/node_modules")
        yield from self.among(f"{folder}/vendor", OF_COMPOSER)
        if ruby:
            yield from self._gems(f"{folder}/vendor/bundle/ruby/{ruby}.0")

    def _python(self, folder: str) -> Iterator[str]:
        """The bundles of the Python whose program is in a folder."""
        program = f"{folder}/python3"
        version = self._version(program, VERSION) or (self.has(program) and self._where.python)
        if not version:
            return
        self._pythons[version] = None
        prefix = posixpath.dirname(folder)
        sites = [f"{prefix}/lib/python{version}/site-packages"]
        if prefix == "/usr":  # a distribution's Python, with the folder that pip uses beside it
            yield from self.among("/usr/lib/python3/dist-packages", OF_DEBIAN)
            sites += [f"/usr/local/lib/python{version}/{n}-packages" for n in ("dist", "site")]
        elif prefix != "/usr/local":
            yield from self.among(prefix, [OF_PREFIX])
        for site in dict.fromkeys(sites):
            yield from self._site(site)

    def _version(self, program: str, pattern: re.Pattern[str]) -> str:
        """The version in the target of a program's link; "" where there is no such link."""
        found = pattern.search(posixpath.basename(self.files.look(program)[0]))
        return found[1] if found else ""

    def _site(self, folder: str) -> Iterator[str]:
        return self.among(folder, OF_PYTHON)

    def _modules(self, folder: str) -> Iterator[str]:
        """The bundles of Node.js's packages: those in npm's own list, or else those directly in a folder."""
        if self.folder(folder) is None:
            return iter(())
        index, kind = self.real(f"{folder}/{NPM_INDEX}")
        names = [f"{name}/{path}" for name, path in OF_NODE.items()]
        if kind is FileKind.REGULAR:
            names = [
                path
                for file in self.files.read_small([index]).values()
                for path in from_npm(file.content)
            ]
        return self.among(folder, names[:MAX_LISTED])

    def _gems(self, home: str) -> Iterator[str]:
        """The folders of Ruby's packages have versions in their names."""
        found = self.files.names(f"{home}/specifications", INDEX_BYTES)
        specifications = filter(None, map(SPECIFICATION.fullmatch, found))
        names = [
            f"{match[1]}-{match[2]}/{OF_GEMS[match[1]]}"
            for match in specifications
            if match[1] in OF_GEMS
        ]
        return self.among(f"{home}/gems", names[:MAX_LISTED]) if names else iter(())

    def firefox(self) -> Mapping[str, Any] | None:
        """The policies that are read now; None where there is no Firefox."""
        for program in FIREFOX:
            real, kind = self.real(program)
            if kind is not FileKind.MISSING:
                beside = posixpath.join(posixpath.dirname(real), "distribution/policies.json")
                return self._policies(FIREFOX_POLICIES, beside)
        return None

    def _policies(self, *paths: str) -> Mapping[str, Any]:
        """The policies in the first of these files that exists and can be read."""
        for path in paths:
            real, kind = self.real(path)
            if kind is FileKind.REGULAR:
                with contextlib.suppress(ValueError, RecursionError):
                    found = json.loads(self.files.read(real).content)
                    return found if isinstance(found, dict) else {}
        return {}


def from_npm(content: bytes) -> Iterator[str]:
    """The paths of known bundles in the packages of a node_modules, from npm's own list of them."""
    try:
        packages = json.loads(content)["packages"]
        folders = [str(path).partition("node_modules/")[2] for path in packages]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    for folder in folders:
        if (name := folder.rpartition("node_modules/")[2]) in OF_NODE:
            yield f"{folder}/{OF_NODE[name]}"

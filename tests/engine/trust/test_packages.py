"""Roots that SDKs bring, files that a test names, and the policies of browsers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import pytest

from pytest_egress import Egress, EngineError
from pytest_egress.targets.trust.certificates import extend_java_keystore, java_keystore
from pytest_egress.targets.trust.roots import MAX_FILE_BYTES
from tests.support.image_trees import (
    BUNDLE,
    FIRST,
    SECOND,
    Make,
    MakeImage,
    Tree,
    der,
    file,
    files_of,
    link,
    pack,
    read,
)

PYTHON: Tree = {
    "/usr/local/bin/python3.13": file(b"", 0o755),
    "/usr/local/bin/python3": link("python3.13"),
}
SITE = "lib/python3.13/site-packages"
CERTIFI = "certifi/cacert.pem"


def gem(home: str, name: str, path: str) -> Tree:
    return {f"{home}/specifications/{name}.gemspec": b"", f"{home}/gems/{name}/{path}": FIRST}


def npm(folder: str, *packages: str) -> Tree:
    listed: dict[str, object] = {f"node_modules/{name}": {} for name in packages}
    files = {f"{folder}/node_modules/{name}/cacert.pem": FIRST for name in packages}
    return {
        f"{folder}/node_modules/.package-lock.json": json.dumps({"packages": listed}).encode(),
        **files,
    }


@dataclass(frozen=True)
class PackageLayout:
    """Packages in an image, and which of its files get the CA."""

    tree: Tree
    extended: tuple[str, ...]
    changes: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


LAYOUTS: dict[str, PackageLayout] = {
    "the-official-python": PackageLayout(
        {
            **PYTHON,
            f"/usr/local/{SITE}/{CERTIFI}": FIRST,
            f"/usr/local/{SITE}/stripe/data/ca-certificates.crt": file(FIRST, 0o640, 12, 34),
            f"/usr/local/{SITE}/mine/cacert.pem": SECOND,
        },
        (f"/usr/local/{SITE}/{CERTIFI}", f"/usr/local/{SITE}/stripe/data/ca-certificates.crt"),
    ),
    "more-than-is-read-of-a-folder": PackageLayout(
        {
            **PYTHON,
            f"/usr/local/{SITE}/{CERTIFI}": FIRST,
            f"/usr/local/{SITE}/large/a": bytes(1 << 20),
        },
        (f"/usr/local/{SITE}/{CERTIFI}",),
    ),
    "a-virtual-environment-on-the-path": PackageLayout(
        {
            "/opt/venv/bin/python3": link("/usr/bin/python3.12"),
            f"/opt/venv/lib/python3.12/site-packages/{CERTIFI}": FIRST,
        },
        (f"/opt/venv/lib/python3.12/site-packages/{CERTIFI}",),
        ("ENV PATH=/opt/venv/bin:/usr/bin",),
    ),
    "a-virtual-environment-below-the-working-directory": PackageLayout(
        {
            **PYTHON,
            "/app/.venv/bin/python": link("/usr/local/bin/python3"),
            "/app/.venv/bin/python3": link("python"),
            f"/app/.venv/{SITE}/{CERTIFI}": FIRST,
        },
        (f"/app/.venv/{SITE}/{CERTIFI}",),
        ("WORKDIR /app",),
    ),
    "a-working-directory-of-the-test": PackageLayout(
        {
            **PYTHON,
            "/app/venv/bin/python3": link("/usr/local/bin/python3"),
            f"/app/venv/{SITE}/{CERTIFI}": FIRST,
        },
        (f"/app/venv/{SITE}/{CERTIFI}",),
        options={"workdir": "/app"},
    ),
    "a-python-that-is-no-link": PackageLayout(
        {"/opt/venv/bin/python3": file(b"", 0o755), f"/opt/venv/{SITE}/{CERTIFI}": FIRST},
        (f"/opt/venv/{SITE}/{CERTIFI}",),
        ("ENV VIRTUAL_ENV=/opt/venv", "ENV PYTHON_VERSION=3.13.9"),
    ),
    "Debian": PackageLayout(
        {
            "/usr/bin/python3.13": b"",
            "/usr/bin/python3": link("python3.13"),
            BUNDLE: SECOND,
            f"/usr/lib/python3/dist-packages/{CERTIFI}": link(BUNDLE),
            "/usr/lib/python3/dist-packages/botocore/cacert.pem": FIRST,
            f"/usr/local/lib/python3.13/dist-packages/{CERTIFI}": FIRST,
            f"/root/.local/{SITE}/{CERTIFI}": FIRST,
        },
        (
            BUNDLE,
            "/usr/lib/python3/dist-packages/botocore/cacert.pem",
            f"/usr/local/lib/python3.13/dist-packages/{CERTIFI}",
            f"/root/.local/{SITE}/{CERTIFI}",
        ),
    ),
    "conda": PackageLayout(
        {
            "/opt/conda/bin/python3": link("python3.13"),
            "/opt/conda/bin/python3.13": b"",
            "/opt/conda/ssl/cacert.pem": FIRST,
            f"/opt/conda/{SITE}/{CERTIFI}": FIRST,
        },
        ("/opt/conda/ssl/cacert.pem", f"/opt/conda/{SITE}/{CERTIFI}"),
        ("ENV PATH=/opt/conda/bin:/usr/bin",),
    ),
    "folders-that-variables-name": PackageLayout(
        {f"/deps/{CERTIFI}": FIRST, f"/task/{CERTIFI}": FIRST, "/js/certifi/cacert.pem": FIRST},
        (f"/deps/{CERTIFI}", f"/task/{CERTIFI}", "/js/certifi/cacert.pem"),
        ("ENV PYTHONPATH=/none:/deps", "ENV LAMBDA_TASK_ROOT=/task"),
        env={"NODE_PATH": "/js"},
    ),
    "npm": PackageLayout(
        npm("/srv", "certifi", "other/node_modules/certifi"),
        (
            "/srv/node_modules/certifi/cacert.pem",
            "/srv/node_modules/other/node_modules/certifi/cacert.pem",
        ),
        ("WORKDIR /srv",),
    ),
    "pnpm": PackageLayout(
        {
            "/srv/node_modules/certifi": link(".pnpm/certifi@1/node_modules/certifi"),
            "/srv/node_modules/.pnpm/certifi@1/node_modules/certifi/cacert.pem": FIRST,
        },
        ("/srv/node_modules/.pnpm/certifi@1/node_modules/certifi/cacert.pem",),
        ("WORKDIR /srv",),
    ),
    "composer": PackageLayout(
        {
            "/var/www/vendor/composer/ca-bundle/res/cacert.pem": FIRST,
            "/var/www/vendor/stripe/stripe-php/data/ca-certificates.crt": FIRST,
        },
        (
            "/var/www/vendor/composer/ca-bundle/res/cacert.pem",
            "/var/www/vendor/stripe/stripe-php/data/ca-certificates.crt",
        ),
        ("WORKDIR /var/www",),
    ),
    "gems": PackageLayout(
        {
            **gem("/usr/local/bundle", "stripe-13.0.0", "lib/data/ca-certificates.crt"),
            **gem("/usr/local/bundle", "stripe-rails-2.0.0", "lib/data/ca-certificates.crt"),
            **gem("/srv/vendor/bundle/ruby/3.3.0", "excon-0.1.0", "data/cacert.pem"),
        },
        (
            "/usr/local/bundle/gems/stripe-13.0.0/lib/data/ca-certificates.crt",
            "/srv/vendor/bundle/ruby/3.3.0/gems/excon-0.1.0/data/cacert.pem",
        ),
        ("ENV GEM_HOME=/usr/local/bundle", "ENV RUBY_VERSION=3.3.8", "WORKDIR /srv"),
    ),
    "gems-of-Debians-ruby": PackageLayout(
        {
            "/usr/bin/ruby": link("ruby3.3"),
            "/usr/bin/ruby3.3": b"",
            **gem("/var/lib/gems/3.3.0", "httpclient-2.9.0", "lib/httpclient/cacert.pem"),
        },
        ("/var/lib/gems/3.3.0/gems/httpclient-2.9.0/lib/httpclient/cacert.pem",),
    ),
    "no-roots-in-its-place": PackageLayout(
        {**PYTHON, f"/usr/local/{SITE}/{CERTIFI}": b"no certificate"}, ()
    ),
    "a-folder-in-its-place": PackageLayout(
        {**PYTHON, f"/usr/local/{SITE}/{CERTIFI}/cacert.pem": FIRST}, ()
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_roots_of_known_packages_are_extended_and_nothing_else_is_changed(
    layout: PackageLayout,
    make_image: MakeImage,
    plain: Make,
    ours: Make,
    egress_ca: Any,
    is_podman: bool,
) -> None:
    image, ca = make_image(layout.tree, *layout.changes), egress_ca.cert_pem.bytes()
    before = files_of(plain(image), is_podman)
    after = files_of(ours(image, env=layout.env, **layout.options), is_podman)
    expected = {}
    for path in layout.extended:
        content = before[path].content
        assert content is not None
        expected[path] = replace(before[path], content=content + ca)
        if is_podman:  # it tells no owner
            expected[path] = replace(expected[path], mode=before[path].mode | 0o444, uid=0, gid=0)
    changed = {path: node for path, node in after.items() if before.get(path) != node}
    folders = ("/etc", "/run", *layout.options.values())
    besides = {path for path in changed if path.startswith(folders) and path not in expected}
    assert {path: node for path, node in changed.items() if path not in besides} == expected
    assert not [path for path in besides if path in layout.tree]
    assert before.keys() <= after.keys() | {"/etc/passwd", "/etc/group"}


def test_a_folder_that_only_the_history_names_is_looked_at(
    engine_client: docker.DockerClient, make_image: MakeImage, ours: Make, egress_ca: Any
) -> None:
    base = make_image(PYTHON)
    path = f"/code/venv/{SITE}/{CERTIFI}"
    inside: Tree = {
        "/Dockerfile": f"FROM {base}\nCOPY code /code/\n".encode(),
        "/code/venv/bin/python3": link("/usr/local/bin/python3"),
        path: FIRST,
    }
    built, _ = engine_client.images.build(
        fileobj=io.BytesIO(pack(inside)), custom_context=True, rm=True, forcerm=True
    )
    try:
        assert read(ours(str(built.id)), path) == FIRST + egress_ca.cert_pem.bytes()
    finally:
        engine_client.images.remove(str(built.id), force=True, noprune=True)


def test_packages_in_a_folder_of_the_host_are_never_written_and_a_hint(
    egress: Egress, make_image: MakeImage, tmp_path: Path, is_podman: bool
) -> None:
    (tmp_path / f"venv/{SITE}/certifi").mkdir(parents=True)
    roots = tmp_path / f"venv/{SITE}/{CERTIFI}"
    roots.write_bytes(FIRST)
    (tmp_path / "venv/bin").mkdir()
    (tmp_path / "venv/bin/python3").symlink_to("/usr/local/bin/python3.13")
    image = make_image(PYTHON, "WORKDIR /app")
    egress.start(image, volumes=[f"{tmp_path}:/app"])
    assert roots.read_bytes() == FIRST
    hint = f"/app/venv/{SITE}/{CERTIFI} is in a mount, and was left as it is"
    hints = egress._inner.containers[-1].hints
    assert hints == ([] if is_podman else [hint])  # it shows no mount before the start
    egress.start(image)
    assert egress._inner.containers[-1].hints == []


def test_an_image_is_looked_at_once(
    egress: Egress, make_image: MakeImage, asked: list[str]
) -> None:
    image = make_image({**PYTHON, f"/usr/local/{SITE}/{CERTIFI}": FIRST})
    egress.run(image)
    assert f"/usr/local/{SITE}" in asked
    asked.clear()
    egress.run(image)
    assert {*asked} == {"/"}


def test_a_root_that_is_read_only_has_the_roots_of_packages_extended(
    ours: Make, make_image: MakeImage, egress_ca: Any
) -> None:
    path = f"/usr/local/{SITE}/{CERTIFI}"
    container = ours(make_image({**PYTHON, path: FIRST}), read_only=True)
    assert read(container, path) == FIRST + egress_ca.cert_pem.bytes()


# Files that a test names.

MINE = "/opt/mine.pem"
OTHER_PASSWORD = java_keystore([der(FIRST)])[:-20] + bytes(20)


def test_a_file_that_the_test_names_is_extended_where_it_really_is(
    ours: Make, make_image: MakeImage, egress_ca: Any
) -> None:
    image = make_image({MINE: file(FIRST, 0o604, 12, 34), "/app/roots": link("/opt/mine.pem")})
    content = read(ours(image, trust=["/app/roots"]), MINE)
    assert content == FIRST + egress_ca.cert_pem.bytes()


def test_a_java_keystore_that_the_test_names_trusts_the_ca(
    ours: Make, make_image: MakeImage, egress_ca: Any
) -> None:
    keystore = java_keystore([der(FIRST)])
    container = ours(make_image({"/app/trust.jks": keystore}), trust=["/app/trust.jks"])
    expected = extend_java_keystore(keystore, der(egress_ca.cert_pem.bytes()))
    assert read(container, "/app/trust.jks") == expected


def test_a_bundle_of_the_image_that_the_test_names_too_is_extended_once(
    ours: Make, make_image: MakeImage, egress_ca: Any
) -> None:
    container = ours(make_image({BUNDLE: FIRST}), trust=[BUNDLE])
    assert read(container, BUNDLE) == FIRST + egress_ca.cert_pem.bytes()


@pytest.mark.parametrize(
    ("tree", "path", "options", "said"),
    [
        ({}, "/opt/none.pem", {}, "there is no such file in the container"),
        ({MINE: b"hello"}, MINE, {}, "this is no PEM bundle, and no Java keystore that"),
        ({MINE: OTHER_PASSWORD}, MINE, {}, "this is no PEM bundle, and no Java keystore that"),
        ({"/opt/roots/a.pem": FIRST}, "/opt/roots", {}, "this is no file"),
        ({MINE: FIRST}, MINE, {"tmpfs": {"/opt": ""}}, "/opt/mine.pem is in a mount"),
    ],
    ids=["missing", "no-bundle", "another-password", "folder", "mount"],
)
def test_a_file_that_cannot_get_the_ca_is_an_error_that_names_it(
    tree: Tree,
    path: str,
    options: dict[str, Any],
    said: str,
    egress: Egress,
    make_image: MakeImage,
    is_podman: bool,
) -> None:
    image = make_image(tree)
    with pytest.raises(EngineError) as caught:
        egress.run(image, trust=[path], **options)
    assert str(caught.value).startswith(f"trust={path!r}: {said}")


def test_a_container_that_something_else_creates_gets_it_too(
    egress: Egress, engine_client: docker.DockerClient, make_image: MakeImage, egress_ca: Any
) -> None:
    image = make_image({MINE: FIRST})
    options = egress.docker_options(image, trust=[MINE])
    container = engine_client.containers.create(image, **options)
    try:
        egress.trust(container)
        assert read(container, MINE) == FIRST + egress_ca.cert_pem.bytes()
    finally:
        container.remove(force=True)


MODULE = """
    import pytest
    SCRIPT = ["sh", "-c", "grep -c BEGIN /opt/mine.pem || true"]

    def test_run(egress):
        assert egress.run({image!r}, SCRIPT).stdout == "2\\n"

    def test_another_image(egress):
        assert egress.run({bare!r}, ["true"]).exit_code == 0

    @pytest.mark.egress_container({image!r}, ["sleep", "60"], trust=["/opt/mine.pem"])
    def test_marker(egress_container):
        assert egress_container.exec(SCRIPT).stdout == "2\\n"
"""


@pytest.fixture
def mine_image(engine_client: docker.DockerClient, bare_image: str) -> Iterator[str]:
    """Debian with a bundle in /opt."""
    container = engine_client.containers.create(bare_image)
    try:
        container.put_archive("/", pack({MINE: FIRST}))
        image = container.commit()
    finally:
        container.remove(v=True)
    yield str(image.id)
    engine_client.images.remove(str(image.id), force=True, noprune=True)


def test_the_ini_names_files_for_every_image_that_has_them_and_the_marker_for_its_own(
    pytester: pytest.Pytester, mine_image: str, bare_image: str
) -> None:
    pytester.makeini("[pytest]\negress_trust =\n    /opt/mine.pem\n    /opt/none.pem\n")
    pytester.makepyfile(test_it=MODULE.format(image=mine_image, bare=bare_image))
    pytester.runpytest_subprocess().assert_outcomes(passed=3)


# Browsers.

CHROMIUM_POLICY = "/etc/chromium/policies/managed/pytest-egress.json"
CHROME_POLICY = "/etc/opt/chrome/policies/managed/pytest-egress.json"
FIREFOX_POLICY = "/etc/firefox/policies/policies.json"


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"/usr/bin/chromium": b""}, CHROMIUM_POLICY),
        (
            {"/usr/bin/chromium-browser": link("/usr/lib/it"), "/usr/lib/it": b""},
            CHROMIUM_POLICY,
        ),
        ({"/opt/google/chrome/chrome": b""}, CHROME_POLICY),
    ],
    ids=["chromium", "chromium-browser", "chrome"],
)
def test_a_chromium_gets_a_policy_with_the_ca(
    tree: Tree, path: str, ours: Make, make_image: MakeImage, egress_ca: Any
) -> None:
    policy = json.loads(read(ours(make_image(tree)), path))
    ca = base64.b64encode(der(egress_ca.cert_pem.bytes())).decode()
    assert policy == {"CACertificates": [ca]}


CA = "/etc/pytest-egress/ca.pem"


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, {"policies": {"Certificates": {"Install": [CA]}}}),
        (
            {FIREFOX_POLICY: b'{"policies": {"Certificates": {"Install": ["a"]}, "X": 1}}'},
            {"policies": {"Certificates": {"Install": ["a", CA]}, "X": 1}},
        ),
        (
            {"/usr/lib/firefox/distribution/policies.json": b'{"policies": {"X": 1}}'},
            {"policies": {"Certificates": {"Install": [CA]}, "X": 1}},
        ),
        (
            {FIREFOX_POLICY: b'{"policies": {"Certificates": [7]}}'},
            {"policies": {"Certificates": {"Install": [CA]}}},
        ),
        ({FIREFOX_POLICY: b"no JSON"}, {"policies": {"Certificates": {"Install": [CA]}}}),
    ],
    ids=["none", "of the system", "of its own folder", "of another form", "broken"],
)
def test_a_firefox_keeps_its_policies_and_installs_the_ca(
    tree: Tree, expected: dict[str, Any], ours: Make, make_image: MakeImage
) -> None:
    firefox = {"/usr/bin/firefox": link("../lib/firefox/firefox"), "/usr/lib/firefox/firefox": b""}
    container = ours(make_image({**firefox, **tree}))
    assert json.loads(read(container, FIREFOX_POLICY)) == expected


def test_an_image_without_a_browser_gets_no_policy(
    ours: Make, make_image: MakeImage, is_podman: bool
) -> None:
    paths = files_of(ours(make_image({})), is_podman).keys()
    assert not [path for path in paths if "policies" in path]


# What no image that is used has: it costs neither memory nor the start.

NESTED = b'{"packages": ' + 200_000 * b"["
LARGE = FIRST + b"#" * MAX_FILE_BYTES


def test_what_is_too_large_or_nested_too_deep_is_left(
    make_image: MakeImage, egress: Egress, ca: bytes, engine_client: docker.DockerClient
) -> None:
    folder, cacerts = "/usr/share/pip", "/opt/jdk/lib/security/cacerts"
    tree: Tree = {
        **PYTHON,
        BUNDLE: LARGE,
        f"/usr/local/{SITE}/certifi/cacert.pem": LARGE,
        f"/usr/local/{SITE}/pip/_vendor/certifi/cacert.pem": FIRST,
        f"{folder}/node_modules/.package-lock.json": NESTED,
        "/app/node_modules/.package-lock.json": LARGE,
        "/usr/bin/firefox": file(b"", 0o755),
        "/etc/firefox/policies/policies.json": b'{"policies": ' + 990 * b"[" + 990 * b"]" + b"}",
        cacerts: LARGE,
    }
    changes = ["WORKDIR /app", f"ENV NODE_PATH={folder}/node_modules", "ENV JAVA_HOME=/opt/jdk"]
    target = egress.start(make_image(tree, *changes))
    assert target.wait().exit_code == 0
    container = engine_client.containers.get(target.id)
    assert read(container, BUNDLE) == LARGE
    assert read(container, f"/usr/local/{SITE}/pip/_vendor/certifi/cacert.pem") == FIRST + ca
    assert b"ca.pem" in read(container, "/etc/firefox/policies/policies.json")
    assert [hint for hint in target.hints if "larger" in hint] == [  # type: ignore[attr-defined]
        f"{path} is larger than any roots, and was left as it is"
        for path in (BUNDLE, cacerts, f"/usr/local/{SITE}/certifi/cacert.pem")
    ]
    with pytest.raises(EngineError) as refused:
        egress.run(make_image(tree), trust=[BUNDLE])
    assert str(refused.value).startswith(
        f"trust={BUNDLE!r}: it has more than 16 MiB, which no roots have. What may be one"
    )

"""Where packages may be in an image."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress import Egress
from pytest_egress.targets.trust.packages import Places, from_npm, places

# Where packages may be, by what an image says of itself.


@pytest.mark.parametrize(
    ("instruction", "folders"),
    [
        ("/bin/sh -c #(nop) COPY dir:8400 in /srv/shop ", ("/srv/shop",)),
        ("COPY --from=build /out/node_modules /usr/src/app/node_modules # buildkit", None),
        ("RUN /bin/sh -c python -m venv /opt/venv && /opt/venv/bin/pip install x", ("/opt/venv",)),
        ("RUN /bin/sh -c pip install --prefix=/install -r /app/r.txt", ("/install", "/app")),
        ('ENTRYPOINT ["/code/run.sh"]', ("/code",)),
        ("RUN rm -rf /var/lib/apt/lists/* /tmp/x && ln -s /usr/bin/a /bin/b", ()),
        ("WORKDIR /", ()),
        ("ENV URL=https://example.test/path", ()),
    ],
)
def test_the_folders_that_an_instruction_names_may_be_an_application(
    instruction: str, folders: tuple[str, ...] | None
) -> None:
    found = places({}, "", "", [instruction]).applications
    assert found == (("/out", "/usr/src/app") if folders is None else folders)


def test_the_working_directory_comes_first_and_not_too_many_are_looked_at() -> None:
    history = [f"WORKDIR /folder-{number}" for number in range(100)]
    found = places({}, "/mine", "", history).applications
    assert found[:2] == ("/mine", "/folder-0")
    assert len(found) < 20


def test_variables_name_the_folders_of_programs_and_packages() -> None:
    env = {
        "PATH": "/venv/bin:/usr/local/sbin:/usr/bin:/bin:relative",
        "CONDA_PREFIX": "/conda",
        "PYTHONPATH": "/a::/b/",
        "NODE_PATH": "/n",
        "GEM_HOME": "/g",
        "BUNDLE_PATH": "/bundle",
        "PYTHON_VERSION": "3.12.1",
        "RUBY_VERSION": "x",
    }
    assert places(env, "", "app:app", []) == Places(
        bins=("/venv/bin", "/usr/bin", "/conda/bin"),
        sites=("/a", "/b"),
        modules=("/n",),
        gems=("/g", "/bundle/ruby"),
        home="/home/app",
        python="3.12",
    )


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"packages": 7}', b"\xff"])
def test_a_list_of_packages_that_is_none_names_nothing(content: bytes) -> None:
    assert [*from_npm(content)] == []


@pytest.mark.parametrize(
    ("trust", "error"), [("/a.pem", TypeError), ([b"/a.pem"], TypeError), (["a.pem"], ValueError)]
)
def test_what_is_no_list_of_absolute_paths_is_refused(
    trust: Any, error: type[Exception], egress: Egress
) -> None:
    with pytest.raises(error, match="it takes the absolute paths of files in the container"):
        egress.run("shop:latest", trust=trust)

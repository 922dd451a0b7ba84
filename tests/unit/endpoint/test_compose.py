"""The arguments of `Egress.compose`, the program, and the file that keeps two runs of a project apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_egress import ContainerTimeoutError, EngineError, port_open
from pytest_egress.endpoint.compose import changes_of, compose_options, find_program, run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "compose.yaml"
    made.write_text("services: {}\n")
    return made


def test_paths_are_absolute_and_conditions_lists(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    options = compose_options(wait={"web": port_open(80)}, services=["web"], env={"TAG": "1"})
    assert options.files == (str(file),)
    assert [*options.wait["web"]] == [port_open(80)]
    assert (options.services, options.profiles, options.env) == (("web",), (), {"TAG": "1"})
    assert compose_options(["compose.yaml", file]).files == (str(file), str(file))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"file": "nowhere.yaml"}, "there is no '.*/nowhere.yaml'"),
        ({"file": 7}, "takes the path of a Compose file, or a list, not 7"),
        ({"file": []}, r"takes the path of a Compose file, or a list, not \[\]"),
        ({"file": [b"compose.yaml"]}, "takes paths of Compose files, not b'compose.yaml'"),
        ({"services": "web"}, "services= takes a list of names, not 'web'"),
        ({"services": ["--build"]}, "services= takes names, not '--build'"),
        ({"profiles": [1]}, r"profiles= takes a list of names, not \[1\]"),
        ({"env": {"A": 1}}, "env= takes a dict of names and texts"),
        ({"wait": port_open(80)}, "wait= takes a dict of services and their conditions"),
        ({"wait": {"web": "80"}}, "wait= takes port_open"),
        ({"project_directory": 1}, "takes paths"),
        ({"timeout": -1}, "-1"),
    ],
)
def test_other_arguments_are_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], text: str
) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises((TypeError, ValueError), match=text):
        compose_options(**options)


def test_names_that_two_runs_would_share_are_taken_away() -> None:
    found = changes_of(
        {
            "name": "shop",
            "services": {
                "web": {
                    "container_name": "the-web",
                    "networks": {"back": None, "front": {"aliases": ["www"]}},
                },
                "alone": {"container_name": "the-other", "network_mode": "none"},
                "db": {"networks": {"back": None}},
            },
            "volumes": {
                "data": {"name": "shop_data"},
                "cache": {"name": "the-cache"},
                "theirs": {"name": "theirs", "external": True},
            },
        }
    )
    read = yaml.safe_load(found.replace("!reset ", ""))
    assert read == {
        "services": {
            "web": {
                "container_name": None,
                "networks": {
                    "back": {"aliases": ["the-web"]},
                    "front": {"aliases": ["www", "the-web"]},
                },
            },
            "alone": {"container_name": None},
        },
        "volumes": {"cache": {"name": None}},
    }
    assert changes_of({"name": "shop", "services": {"web": {}}, "volumes": None}) == ""


def test_a_program_that_is_missing_or_old_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="install docker-compose-plugin"):
        find_program()
    old = tmp_path / "docker-compose"
    old.write_text("#!/bin/sh\necho 1.29.2\n")
    old.chmod(0o755)
    with pytest.raises(EngineError, match="version 2 or later"):
        find_program()
    old.write_text("#!/bin/sh\necho v2.26.1-4\n")
    assert find_program() == ("docker-compose",)


def test_a_program_has_its_time(tmp_path: Path) -> None:
    """What it has started is killed too: else its pipes would be open for ten minutes."""
    script = "import subprocess, sys; print('begun', file=sys.stderr, flush=True); "
    script += "subprocess.run(['sleep', '600'])"
    with pytest.raises(ContainerTimeoutError, match=r"(?s)still ran after 3 s, and was killed.*"):
        run([sys.executable, "-c", script], {}, 3)
    done = run([sys.executable, "-c", "import sys; print(1); sys.exit(3)"], {}, 60)
    assert (done.exit_code, done.stdout) == (3, "1\n")

"""Options of containers: what is refused before anything is created."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pytest_egress import Egress
from pytest_egress.targets.options import REFUSED_OPTIONS, check_privileged
from pytest_egress.targets.plan import plan
from tests.support.container_server import error_text

LARGE = 5_000_000 * "x"

# What is refused before anything is created.

OUT = "it would give the target a way out; a target has its sidecar's network and no other"
NO_PORTS = "nothing is published; container.url(port) reaches a port through the sidecar"
NAMES = "every name resolves, and is answered by the test"
REMOVED = "every container is removed at the end of its scope"
HOST = "with it a target can reach the host's network namespace"
REFUSED: list[tuple[str, Any, str]] = [
    ("network", "bridge", OUT),
    ("network_mode", "host", OUT),
    ("network_disabled", True, OUT),
    ("networking_config", {"net": {}}, OUT),
    ("mac_address", "02:00:00:00:00:01", OUT),
    ("ports", {"80/tcp": 8080}, NO_PORTS),
    ("publish_all_ports", True, NO_PORTS),
    ("dns", ["192.0.2.1"], NAMES),
    ("dns_opt", ["ndots:5"], NAMES),
    ("dns_search", ["corp.test"], NAMES),
    ("links", {"db": "db"}, "name the other container in a route instead"),
    (
        "privileged",
        True,
        "a privileged target can leave its namespace; "
        "give it the capabilities it needs with cap_add=[...]",
    ),
    ("auto_remove", True, REMOVED),
    ("remove", True, REMOVED),
    (
        "detach",
        True,
        "egress.start() returns while the container runs, egress.run() when it has ended",
    ),
    (
        "stream",
        True,
        "egress.start() returns a container whose logs() can be read while it runs",
    ),
    ("stdin_open", True, "give what the command reads as input="),
    (
        "name",
        "shop",
        "egress gives each container a name of its own, by which it is told from others; see container.id",
    ),
    ("log_config", {"type": "none"}, "the log is read back into the test's report"),
    ("environment", {"A": "b"}, "the variables go into env="),
    ("working_dir", "/srv", "the folder goes into workdir="),
    ("pid_mode", "host", HOST),
    ("ipc_mode", "host", HOST),
    ("uts_mode", "host", HOST),
    ("pid_mode", "ns:/proc/1/ns/pid", HOST),
    ("ipc_mode", "ns:/proc/1/ns/ipc", HOST),
    ("uts_mode", "Host", HOST),
]


@pytest.mark.parametrize(("name", "value", "instead"), REFUSED, ids=[row[0] for row in REFUSED])
def test_an_option_that_would_leave_the_sidecar_is_refused_by_name(
    egress: Egress, name: str, value: Any, instead: str
) -> None:
    for method in (egress.run, egress.start):
        with pytest.raises(ValueError) as caught:
            method("never:looked-up", **{name: value})
        assert error_text(caught) == f"{name}={value!r} is refused: {instead}"


OUTSIDE = (
    "with it a target can run programs outside of its container, which would not be captured; "
)
RATHER = (
    "mount with volumes= or tmpfs=, and give a browser's sandbox its user namespaces with "
    'security_opt=["seccomp=unconfined"]'
)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cap_add": [name]}, f"cap_add=[{name!r}] is refused: {OUTSIDE}{RATHER}")
        for name in (
            *("SYS_ADMIN", "cap_sys_admin", "ALL", "SYS_MODULE"),
            *("CAP_SYS_RAWIO", "DAC_READ_SEARCH", "BPF"),
        )
    ]
    + [
        ({"cap_add": ("NET_ADMIN", "ALL")}, f"cap_add=['ALL'] is refused: {OUTSIDE}{RATHER}"),
        ({"cap_add": "SYS_ADMIN"}, f"cap_add=['SYS_ADMIN'] is refused: {OUTSIDE}{RATHER}"),
    ]
    + [
        ({"security_opt": [each]}, f"security_opt=[{each!r}] is refused: {OUTSIDE}leave it out")
        for each in ("systempaths=unconfined", "systempaths:unconfined", "unmask=ALL")
    ],
)
def test_what_makes_a_target_root_of_its_machine_is_refused(
    egress: Egress, options: dict[str, Any], error: str
) -> None:
    for method in (egress.run, egress.start):
        with pytest.raises(ValueError) as caught:
            method("never:looked-up", **options)
        assert error_text(caught) == error


def test_other_rights_are_not_refused() -> None:
    options: dict[str, Any] = {
        "cap_add": ["NET_ADMIN", "CAP_NET_RAW", "SYS_PTRACE", "SYS_TIME"],
        "security_opt": ["seccomp=unconfined", "apparmor=unconfined", "no-new-privileges"],
    }
    assert plan("shop", **options).options == options


@pytest.mark.parametrize(
    "security", [["seccomp=unconfined"], ["seccomp:unconfined"], ["seccomp={}"]]
)
def test_a_privileged_command_is_refused_where_the_engines_seccomp_profile_is_not(
    security: list[str],
) -> None:
    with pytest.raises(ValueError) as caught:
        check_privileged(security, "builtin")
    assert str(caught.value) == (
        f"privileged=True is refused in a container with security_opt={security!r}: the command could leave its "
        "container, and would not be captured; leave one of the two out"
    )
    check_privileged(["apparmor=unconfined", "label=disable"], "default")
    check_privileged(None, "builtin")


@pytest.mark.parametrize("profile", ["unconfined", "/etc/docker/seccomp.json", "", None])
def test_a_privileged_command_is_refused_on_an_engine_that_leaves_it_another_profile(
    profile: str | None,
) -> None:
    with pytest.raises(ValueError) as caught:
        check_privileged(None, profile)
    assert str(caught.value) == (
        f"privileged=True is refused on this engine, which leaves such a command the seccomp profile {profile!r}, so "
        "that it could leave its container, and would not be captured; start the container with the capabilities that "
        "the command needs, by cap_add=[...]"
    )


def test_every_refused_option_is_in_the_list_above() -> None:
    assert set(REFUSED_OPTIONS) <= {row[0] for row in REFUSED}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"env": ["A=b"]}, "env= takes a mapping of names to values, not ['A=b']"),
        ({"files": {"/a": 1}}, "files={'/a': ...} takes str, bytes or a Path, not 1"),
        ({"files": "/a"}, "files= takes a mapping of paths to contents, not '/a'"),
        ({"input": 1}, "input= takes str or bytes, not 1"),
        (
            {"extra_hosts": ["db:192.0.2.1"]},
            "extra_hosts= takes a mapping of names to addresses, not ['db:192.0.2.1']",
        ),
        (
            {"enviroment": {}},
            "there is no option enviroment=; besides their own, run() and start() take those of "
            "docker-py's containers.create()",
        ),
    ],
    ids=["env", "file", "files", "input", "extra_hosts", "unknown"],
)
def test_an_option_of_the_wrong_type_is_refused(
    egress: Egress, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(TypeError) as caught:
        egress.run("never:looked-up", **options)
    assert error_text(caught) == error


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"env": {"A": None}}, "env['A'] is None: leave it out, or write '' for an empty value"),
        ({"env": {"A": b"x"}}, "env['A'] takes a str, not bytes; write .decode()"),
        ({"timeout": None}, "timeout=None: it takes a number of seconds"),
    ],
    ids=["none", "bytes", "timeout"],
)
def test_a_value_that_nobody_can_mean_is_refused(
    egress: Egress, options: dict[str, Any], error: str
) -> None:
    for method in (egress.run, egress.start):
        with pytest.raises(TypeError) as caught:
            method("never:looked-up", **options)
        assert error_text(caught) == error


def test_an_option_that_is_refused_may_be_given_unset() -> None:
    unset: dict[str, Any] = {"environment": {}, "stdin_open": False}
    checked = plan(
        "shop",
        env={"N": "1"},
        files={Path("/x"): "a"},  # type: ignore[dict-item]  # more than is promised
        **unset,
    )
    assert (checked.options, checked.env) == ({}, {"N": "1"})
    with tarfile.open(fileobj=io.BytesIO(checked.files or b"")) as archive:
        assert archive.getnames() == ["x"]


@pytest.mark.parametrize(
    ("image", "command", "error"),
    [
        ("", None, "the image is a name like 'shop:latest', not ''"),
        (None, None, "the image is a name like 'shop:latest', not None"),
        ("shop", 5, "the command is a list of arguments, or a string, not 5"),
        ("shop", ["a", 5], "5 in the command ['a', 5] is no str; write '5'"),
    ],
    ids=["empty", "none", "number", "member"],
)
def test_an_image_or_command_that_is_none_is_refused(
    egress: Egress, image: Any, command: Any, error: str
) -> None:
    with pytest.raises(TypeError) as caught:
        egress.run(image, command)
    assert error_text(caught) == error


@pytest.mark.parametrize(
    "word",
    [
        "&&",
        "||",
        "|",
        ";",
        ">",
        ">>",
        "<",
        "2>&1",
        "&",
        "srv;",
        ">/tmp/x",
        "2>",
        "1>&2",
        "|&",
        "&>x",
    ],
)
def test_a_word_for_a_shell_in_a_string_is_refused_with_the_list_that_has_a_shell(
    egress: Egress, word: str
) -> None:
    command = f"curl 'a b' {word} cat"
    for method in (egress.run, egress.start):
        with pytest.raises(ValueError) as caught:
            method("never:looked-up", command)
        assert error_text(caught) == (
            f"{word!r} in the command {command!r} is for a shell, and no shell sees a string: "
            f'write ["sh", "-c", {command!r}]; a quoted {word!r} is passed as it is'
        )


@pytest.mark.parametrize(
    "command",
    [
        ["curl", "&&", "|"],
        "grep '|' \">\" file",
        r"find . -exec rm {} \;",
        r"echo a \&\& b",
        "sh -c 'a && b'",
        'sh -c"a && b"',
        "curl a?x=1&y=2",
        "#",
        "",
    ],
    ids=repr,
)
def test_what_is_quoted_or_in_a_list_is_passed_as_it_is(command: str | list[str]) -> None:
    assert plan("shop", command).command == command


def test_a_quotation_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the command \"echo 'a\": No closing quotation"):
        plan("shop", "echo 'a")


HALF = "half of a surrogate pair is no text; give bytes, or another letter"


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        (["echo", "\ud800"], {}, "command='\\ud800'"),
        ("\ud800", {}, "command='\\ud800'"),
        (None, {"env": {"A": "\ud800"}}, "env='\\ud800'"),
        (None, {"env": {"\ud800": ""}}, "env='\\ud800'"),
        (None, {"files": {"/\ud800": b""}}, "files='/\\ud800'"),
        (None, {"files": {"/a": "\ud800"}}, "files='\\ud800'"),
        (None, {"input": "\ud800"}, "input='\\ud800'"),
        (None, {"trust": ["/\ud800"]}, "trust='/\\ud800'"),
        (None, {"hostname": "\ud800"}, "hostname='\\ud800'"),
        (None, {"user": "\ud800"}, "an option='\\ud800'"),
    ],
)
def test_a_text_that_is_none_in_utf_8_is_refused(
    egress: Egress, command: Any, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError) as caught:
        egress.run("never:looked-up", command, **options)
    assert error_text(caught) == f"{error}: {HALF}"


@pytest.mark.parametrize(
    "options",
    [
        {"env": [LARGE]},
        {"files": {LARGE: 1}},
        {"files": {"/a": [LARGE]}},
        {"trust": LARGE},
        {"trust": [LARGE]},
        {"wait": LARGE},
        {"timeout": LARGE},
        {"network": LARGE},
        {"command": [LARGE, 5]},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_value_is_quoted_cut(egress: Egress, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        egress.start("never:looked-up", options.pop("command", None), **options)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("container", ["", "\ud800", "a b", "../x", None, 5, f"{LARGE} "])
def test_what_is_no_container_is_not_asked_for(egress: Egress, container: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^trust\(\) takes docker-py's container, or its name"
    ) as no:
        egress.trust(container)
    assert len(str(no.value)) < 200


@pytest.mark.parametrize("route", ["charge", None, LARGE])
def test_what_is_no_route_has_no_order(egress: Egress, route: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^assert_order\(\) takes routes, as intercept_https"
    ) as no:
        egress.assert_order(route)
    assert len(str(no.value)) < 200
    with pytest.raises(TypeError, match=r"^assert_before\(\) takes routes"):
        egress.assert_before(egress.block("api.test"), route)

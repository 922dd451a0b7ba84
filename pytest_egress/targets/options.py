"""Checks the options of a container, before anything is started.

The marker is checked at collection by the same function that the methods call, so that both refuse the same values in
the same words. This module does not import docker, which takes long: `plan` checks docker-py's own options.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_egress.targets.mounts import check_mounts
from pytest_egress.traffic.shown import shown

START_OPTIONS: Final = (
    "env",
    "files",
    "user",
    "workdir",
    "entrypoint",
    "input",
    "trust",
    "wait",
    "timeout",
)
"""The options of a container that are ours; all others are docker-py's."""
NETWORK: Final = (
    "it would give the target a way out; a target has its sidecar's network and no other"
)
REFUSED_OPTIONS: Final[Mapping[str, str]] = {
    "network": NETWORK,
    "network_mode": NETWORK,
    "network_disabled": NETWORK,
    "networking_config": NETWORK,
    "mac_address": NETWORK,
    "ports": "nothing is published; container.url(port) reaches a port through the sidecar",
    "publish_all_ports": "nothing is published; container.url(port) reaches a port through the sidecar",
    "dns": "every name resolves, and is answered by the test",
    "dns_opt": "every name resolves, and is answered by the test",
    "dns_search": "every name resolves, and is answered by the test",
    "links": "name the other container in a route instead",
    "privileged": "a privileged target can leave its namespace; give it the capabilities it needs with cap_add=[...]",
    "auto_remove": "every container is removed at the end of its scope",
    "remove": "every container is removed at the end of its scope",
    "detach": "egress.start() returns while the container runs, egress.run() when it has ended",
    "stream": "egress.start() returns a container whose logs() can be read while it runs",
    "stdin_open": "give what the command reads as input=",
    "environment": "the variables go into env=",
    "working_dir": "the folder goes into workdir=",
    "name": "egress gives each container a name of its own, by which it is told from others; see container.id",
    "log_config": "the log is read back into the test's report",
}
HOST_CAPABILITIES: Final = frozenset(
    ("ALL", "BPF", "DAC_READ_SEARCH", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO")
)
"""With each of them root of a container is root of its machine, and so has that machine's network.

SYS_ADMIN mounts another /proc, where `sys/kernel/core_pattern` names a program that the kernel starts outside.
DAC_READ_SEARCH opens files of the machine by their handles (open_by_handle_at(2)). SYS_MODULE and BPF change the
kernel, and SYS_RAWIO has the ports of the hardware. That an engine's AppArmor may refuse some of it is not relied on.
"""
OWN_NAMESPACES: Final = ("", "private", "shareable", "none")
"""The modes of pid_mode, ipc_mode and uts_mode that are no other's; `processes` looks at those of a container."""
UNSHIELDING: Final = ("systempaths", "unmask", "proc-opts")
"""Settings of security_opt that take the engine's shield from the same files of /proc."""
OWN_PROFILES: Final = ("builtin", "default")
"""The names of Docker's own seccomp profile (`GET /info`, SecurityOptions), which refuses mounts and namespaces."""
COULD_LEAVE: Final = "could leave its container, and would not be captured"
SIDECAR_OPTIONS: Final = ("hostname", "domainname", "extra_hosts")
"""The engine refuses them beside network_mode=container:."""


def check_container_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for options by which a target could leave its sidecar, and for those that egress sets itself."""
    for name, instead in REFUSED_OPTIONS.items():
        if options.get(name):
            raise ValueError(f"{name}={shown(options[name])} is refused: {instead}")
    for name in ("pid_mode", "ipc_mode", "uts_mode"):
        check_namespace(options.get(name), name)
    check_capabilities(options.get("cap_add"), "cap_add")
    check_security(options.get("security_opt"), "security_opt")
    check_mounts(options)


def check_namespace(mode: object, option: str) -> None:
    """Raise ValueError for a namespace of the host, by whatever name; Podman takes "ns:/proc/1/ns/pid" too."""
    if isinstance(mode, str) and not (mode in OWN_NAMESPACES or mode.startswith("container:")):
        raise ValueError(
            f"{option}={mode!r} is refused: with it a target can reach the host's network namespace"
        )


def check_capabilities(added: object, option: str) -> None:
    """Raise ValueError for a capability with which a target can leave its namespaces, as the engines read its name."""
    for name in texts_in(added):
        if name.strip().upper().removeprefix("CAP_") in HOST_CAPABILITIES:
            raise ValueError(
                f"{option}=[{shown(name)}] is refused: with it a target can run programs outside of its container, "
                "which would not be captured; mount with volumes= or tmpfs=, and give a browser's sandbox its user "
                'namespaces with security_opt=["seccomp=unconfined"]'
            )


def check_security(settings: object, option: str) -> None:
    for each in texts_in(settings):
        if setting_name(each) in UNSHIELDING:
            raise ValueError(
                f"{option}=[{shown(each)}] is refused: with it a target can run programs outside of its container, "
                "which would not be captured; leave it out"
            )


def setting_name(setting: str) -> str:
    return re.split("[=:]", setting, maxsplit=1)[0].strip().lower()


def texts_in(value: object) -> list[str]:
    """The texts of a list, or the one text that an engine takes for a list."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [each for each in values if isinstance(each, str)]


def check_privileged(security: object, engine_profile: str | None) -> None:
    """Raise ValueError for a privileged command that no seccomp profile of the engine's holds in its container.

    Args:
        security: The container's `SecurityOpt`.
        engine_profile: The profile that the engine leaves to a privileged command; None where it leaves none.
    """
    if engine_profile not in OWN_PROFILES:
        raise ValueError(
            f"privileged=True is refused on this engine, which leaves such a command the seccomp profile "
            f"{shown(engine_profile)}, so that it {COULD_LEAVE}; start the container with the capabilities that the "
            "command needs, by cap_add=[...]"
        )
    for each in texts_in(security):
        if setting_name(each) == "seccomp":
            raise ValueError(
                f"privileged=True is refused in a container with security_opt=[{shown(each)}]: the command "
                f"{COULD_LEAVE}; leave one of the two out"
            )


ACCEPTED_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "env": ((Mapping,), "a mapping of names to values"),
    "files": ((Mapping,), "a mapping of paths to contents"),
    "input": ((str, bytes), "str or bytes"),
    "extra_hosts": ((Mapping,), "a mapping of names to addresses"),
}
"""For each option of a container: the types of its values, and these in words."""


def container(image: object, command: object = None, **options: Any) -> None:
    """Raise TypeError or ValueError, with the value and what is accepted, for bad arguments of `start` and `run`."""
    if not isinstance(image, str) or not image.strip():
        raise TypeError(f"the image is a name like 'shop:latest', not {shown(image)}")
    check_command(command)
    for name, (types, words) in ACCEPTED_TYPES.items():
        if not isinstance(options.get(name), (*types, type(None))):
            raise TypeError(f"{name}= takes {words}, not {shown(options[name])}")
    check_env(options.get("env") or {})
    check_files(options.get("files") or {})
    check_trust(options.get("trust"))
    check_container_options(options)
    for name, value in {"image": image, "command": command, **options}.items():
        check_text(name, value)


def check_text(name: str, value: object) -> None:
    """Raise ValueError for a text that UTF-8 cannot encode, wherever in the value: an engine would replace it."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{name}={shown(value)}: half of a surrogate pair is no text; give bytes, or another letter"
            ) from None
    elif isinstance(value, Mapping):
        for pair in value.items():
            check_text(name, pair)
    elif isinstance(value, (list, tuple)):
        for each in value:
            check_text(name, each)


SHELL_WORD: Final = re.compile(r"&&|\|\|?|\|&|&|.*;|[0-9]*(?:>|<).*|&>.*")
"""A word that a shell takes for an operator, a redirection, or the end of a command (POSIX, Shell Command Language)."""


def check_command(command: object) -> None:
    """None is the image's own command."""
    if isinstance(command, str):
        check_words(command)
    if not isinstance(command, (str, list, tuple, type(None))):
        raise TypeError(f"the command is a list of arguments, or a string, not {shown(command)}")
    for argument in command if isinstance(command, (list, tuple)) else ():
        if not isinstance(argument, str):
            raise TypeError(
                f"{shown(argument)} in the command {shown(command)} is no str; write {shown(str(argument))}"
            )


def check_exec(command: object, env: Mapping[str, object]) -> None:
    if command is None:
        raise TypeError("the command is a list of arguments, or a string, not None")
    check_command(command)
    check_text("command", command)
    check_env(env)
    check_text("env", env)


def check_words(command: str) -> None:
    """Raise ValueError for a word that only a shell understands, unless it is quoted: a string is split without one."""
    for word, written in words_of(command):
        if word == written and SHELL_WORD.fullmatch(word):
            raise ValueError(
                f"{shown(word)} in the command {shown(command)} is for a shell, and no shell sees a string: write "
                f'["sh", "-c", {command!r}]; a quoted {shown(word)} is passed as it is'
            )


def words_of(command: str) -> Iterator[tuple[str, str]]:
    """Each word of a command, and how it is written there; ValueError where a quotation has no end."""
    text = io.StringIO(command)
    words = shlex.shlex(text, posix=True)
    words.whitespace_split, words.commenters = True, ""
    begins = 0
    try:
        while (word := words.get_token()) is not None:
            yield word, command[begins : text.tell()].strip()
            begins = text.tell()
    except ValueError as error:  # of shlex
        raise ValueError(f"the command {shown(command)}: {error}") from None


def check_env(env: Mapping[str, object]) -> None:
    for name, value in env.items():
        if value is None:
            raise TypeError(
                f"env[{shown(name)}] is None: leave it out, or write '' for an empty value"
            )
        if isinstance(value, bytes):
            raise TypeError(f"env[{shown(name)}] takes a str, not bytes; write .decode()")


def check_files(files: Mapping[object, object]) -> None:
    for path, content in files.items():
        if not isinstance(content, (str, bytes, Path)):
            raise TypeError(
                f"files={{{shown(str(path))}: ...}} takes str, bytes or a Path, not {shown(content)}"
            )


def check_trust(paths: object) -> None:
    form = 'it takes the absolute paths of files in the container, trust=["/app/roots.pem"]'
    if not isinstance(paths, (list, tuple, type(None))):
        raise TypeError(f"trust={shown(paths)}: {form}")
    for path in paths or ():
        if not isinstance(path, str):
            raise TypeError(f"trust=[{shown(path)}]: {form}")
        if not path.startswith("/"):
            raise ValueError(f"trust=[{shown(path)}]: {form}")

"""What a test declares, checked where it is declared: routes and the options of containers.

Markers are checked at collection with the very functions that the methods call, so that both refuse the same things
in the same words. Imports neither docker nor trustme.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_egress.address import Address, parse_address
from pytest_egress.errors import AddressError
from pytest_egress.kinds import Kind
from pytest_egress.matching import MATCHERS, Match
from pytest_egress.routing import Declaration, check_answer

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

OWN_OPTIONS: Final = ("times", "optional", "name")
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
"""Of a container that starts; the others are docker-py's."""


def accepted_options(kind: Kind) -> tuple[str, ...]:
    """The keywords that a route of that kind takes."""
    if not kind.has_handler:
        return ()
    matchers = MATCHERS if kind.reads_requests else ()
    return (*matchers, *OWN_OPTIONS, *(("client_certificate",) if kind.ends_tls else ()))


def declare(kind: Kind, address: object, answer: object = None, **options: Any) -> Declaration:
    """Check the arguments of the method of `Egress` that declares a route of that kind.

    Raises:
        AddressError, TypeError, ValueError: With the value, and what is accepted.
    """
    parsed = parse_address(address, default_port=kind.default_port)
    accepted = accepted_options(kind)
    if unknown := [name for name in options if name not in accepted]:
        takes = f"it takes {', '.join(accepted)}" if accepted else "it takes no keywords"
        raise TypeError(f"{kind.method}() does not take {unknown[0]}=; {takes}")
    match = {name: options.pop(name) for name in MATCHERS if name in options}
    declaration = Declaration(
        kind=kind,
        address=parsed,
        answer=check_answer(kind, answer),
        match=Match(**match),
        **options,
    )
    if kind.answers_names:
        check_host_name(parsed)
    return declaration


def declaring(kind: Kind) -> Callable[..., Declaration]:
    """A function with the arguments of the method of `Egress` that declares a route of that kind: for markers."""

    def with_handler(address: object, handler: object = None, **options: Any) -> Declaration:
        return declare(kind, address, handler, **options)

    def with_answer(name: object, answer: object) -> Declaration:
        return declare(kind, name, answer)

    def with_address(address: object) -> Declaration:
        return declare(kind, address)

    function: Callable[..., Declaration] = with_handler
    if not kind.has_handler:
        function = with_answer if kind.answers_names else with_address
    function.__qualname__ = kind.method  # by which Python names it where an argument is missing
    return function


def check_host_name(address: Address) -> None:
    """Refuse what no question of DNS is about.

    Raises:
        AddressError: It has a port, or is an IP address or a network.
    """
    if address.port is not None:
        raise AddressError(f"{address.text!r}: names have no port in DNS; leave it out")
    if "/" in address.host or ":" in address.host or address.host.rpartition(".")[2].isdigit():
        raise AddressError(f"{address.text!r}: DNS is asked for names, and this is no name")


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
SIDECAR_OPTIONS: Final = (
    "hostname",
    "domainname",
    "extra_hosts",
)  # the engine refuses them beside network_mode=container:


def check_container_options(options: Mapping[str, Any]) -> None:
    """Refuse what would let a target leave its sidecar, or what egress does itself.

    Raises:
        ValueError: Names the option, and what to do instead.
    """
    for name, instead in REFUSED_OPTIONS.items():
        if options.get(name):
            raise ValueError(f"{name}={options[name]!r} is refused: {instead}")
    for name in ("pid_mode", "ipc_mode", "uts_mode"):
        if options.get(name) == "host":
            raise ValueError(
                f"{name}='host' is refused: with it a target can reach the host's network namespace"
            )


ACCEPTED_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "env": ((Mapping,), "a mapping of names to values"),
    "files": ((Mapping,), "a mapping of paths to contents"),
    "input": ((str, bytes), "str or bytes"),
    "extra_hosts": ((Mapping,), "a mapping of names to addresses"),
}
"""Option of a container to what it may be, as types and in words."""


def container(image: object, command: object = None, **options: Any) -> None:
    """Check the arguments of `start` and `run`.

    Raises:
        TypeError, ValueError: With the value, and what is accepted.
    """
    if not isinstance(image, str) or not image.strip():
        raise TypeError(f"the image is a name like 'shop:latest', not {image!r}")
    check_command(command)
    for name, (types, words) in ACCEPTED_TYPES.items():
        if not isinstance(options.get(name), (*types, type(None))):
            raise TypeError(f"{name}= takes {words}, not {options[name]!r}")
    check_env(options.get("env") or {})
    check_files(options.get("files") or {})
    check_trust(options.get("trust"))
    check_container_options(options)


def check_command(command: object) -> None:
    """Refuse what is no command: None is the image's own, a string is split, a list has its arguments."""
    if not isinstance(command, (str, list, tuple, type(None))):
        raise TypeError(f"the command is a list of arguments, or a string, not {command!r}")
    for argument in command if isinstance(command, (list, tuple)) else ():
        if not isinstance(argument, str):
            raise TypeError(
                f"{argument!r} in the command {command!r} is no str; write {str(argument)!r}"
            )


def check_env(env: Mapping[str, object]) -> None:
    """Refuse what would become a text that nobody meant."""
    for name, value in env.items():
        if value is None:
            raise TypeError(f"env[{name!r}] is None: leave it out, or write '' for an empty value")
        if isinstance(value, bytes):
            raise TypeError(f"env[{name!r}] takes a str, not the bytes {value!r}")


def check_files(files: Mapping[object, object]) -> None:
    """Refuse what is no content of a file."""
    for path, content in files.items():
        if not isinstance(content, (str, bytes, Path)):
            raise TypeError(
                f"files={{{str(path)!r}: ...}} takes str, bytes or a Path, not {content!r}"
            )


def check_trust(paths: object) -> None:
    """Refuse what is no list of absolute paths.

    Raises:
        TypeError, ValueError: With the value, and what is accepted.
    """
    form = 'it takes the absolute paths of files in the container, trust=["/app/roots.pem"]'
    if not isinstance(paths, (list, tuple, type(None))):
        raise TypeError(f"trust={paths!r}: {form}")
    for path in paths or ():
        if not isinstance(path, str):
            raise TypeError(f"trust=[{path!r}]: {form}")
        if not path.startswith("/"):
            raise ValueError(f"trust=[{path!r}]: {form}")

"""The command `pytest-egress`.

`doctor` tries what a test needs, and `clean` removes what killed runs have left. `lock export` prints an `egress.lock`
as the rules of those who enforce them. `audit`, `record`, `watch` and `diff` run an image.

The rest of the package is imported where it is used, so that `--help` is quick and needs no engine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from pytest_egress.base.clock import monotonic

if TYPE_CHECKING:
    from pytest_egress.commands.order import Order
    from pytest_egress.engine.engine import Engine
    from pytest_egress.evidence.lock import Lock
    from pytest_egress.targets.sidecars.provision import SidecarSetup
    from pytest_egress.targets.sidecars.sidecar import AnyLink, Sidecar

PROBE_ADDRESS: Final = ("203.0.113.9", 443)  # a documentation address (RFC 5737)
PROBE_SECONDS: Final = 5
FORMATS: Final = ("networkpolicy", "cilium", "harden-runner", "squid", "cyclonedx")
FEW: Final = 256  # connections of one container at once
SHOWN_PROGRAM: Final = 80  # characters
TROUBLE: Final = 2  # the exit code where a command could not be run
IMAGE_COMMANDS: Final = {
    "audit": "try what an image asks, sends and accepts; exit code 1 with a finding",
    "record": "write a test and its cassette, of one run that reaches the real upstreams",
    "watch": "run an image with nothing let out, print its attempts, and a test about them",
}
INTERRUPTED: Final = 130  # by Ctrl-C, as a shell has it
PIPE_CLOSED: Final = 141  # by a reader that has left, as a shell has it


class Parser(argparse.ArgumentParser):
    """Quotes no secret of a command line that it refuses."""

    def error(self, message: str) -> NoReturn:
        from pytest_egress.traffic.redaction.redactor import BY_NAMES

        super().error(BY_NAMES.text(message))


def main(arguments: Sequence[str] | None = None) -> int:
    """The arguments are the command line's; None for those of this process."""
    parser = Parser(
        prog="pytest-egress", description="Looks after what the tests of containers need."
    )
    installed = f"%(prog)s {version('pytest-egress')}"
    parser.add_argument("--version", action="version", version=installed)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="try what a test needs, and say what to do where it fails")
    clean = commands.add_parser("clean", help="remove what killed runs have left on the engine")
    clean.add_argument(
        "--kept", action="store_true", help="also the containers that --egress-keep has left"
    )
    add_images(commands)
    add_lock(commands)
    chosen = parser.parse_args(arguments)
    run: Callable[[], int] = {
        "doctor": lambda: doctor(),
        "clean": lambda: remove_leftovers(kept=chosen.kept),
        "lock": lambda: export(chosen.file, chosen.format, chosen.image),
        **dict.fromkeys((*IMAGE_COMMANDS, "diff"), lambda: run_order(chosen)),
    }[chosen.command]
    return whole(run)


def whole(run: Callable[[], int]) -> int:
    """Run the command that was chosen; Ctrl-C ends it, in the imports too, and so does a reader that has left."""
    for name in ("stdout", "stderr"):
        # Closed, as by `>&-`: a file that is opened next would get its number.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # until the process ends
    try:
        code = run()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        leave_output()
        return PIPE_CLOSED
    except OSError as error:  # such as a full disk
        leave_output()
        return trouble(f"standard output cannot be written: {error}")


def leave_output() -> None:
    """What is left of the output goes nowhere: at its end Python would try again, and say so."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_lock(commands: argparse._SubParsersAction[Parser]) -> None:
    lock = commands.add_parser("lock", help="write an egress.lock as rules that something enforces")
    export = lock.add_subparsers(dest="lock_command", required=True).add_parser("export")
    export.add_argument("--format", required=True, choices=FORMATS, help="who enforces the rules")
    export.add_argument("--image", default=None, help="the only image whose lines are written")
    export.add_argument("file", nargs="?", default="egress.lock", help="by default egress.lock")
    diff = commands.add_parser(
        "diff",
        help="compare two images, two locks, or one of each: exit code 0 where they are alike, 1 where they differ",
    )
    diff.add_argument("--markdown", action="store_true", help="for a comment on a pull request")
    add_running(diff)
    diff.add_argument(
        "old", metavar="OLD", help="an egress.lock, or an image, which is run as audit does"
    )
    diff.add_argument("new", metavar="NEW", help="the other one")
    add_command(diff)


# What runs an image.


def add_images(commands: argparse._SubParsersAction[Parser]) -> None:
    for name, about in IMAGE_COMMANDS.items():
        parser = commands.add_parser(name, help=about)
        if name == "audit":
            parser.add_argument("--report", metavar="DIR", help="write a page about each run")
            parser.add_argument(
                "--allow-clear",
                action="append",
                default=[],
                metavar="ADDRESS",
                help="host[:port] that may be asked outside of TLS; more than once for more",
            )
        add_order(parser)


def add_order(parser: argparse.ArgumentParser) -> None:
    add_running(parser)
    parser.add_argument("image", metavar="IMAGE")
    add_command(parser)


def add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-e",
        dest="env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="a variable; without a value, that of this environment",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="for one run, 60 by default"
    )


def add_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "argv", metavar="COMMAND", nargs=argparse.REMAINDER, help="in place of the image's"
    )


def run_order(chosen: argparse.Namespace) -> int:
    """TROUBLE is returned where the image could not be run, which is told without secrets."""
    from pytest_egress.commands.order import order_of
    from pytest_egress.commands.order import without_secrets as without_secrets_of

    try:
        order = order_of(
            getattr(chosen, "image", ""),
            chosen.argv,
            chosen.env,
            chosen.timeout,
            getattr(chosen, "report", None),
            getattr(chosen, "allow_clear", ()),
        )
    except (TypeError, ValueError) as error:
        return trouble(str(error))
    from pytest_egress.errors import CassetteError, ContainerError, EgressError, EngineError

    try:
        return command_of(chosen)(order)
    except BrokenPipeError:
        raise
    except (
        CassetteError,
        ContainerError,
        EgressError,
        EngineError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        return trouble(without_secrets_of(order, f"{type(error).__name__}: {error}"))


def command_of(chosen: argparse.Namespace) -> Callable[[Order], int]:
    """What is imported is of the chosen command alone: two locks are compared without an engine."""
    match chosen.command:
        case "audit":
            from pytest_egress.commands.audit import audit

            return audit
        case "record":
            from pytest_egress.commands.record import record

            return record
        case "watch":
            from pytest_egress.commands.watch import watch

            return watch
    from pytest_egress.commands.diff import diff

    return lambda order: diff(chosen.old, chosen.new, order, markdown=chosen.markdown)


# doctor


class Examination:
    """The requirements of a test, as checks; each check needs those before it to have passed."""

    def __init__(self, engine: Engine, stack: contextlib.ExitStack) -> None:
        self.engine, self.stack = engine, stack
        self.sidecar: Sidecar
        self.link: AnyLink
        self.setup: SidecarSetup
        self.way = ""

    def checks(self) -> dict[str, Callable[[], str]]:
        """Each check returns its finding as text, or raises an `EngineError`."""
        return {
            "engine": self.check_engine,
            "sidecar": self.check_sidecar,
            "capture": self.check_capture,
        }

    def check_engine(self) -> str:
        from pytest_egress.engine.endpoint import engine_address

        said = self.engine.client.version()
        about = f"{said['Version']}, API {said['ApiVersion']}, kernel {said['KernelVersion']}"
        return f"{about}, at {engine_address(self.engine.client)}"

    def check_sidecar(self) -> str:
        from pytest_egress.targets.sidecars.provision import Provisioner

        Provisioner(self.engine).sidecar(self._start_sidecar, self.stack.close)
        families = "IPv4 and IPv6" if self.link.ipv6 else "IPv4 alone: this engine has no IPv6"
        frames = "" if self.link.frames else "; this kernel does not record frames"
        has_raw = self.link.datagrams is not None
        datagrams = "" if has_raw else "; no CAP_NET_RAW: egress.intercept_udp() is refused"
        return f"{self.setup}{self.way}, {families}{frames}{datagrams}"

    def _start_sidecar(self, setup: SidecarSetup) -> None:
        from pytest_egress.targets.sidecars.relay import RelayOfRun
        from pytest_egress.targets.sidecars.sidecar import Sidecar

        engine, relays = self.engine, RelayOfRun(self.engine)
        self.stack.callback(relays.close)
        relay = relays.for_sidecar(setup)
        if relay is not None:
            self.way = f" by a relay at {relay.address[0]}:{relay.address[1]}"
        elif relays.refusal:
            self.way = f" without a relay: {relays.refusal}"
        self.sidecar = Sidecar.create(
            engine.client,
            labels=engine.marks,
            folder=engine.folder,
            setup=setup,
            relay=relay,
            removes_itself=not engine.is_podman,
        )
        self.stack.callback(self.sidecar.remove)
        self.setup, self.link = setup, self.sidecar.start()
        self.stack.callback(self.link.close)

    def check_capture(self) -> str:
        """Check that a connection out of the sidecar's network arrives in this process."""
        from pytest_egress.errors import LinkError
        from pytest_egress.link.attach import Output

        code = f"import socket; socket.create_connection({PROBE_ADDRESS}, {PROBE_SECONDS}).sendall(b'hello')"
        sidecar = self.engine.container(self.sidecar.id)
        command = [*self.setup.python(), "-c", code]
        action = "run a client in the sidecar"
        output = Output()
        exit_code = self.engine.exec(sidecar, command, {}, action, output, lambda: PROBE_SECONDS)
        if exit_code:
            raise LinkError(f"a connection failed in the sidecar: {output.tail!r}")
        ready, _, _ = select.select(self.link.tcp, [], [], PROBE_SECONDS)
        if not ready:
            raise LinkError("a connection did not arrive")
        accepted, _ = ready[0].accept()
        with accepted:
            dialled = self.link.destination(accepted)
        if dialled != PROBE_ADDRESS:
            raise LinkError(f"a connection to {PROBE_ADDRESS} arrived as one to {dialled}")
        host, port = PROBE_ADDRESS
        return f"a connection to {host}:{port} arrived here and nowhere else"


def doctor() -> int:
    """The checks run up to the first that fails; the result is the exit code."""
    from pytest_egress.errors import EngineError

    with own_engine() as engine, contextlib.ExitStack() as stack:
        examination = Examination(engine, stack)
        for name, check in examination.checks().items():
            began = monotonic()
            try:
                found = check()
            except EngineError as error:
                told = textwrap.indent(without_secrets(str(error)), " " * 8)
                print(f"FAILED  {name}:", told, sep="\n")
                return 1
            print(
                f"ok      {name}: {without_secrets(found)}  ({(monotonic() - began) * 1000:.0f} ms)"
            )
        for note in notes(examination.link.most):
            print(f"note    {without_secrets(note)}")
    print("Everything that a test needs is there.")
    return 0


def notes(most: int) -> Iterator[str]:
    """What a test may do without, and some tests may not; `most` is how many connections the link carries at once."""
    from pytest_egress.base.sockets import descriptor_limit
    from pytest_egress.engine.endpoint import missing_helpers
    from pytest_egress.traffic.shown import cut

    if (room := most - most // 4) < FEW:
        yield (
            f"descriptors: `ulimit -n` is {descriptor_limit()}, which is {room} connections of a container at once; "
            "`ulimit -n 4096` before pytest gives more"
        )
    for program in missing_helpers(os.environ):
        yield (
            f"credentials: {cut(repr(program), SHOWN_PROGRAM)}, which keeps them (config.json of Docker), "
            "is not in PATH; images of private registries cannot be pulled"
        )


@contextlib.contextmanager
def own_engine() -> Iterator[Engine]:
    """Everything that the engine created is removed at the end."""
    from pytest_egress.engine.engine import Engine
    from pytest_egress.session import default_client

    engine = Engine(default_client, uuid.uuid4().hex)
    try:
        yield engine
    finally:
        engine.close()


# clean


def remove_leftovers(*, kept: bool) -> int:
    """Remove leftovers, with `kept` those of --egress-keep too; return the exit code."""
    from pytest_egress.engine.leftovers import remove_orphans
    from pytest_egress.errors import EngineError

    try:
        with own_engine() as engine:
            others = remove_orphans(engine.client, kept=kept)
            removed = {*engine.orphans, *others}
    except EngineError as error:
        print(without_secrets(str(error)))
        return 1
    print(f"removed {len(removed)} container{'s' * (len(removed) != 1)}")
    return 0


# lock and diff


def export(file: str, form: str, image: str | None) -> int:
    """Print a lock as rules; return the exit code."""
    from pytest_egress.evidence.lock import Lock
    from pytest_egress.evidence.policies import FORMATS, PolicyError, images_of

    lock = lock_in(file)
    if lock is None:
        return TROUBLE
    if image is not None:
        if image not in (listed := images_of(lock)):
            return trouble(f"{file} has no image {image!r}; it has {', '.join(listed) or 'none'}")
        lock = Lock(lines=frozenset(line for line in lock.lines if line.image == image))
    try:
        print(FORMATS[form](lock), end="")
    except PolicyError as error:
        return trouble(str(error))
    return 0


def lock_in(file: str) -> Lock | None:
    """The lock that a file has; None where it is none, which has been told."""
    from pytest_egress.errors import LockFileError
    from pytest_egress.evidence.lock import Lock

    try:
        return Lock.read(Path(file).read_text("utf-8"))
    except (LockFileError, OSError, UnicodeDecodeError) as error:
        trouble(f"{file}: {error}")
        return None


def trouble(text: str) -> int:
    print(without_secrets(text), file=sys.stderr)
    return TROUBLE


def without_secrets(text: str) -> str:
    """Without what is a secret by its form: the address of an engine may have a password, and `-e` be given a key."""
    from pytest_egress.traffic.redaction.redactor import BY_NAMES

    return BY_NAMES.hidden(text)

"""`Egress`, the object that tests use: it declares routes, starts containers, and has the ledger and the assertions.

This module knows nothing of pytest: `with Egress() as egress:` works anywhere. The class is long because tests call
all of its methods on one object, and each names all of its parameters, for editors and type checkers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import pytest_egress.routes.kinds as kinds
import pytest_egress.targets.handle as container_handle
from pytest_egress.base.clock import check_seconds, is_seconds
from pytest_egress.base.renamed import renamed
from pytest_egress.base.unset import UNSET
from pytest_egress.errors import CallError
from pytest_egress.inner_egress import InnerEgress
from pytest_egress.ledger.encryption import (
    checked_addresses,
    checked_minimum,
    weak,
    weak_error,
)
from pytest_egress.ledger.order import check_before, check_order
from pytest_egress.ledger.report import (
    no_container_text,
    route_line,
    surplus_headline,
    surplus_text,
)
from pytest_egress.routes.answers import (
    DatagramsAnswer,
    Delivered,
    DnsAnswer,
    HttpAnswer,
    RawAnswer,
    Service,
)
from pytest_egress.routes.certificates import BadCertificate, TlsVersion
from pytest_egress.routes.datagrams import DatagramPart, DatagramService
from pytest_egress.routes.declarations import ClientCertificate, declare
from pytest_egress.routes.kinds import Kind
from pytest_egress.routes.patterns import QueryValue, TextPattern
from pytest_egress.routes.route import Route, Scope
from pytest_egress.routes.table import SweptFault
from pytest_egress.session import Session
from pytest_egress.targets.external import ExternalContainer
from pytest_egress.targets.plan import plan
from pytest_egress.targets.readiness import Strategy, strategies
from pytest_egress.targets.results import CompletedContainer, check_result
from pytest_egress.traffic.address import Address, parse_address
from pytest_egress.traffic.dns.answers import RecordTexts
from pytest_egress.traffic.entries import (
    Datagram,
    DnsQuery,
    Entry,
    Exchange,
    ProxyCall,
    TcpConnection,
    is_between,
)
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.search.needles import checked as checked_needles
from pytest_egress.traffic.search.verdict import NOT_ALL_KEPT, search
from pytest_egress.traffic.shown import counted, shown

if TYPE_CHECKING:
    from pytest_egress.endpoint.server import EngineEndpoint
    from pytest_egress.endpoint.stack import Stack

CONTAINER_NAME: Final = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]*")  # or an id; Docker's own rule


class Egress:
    """Routes, containers, ledger and assertions of one scope.

    Outside of pytest use it as a context manager; at its end the attempts are judged as at the end of a test.

    Args:
        session: The session of the run; a new one by default.
        parent: The egress of the next wider scope.
        scope: How long its routes and containers last.
    """

    def __init__(
        self, *, session: Session | None = None, parent: Egress | None = None, scope: Scope = "test"
    ) -> None:
        wider = None if parent is None else parent._inner
        self._inner: Final[InnerEgress] = InnerEgress(session or Session(), wider, scope)

    @property
    def routes(self) -> list[Route[Any]]:
        """The routes declared here, in order, removed ones included."""
        return [*self._inner.routes]

    @property
    def containers(self) -> list[container_handle.Container]:
        """The containers started here that have not been removed."""
        return [*self._inner.live()]

    # Routes.

    @renamed(handler="answer=")
    def intercept_https(
        self,
        address: str,
        answer: HttpAnswer = None,
        *,
        method: str | None = None,
        path: TextPattern | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, TextPattern] | None = None,
        json: Any = UNSET,
        content: bytes | None = None,
        match: Callable[[Request], object] | None = None,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
        stream: bool = False,
        client_certificate: ClientCertificate | None = None,
        certificate: BadCertificate | None = None,
        tls_version: TlsVersion | None = None,
        http3: bool = False,
    ) -> Route[Exchange]:
        """Answer HTTPS requests to an address; a call, or a decorator of the handler.

        Args:
            address: `host[:port]`, port 443 where none is given.
            answer: A function of the `Request`, or a static answer; without one the answer is an empty 200.
            method: The method, compared without case.
            path: The whole path without query: `*` is any run of characters, `{name}` one segment or a part of one.
                A compiled pattern has to match all of it. The most specific path answers.
            query: Keys and values that the query must have; it may have others. A value is a text, in which `*` is any
                run of characters, or a compiled pattern that has to match all of it. A list has all values of a key.
            headers: Fields that the request must have; it may have others. Their values are as those of `query`.
            json: The value that the body, parsed as JSON, must equal; with `partial(...)`, a part of it. A compiled
                pattern in it has to match the whole of a string.
            content: The bytes that the body must equal.
            match: A predicate of the `Request`.
            times: How many requests it answers; fewer fail the test.
            optional: Whether the test passes also if the route is never called.
            name: A name for `egress[name]`.
            stream: Whether the handler is called when the head of a request has come, and reads the body by
                `request.stream()` as it comes. `json` and `content` need the whole body, and cannot be given with it.
            client_certificate: "request" accepts a certificate of `egress_ca` if the client has one; with "require" no
                handshake succeeds without one. It is in `request.tls`.
            certificate: One of `BAD_CERTIFICATES`, such as "expired": the server's certificate has this fault, and the
                test fails unless a client connects, and rejects it (`Route.assert_rejected`, `Route.rejections`).
            tls_version: "TLSv1", "TLSv1.1", "TLSv1.2" or "TLSv1.3": the only version that is spoken. The test fails
                unless a client rejects the first two.
            http3: Whether HTTP/3 is spoken with its clients too: `pip install 'pytest-egress[http3]'`.

        Raises:
            AddressError, TypeError, ValueError: An argument is refused; the text quotes it and lists what is accepted.
            ImportError: The extra for `http3` is not installed.
        """
        return self._add(
            kinds.INTERCEPT_HTTPS,
            address,
            answer,
            times=times,
            optional=optional,
            name=name,
            stream=stream,
            client_certificate=client_certificate,
            certificate=certificate,
            tls_version=tls_version,
            http3=http3,
            method=method,
            path=path,
            query=query,
            headers=headers,
            json=json,
            content=content,
            match=match,
        )

    @renamed(handler="answer=")
    def intercept_http(
        self,
        address: str,
        answer: HttpAnswer = None,
        *,
        method: str | None = None,
        path: TextPattern | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, TextPattern] | None = None,
        json: Any = UNSET,
        content: bytes | None = None,
        match: Callable[[Request], object] | None = None,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
        stream: bool = False,
    ) -> Route[Exchange]:
        """Answer plain HTTP requests to an address, port 80 where none is given; otherwise as `intercept_https`."""
        return self._add(
            kinds.INTERCEPT_HTTP,
            address,
            answer,
            times=times,
            optional=optional,
            name=name,
            stream=stream,
            method=method,
            path=path,
            query=query,
            headers=headers,
            json=json,
            content=content,
            match=match,
        )

    @overload
    def intercept_tcp(
        self,
        address: str,
        answer: Service[Delivered],
        *,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
    ) -> Route[Delivered]: ...
    @overload
    def intercept_tcp(
        self,
        address: str,
        answer: RawAnswer = None,
        *,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
    ) -> Route[TcpConnection]: ...
    @renamed(handler="answer=")
    def intercept_tcp(
        self,
        address: str,
        answer: RawAnswer | Service[Any] = None,
        *,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
    ) -> Route[Any]:
        """Answer TCP connections to an address, as bytes; a call, or a decorator of the handler.

        Args:
            address: `host[:port]`, any port where none is given.
            answer: A function of the connected socket, which is closed when it returns; or of a reader and a writer;
                a `socketserver`; an `asyncio.Protocol`'s class; `smtp()`; `kafka()`; bytes that are sent at once; or
                `forward(...)`. Without a function, the bytes that the client sends are in the call's `content`.
            times: How many connections it answers; fewer fail the test.
            optional: Whether the test passes also if the route is never called.
            name: A name for `egress[name]`.

        Raises:
            AddressError, TypeError, ValueError: An argument is refused; the text quotes it and lists what is accepted.
        """
        return self._add(
            kinds.INTERCEPT_TCP, address, answer, times=times, optional=optional, name=name
        )

    @overload
    def intercept_tls(
        self,
        address: str,
        answer: Service[Delivered],
        *,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
        client_certificate: ClientCertificate | None = None,
        certificate: BadCertificate | None = None,
        tls_version: TlsVersion | None = None,
        alpn: Sequence[str] = (),
    ) -> Route[Delivered]: ...
    @overload
    def intercept_tls(
        self,
        address: str,
        answer: RawAnswer = None,
        *,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
        client_certificate: ClientCertificate | None = None,
        certificate: BadCertificate | None = None,
        tls_version: TlsVersion | None = None,
        alpn: Sequence[str] = (),
    ) -> Route[TcpConnection]: ...
    @renamed(handler="answer=")
    def intercept_tls(
        self,
        address: str,
        answer: RawAnswer | Service[Any] = None,
        *,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
        client_certificate: ClientCertificate | None = None,
        certificate: BadCertificate | None = None,
        tls_version: TlsVersion | None = None,
        alpn: Sequence[str] = (),
    ) -> Route[Any]:
        """Answer TLS connections as `intercept_tcp` does: the handler gets an `ssl.SSLSocket` after the handshake.

        What else is about the handshake is as for `intercept_https`.

        Args:
            alpn: The protocols that the handshake agrees on (RFC 7301), the preferred one first. Clients such as
                libpq's `sslnegotiation=direct` insist on theirs: `alpn=("postgresql",)`. `http/1.1` if none is given.
        """
        return self._add(
            kinds.INTERCEPT_TLS,
            address,
            answer,
            times=times,
            optional=optional,
            name=name,
            client_certificate=client_certificate,
            certificate=certificate,
            tls_version=tls_version,
            alpn=alpn,
        )

    @overload
    def intercept_udp(
        self,
        address: str,
        answer: DatagramService[DatagramPart],
        *,
        match: Callable[[Datagram], object] | None = None,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
    ) -> Route[DatagramPart]: ...
    @overload
    def intercept_udp(
        self,
        address: str,
        answer: DatagramsAnswer = None,
        *,
        match: Callable[[Datagram], object] | None = None,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
    ) -> Route[Datagram]: ...
    @renamed(handler="answer=")
    def intercept_udp(
        self,
        address: str,
        answer: DatagramsAnswer | DatagramService[Any] = None,
        *,
        match: Callable[[Datagram], object] | None = None,
        times: int | None = None,
        optional: bool = False,
        name: str | None = None,
    ) -> Route[Any]:
        """Answer datagrams of UDP to an address; a call, or a decorator of the handler. A call is one datagram.

        Args:
            address: `host[:port]`; where none is given any port but 53, and those where a route answers HTTPS.
            answer: A function of the `Datagram`; or what it may return: bytes, a list of bytes for several datagrams,
                None for no answer, `delayed()`, `truncated()`, `silence()` or `refuse()`; `forward("udp://...")`
                or `forward(container, 514)`; or a service: `ntp()`, `statsd()`, whose calls are metrics, or `syslog()`,
                of messages.
            match: A predicate of the `Datagram`.
            times: How many datagrams it answers; fewer fail the test.
            optional: Whether the test passes also if the route is never called.
            name: A name for `egress[name]`.

        Raises:
            AddressError, TypeError, ValueError: An argument is refused; the text quotes it and lists what is accepted.
        """
        return self._add(
            kinds.INTERCEPT_UDP,
            address,
            answer,
            match=match,
            times=times,
            optional=optional,
            name=name,
        )

    def passthrough(self, address: str) -> Route[TcpConnection]:
        """Pass TCP connections to an address through this process to the real upstream; TLS is not terminated."""
        return self._add(kinds.PASSTHROUGH, address)

    def proxy(
        self, address: str, *, optional: bool = False, name: str | None = None
    ) -> Route[ProxyCall]:
        """Be the HTTP proxy at an address, which HTTPS_PROXY names: for tunnels (CONNECT), and plain requests by URL.

        What comes through is answered as if the container had dialled that host and port: by the other routes, and
        where none claims it, it is unrouted. A call is a tunnel that was asked for, or one plain request.

        Args:
            address: `host[:port]`, any port where none is given.
            optional: Whether the test passes also if the proxy is never asked.
            name: A name for `egress[name]`.

        Raises:
            AddressError, TypeError, ValueError: An argument is refused; the text quotes it and lists what is accepted.
        """
        return self._add(kinds.PROXY, address, optional=optional, name=name)

    def block(self, address: str) -> Route[Any]:
        """Expect attempts of any protocol to an address, and refuse them: they fail no test."""
        return self._add(kinds.BLOCK, address)

    def dns(
        self,
        name: str,
        answer: DnsAnswer | None = None,
        *,
        SRV: RecordTexts | None = None,
        TXT: RecordTexts | None = None,
        MX: RecordTexts | None = None,
        CNAME: RecordTexts | None = None,
        PTR: RecordTexts | None = None,
        HTTPS: RecordTexts | None = None,
        SVCB: RecordTexts | None = None,
        CAA: RecordTexts | None = None,
        NS: RecordTexts | None = None,
        SOA: RecordTexts | None = None,
        optional: bool = False,
    ) -> Route[DnsQuery]:
        """Answer DNS queries for a name, by addresses or by an error, and by records of further types.

        A connection to such an address is matched by the name. Of `sequence(...)` each lookup of a name takes the next
        answer, which all of its questions share (A, AAAA, ...); after the last one the name has what it has without
        the route. A test fails that does not look up so often.

        Args:
            name: A host name or a glob; with `PTR=` an IP address too, whose name is looked up.
            answer: An IP address or a list of them (`[]` is no address), "NXDOMAIN", "SERVFAIL", "REFUSED", "silence",
                "truncated" (over UDP nothing but the request to ask over TCP), "synthetic" (what the name has without
                the route: with records, the default), `delayed(answer, seconds)`, or `sequence(...)` of these.
            SRV: Records as a zone file has them, one or a list: "0 0 27017 db0.cluster.test" (RFC 2782).
            TXT: Texts, which may be of any length; or strings as a zone file has them, in double quotes.
            MX: Such as "10 mail.shop.test".
            CNAME: The name whose records these are. It is followed.
            PTR: The name of an address.
            HTTPS: Such as '1 . alpn="h2,http/1.1"' (RFC 9460).
            SVCB: Such as '1 api.shop.test alpn="h2"'.
            CAA: Such as '0 issue "ca.test"' (RFC 8659).
            NS: The name of a server of names.
            SOA: Such as "ns1.shop.test hostmaster.shop.test 1 7200 3600 1209600 300".
            optional: Whether a sequence need not be used to its end.

        Raises:
            AddressError, TypeError, ValueError: An argument is refused; the text quotes it and lists what is accepted.
        """
        texts = {
            "SRV": SRV,
            "TXT": TXT,
            "MX": MX,
            "CNAME": CNAME,
            "PTR": PTR,
            "HTTPS": HTTPS,
            "SVCB": SVCB,
            "CAA": CAA,
            "NS": NS,
            "SOA": SOA,
        }
        given = {type: text for type, text in texts.items() if text is not None}
        return self._add(kinds.DNS, name, answer, optional=optional, **given)

    def _add(self, kind: Kind, address: str, answer: Any = None, **options: Any) -> Route[Any]:
        return self._inner.add(declare(kind, address, answer, **options))

    def __getitem__(self, key: str) -> Route[Any]:
        """The route with this name, or else with this address as declared, in the nearest scope that has one.

        Raises:
            LookupError: There is no such route, or there are several; the text lists them.
        """
        scopes = [*self._inner.scopes()]
        for egress in scopes:
            declared = [route for route in egress.routes if not route.removed]
            for field in ("name", "address"):
                found = [route for route in declared if getattr(route, field) == key]
                if len(found) == 1:
                    return found[0]
                if found:
                    listed = "\n".join(f"  {route_line(route)}" for route in found)
                    raise LookupError(
                        f"{len(found)} routes are called {shown(key)}; give one a name= of its own:\n{listed}"
                    )
        known = [f"  {route_line(route)}" for egress in scopes for route in egress.routes]
        there = "\n".join(["there are:", *known]) if known else "none is declared"
        raise LookupError(
            f"no route has the name {shown(key)}, or this address as declared; {there}"
        )

    # Containers.

    def start(
        self,
        image: str,
        command: Sequence[str] | str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes | Path] | None = None,
        user: str | None = None,
        workdir: str | None = None,
        entrypoint: Sequence[str] | str | None = None,
        input: str | bytes | None = None,
        trust: Sequence[str] | None = None,
        wait: Strategy | Sequence[Strategy] | None = None,
        timeout: float = 60,
        **docker_options: Any,
    ) -> container_handle.Container:
        """Start a container and return when it is ready. It is removed at the end of this scope.

        Args:
            image: The image's name; it is pulled if it is missing, and `timeout` does not include that.
            command: A list of arguments, or a string that is split as `docker run` would.
            env: Environment variables; they win over those that carry the CA.
            files: Contents of files by their path in the container; they are put there before the start.
            user: The user that the command runs as.
            workdir: The command's working directory.
            entrypoint: The entrypoint, in place of the image's.
            input: The content of its standard input.
            trust: Paths of files in the container to which the CA is added too: PEM bundles or Java keystores that a
                program brings itself.
            wait: When it is ready: `port_open(port)`, `http_ok(port, path)`, `log_line(pattern)`, or a list of them.
            timeout: Seconds within which it must be ready.
            docker_options: Arguments of docker-py's `containers.create`, except those that would leave the sidecar.

        Raises:
            ImageError, EngineError, LinkError: The engine cannot start it; the text says what to do.
            CommandError, ContainerTimeoutError: It ended, or was not ready in time; its logs are in the text.
            UnroutedError: It is of a wider scope than a test, and attempted something that no route claims.
        """
        self._inner.hide(env)
        conditions = strategies(wait)
        check_seconds(timeout)
        own = {"user": user, "working_dir": workdir, "entrypoint": entrypoint}
        checked = plan(
            image, command, own, env=env, files=files, input=input, trust=trust, **docker_options
        )
        container = self._inner.launch(checked)
        self._inner.wait_for(container, lambda: container.become_ready(conditions, timeout))
        return container

    def run(
        self,
        image: str,
        command: Sequence[str] | str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes | Path] | None = None,
        user: str | None = None,
        workdir: str | None = None,
        entrypoint: Sequence[str] | str | None = None,
        input: str | bytes | None = None,
        trust: Sequence[str] | None = None,
        timeout: float = 60,
        check: bool = True,
        **docker_options: Any,
    ) -> CompletedContainer:
        """Run a container to its end, and return when everything that it sent has been answered.

        Args:
            timeout: Seconds within which it must end.
            check: Whether another exit code than 0 is an error.

        The other arguments are those of `start`.

        Raises:
            ImageError, EngineError, LinkError: The engine cannot run it; the text says what to do.
            ContainerTimeoutError: It did not end in time; its logs are in the text.
            CommandError: It exited with another code than 0, and `check` is not False; its logs are in the text.
        """
        self._inner.hide(env)
        check_seconds(timeout)
        own = {"user": user, "working_dir": workdir, "entrypoint": entrypoint}
        checked = plan(
            image, command, own, env=env, files=files, input=input, trust=trust, **docker_options
        )
        container = self._inner.launch(checked)
        result = self._inner.wait_for(container, lambda: container.wait(timeout))
        self._inner.discard(container, has_ended=True)
        if check:
            entries = container.attempt_context().window.entries
            redactor = self._inner.session.ledger.redactor
            check_result(container.name, result, container.name, entries, redactor)
        return result

    # Containers that something else starts.

    def docker_options(
        self,
        image: str,
        *,
        env: Mapping[str, str] | None = None,
        hostname: str | None = None,
        domainname: str | None = None,
        extra_hosts: Mapping[str, str] | None = None,
        trust: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Start a sidecar; return docker-py's options for a container in it: `network_mode`, `environment`, `volumes`.

        The caller creates the container, starts it and removes it. Call `trust` before the start if the image's own
        bundle is to contain the CA as well.

        Args:
            image: The image that the container will run.
            env: Environment variables; they win over those that carry the CA.
            hostname: The host name, which the sidecar gets.
            domainname: The domain name, which the sidecar gets.
            extra_hosts: Further lines of /etc/hosts: names and their addresses.
            trust: Paths of files, as `start` takes them; the method `trust` adds the CA to them.

        Raises:
            ImageError, EngineError, LinkError: The engine cannot start the sidecar; the text says what to do.
        """
        self._inner.hide(env)
        options: dict[str, Any] = {
            "hostname": hostname,
            "domainname": domainname,
            "extra_hosts": extra_hosts,
        }
        external = self._inner.new(ExternalContainer, plan(image, env=env, trust=trust, **options))
        created_with = external.open()
        self._inner.keep(external)
        return created_with

    def trust(self, container: object) -> container_handle.Container:
        """Put the CA into a container that was created with `docker_options`, before it is started.

        Args:
            container: docker-py's container, or its name or id.

        Returns:
            The handle that `start` would have returned: `url`, `address`, `exec`, `logs`, `wait`.

        Raises:
            ValueError: It was created without these options, or with options that `start` refuses, or runs already.
        """
        name = container if isinstance(container, str) else getattr(container, "id", None)
        if not isinstance(name, str) or not CONTAINER_NAME.fullmatch(name):
            raise ValueError(
                f"trust() takes docker-py's container, or its name or id, not {shown(container)}"
            )
        found = self._inner.session.engine.container(name)
        mode = found.attrs["HostConfig"]["NetworkMode"]
        for external in self._inner.live():
            if isinstance(external, ExternalContainer) and external.network_mode == mode:
                external.adopt(found)
                return external
        raise ValueError(
            f"{found.name} has network_mode={mode!r}: trust() takes a container that was created with "
            "egress.docker_options(image)"
        )

    def engine(self) -> EngineEndpoint:
        """Start an endpoint of the Docker Engine API whose containers are captured, whatever tool creates them.

        Give `engine.environment()` to the tool: `docker run`, docker-py, a Makefile. Its containers are removed at the
        end of the `with` block, or of this scope.

        Raises:
            EngineError: No engine answers; or it is Podman.
        """
        from pytest_egress.endpoint.server import EngineEndpoint

        endpoint = EngineEndpoint(self._inner)
        self._inner.endings.append(endpoint.close)
        return endpoint

    def compose(
        self,
        file: str | Path | Sequence[str | Path] = "compose.yaml",
        *,
        services: Sequence[str] | None = None,
        profiles: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        wait: Mapping[str, Strategy | Sequence[Strategy]] | None = None,
        project_directory: str | Path | None = None,
        timeout: float = 300,
    ) -> Stack:
        """Start the services of a Compose project, unchanged, and return when they are ready.

        The official program starts them, with `egress.engine()` as its engine, so that each is captured. A service is
        ready when its health check passes, or it has ended with code 0; `wait` adds conditions. No port is published.
        The end of the `with` block, or of this scope, removes containers, networks and volumes.

        Args:
            file: The Compose file, relative to the current folder; or a list, in which a later one overrides.
            services: Those to start, with what they depend on; all by default.
            profiles: Profiles whose services are started too.
            env: Variables for `${NAME}` in the files.
            wait: Conditions by service: `{"web": http_ok(8080)}`.
            project_directory: What paths in the files are relative to; by default the folder of the first one.
            timeout: Seconds within which all must be ready.

        Raises:
            EngineError: No engine or no Docker Compose is there, or it refuses the files.
            CommandError: The program failed, or a container did; the program's lines and the logs are in the text.
            ContainerTimeoutError: A container was not ready in time.
            UnroutedError: It is of a wider scope than a test, and attempted something that no route claims.
        """
        from pytest_egress.endpoint.compose import compose_options
        from pytest_egress.endpoint.stack import start_stack

        options = compose_options(
            file,
            services=services,
            profiles=profiles,
            env=env,
            wait=wait,
            project_directory=project_directory,
            timeout=timeout,
        )
        return start_stack(self._inner, options)

    # The ledger and its assertions.

    @property
    def ledger(self) -> list[Entry]:
        """All attempts, in order.

        For the egress of a test these are the attempts of that test. For a wider scope they are those of its containers
        outside of tests, and those of the running test; the attempts of other tests are not included.

        Raises:
            CallError: The scope has ended and been reported; its attempts are no longer kept.
        """
        return self._inner.ledger

    @property
    def fault(self) -> SweptFault | None:
        """What `@pytest.mark.egress_sweep` has fail in this run; None on the happy path, and without that marker.

        A test that asks for it judges the run by itself: where the test fails then, its cell does.
        """
        with self._inner.session.ledger.changed:
            window = self._inner.session.ledger.window
        trial = None if window is None else window.trial
        return None if trial is None else trial.asked_fault()

    @property
    def exchanges(self) -> list[Exchange]:
        """The HTTP requests in the ledger, in order."""
        return [entry for entry in self.ledger if isinstance(entry, Exchange)]

    def assert_no_egress(self) -> None:
        """Assert that nothing was attempted: no request, no connection, no packet, no name that `dns="strict"` refuses.

        Raises:
            CallError: There were attempts; the text lists them. Or no container ran that could have made any.
        """
        self.assert_only()

    def assert_only(self, *addresses: str) -> None:
        """Assert that every attempt was for one of these addresses.

        Raises:
            CallError: There were others; the text lists them. Or no container ran that could have made any.
        """
        allowed = [parse_address(address, default_port=None) for address in addresses]
        others = [
            entry
            for entry in self.ledger
            if not (isinstance(entry, (DnsQuery, ProxyCall)) and entry.outcome == "recorded")
            and not is_between(entry)
            and not any(a.matches(entry.host, port_of(entry, a)) for a in allowed)
        ]
        if others:
            error = CallError(surplus_text(addresses, others))
            error.headline = surplus_headline(others)
            raise error
        expected = f"only {', '.join(addresses)}" if addresses else "no egress"
        if not self._inner.may_have_sent():
            raise CallError(no_container_text(expected))

    def assert_not_sent(self, *needles: str | bytes | re.Pattern[str] | re.Pattern[bytes]) -> None:
        """Assert that none of these texts, bytes and patterns is in anything that was attempted until now.

        Searched are URLs, header fields, trailers and bodies of requests, messages of gRPC and of WebSockets, mails,
        bytes of raw connections and packets, and the names of DNS and of TLS; not the answers. Each is searched as it
        was sent and decoded: percent-encoding, the content coding, gzip, zlib and zstd, JSON (a document, or lines),
        forms and their files, Sentry envelopes, MIME, entities of XML and HTML, Basic credentials, tokens (JWT), and
        values or bodies that are base64 as a whole. Other formats are searched as bytes. A text is compared exactly,
        in names of hosts without case, among bytes as UTF-8; characters of other normal forms are other characters.

        A target that still runs may send more: let it end, or call `wait_until_quiet` before.

        Raises:
            CallError: One was sent; the text says in which attempt and where. Or something was sent that cannot be
                searched: a streamed body, one that cannot be decoded, TLS that was passed through. Or no container ran.
            TypeError, ValueError: There is nothing to search for, or something that is in every text.
        """
        checked = checked_needles(needles)
        if (error := search(self.ledger, checked)) is not None:
            raise error
        if not self._inner.has_kept_all():
            raise CallError(NOT_ALL_KEPT)
        if not self._inner.may_have_sent():
            raise CallError(no_container_text("that this is not sent"))

    def assert_encrypted(self, minimum: TlsVersion = "TLSv1.2", allow: Iterable[str] = ()) -> None:
        """Assert that everything that was attempted until now, but for names, was in TLS of a version or newer.

        Of TLS that passes through, the newest version that its client offers counts. QUIC is TLS 1.3.

        Args:
            minimum: The oldest version that is enough: "TLSv1", "TLSv1.1", "TLSv1.2" or "TLSv1.3".
            allow: Addresses to which anything goes, `host[:port]`, such as that of a database.

        Raises:
            CallError: Something was sent in the clear, or by an older version; the text lists it. Or no container ran.
            AddressError, TypeError, ValueError: An argument is refused.
        """
        least, allowed = checked_minimum(minimum), checked_addresses(allow)
        if found := weak(self.ledger, least, allowed):
            raise weak_error(found, minimum)
        if not self._inner.may_have_sent():
            raise CallError(no_container_text("that all is encrypted"))

    def wait_until_quiet(self, seconds: float, timeout: float = 10) -> None:
        """Wait until no container of any scope has attempted anything for `seconds`, and nothing is under way.

        Call it at the end of a test that sets something off in a shared container, so that this fails no other test.
        The time begins with the call. Only attempts that begin count: neither an open connection does, nor the bytes
        on one that a raw handler serves.

        Args:
            seconds: How long it has to be quiet.
            timeout: Seconds within which that must have happened.

        Raises:
            CallError: It did not happen; the text lists what was attempted, and what is under way.
        """
        check_seconds(timeout)
        if not is_seconds(seconds) or not 0 < seconds <= timeout:
            raise ValueError(
                f"seconds={seconds!r:.60}: it takes a number over 0, and at most the timeout, which is {timeout:g} s"
            )
        self._inner.session.wait_until_quiet(seconds, timeout)

    def assert_order(self, *routes: Route[Any]) -> None:
        """Assert that the calls of these routes began in this order; calls of other routes do not matter.

        Name a route twice if it is called twice.

        Raises:
            CallError: The calls came in another order; the text shows both orders, and marks where they differ first.
        """
        check_order(routes)

    def assert_before(self, first: Route[Any], second: Route[Any]) -> None:
        """Assert that both routes were called, and that the first call of `first` began before that of `second`.

        Later calls of either do not matter: a token that is fetched again comes after a charge, too.

        Raises:
            CallError: One was not called, or the other came first; the text shows the first call of each.
        """
        check_before(first, second)

    # The end of the scope.

    def close(self, keep: bool = False) -> None:
        """Remove the containers of this scope. Calling it again, or in a forked child, does nothing.

        Args:
            keep: Whether to stop the targets and leave them for a look, instead of removing them.
        """
        self._inner.close(keep)

    def __enter__(self) -> Egress:
        self._inner.open_window()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._inner.end(has_passed=kind is None)

    def __repr__(self) -> str:
        routes = counted(len(self.routes), "route")
        containers = counted(len(self.containers), "container")
        return f"<Egress of a {self._inner.scope}, {routes}, {containers}>"


def inner_of(egress: Egress) -> InnerEgress:
    """What an egress is for the plugin."""
    return egress._inner


def run_unread(
    egress: Egress, image: str, command: list[str] | None, env: Mapping[str, str], timeout: float
) -> tuple[int, float]:
    """As `Egress.run` with `check=False`, for who does not need what the container writes, however much that is.

    Returns:
        The exit code, and the seconds that it ran.
    """
    inner = egress._inner
    inner.hide(env)
    container = inner.launch(plan(image, command, env=env))
    ended = inner.wait_for(container, lambda: container.wait_unread(timeout))
    inner.discard(container, has_ended=True)
    return ended


def port_of(entry: Entry, allowed: Address) -> int:
    """A DNS query has no port, and so matches an address with any port."""
    return (allowed.port if isinstance(entry, DnsQuery) else entry.port) or 0

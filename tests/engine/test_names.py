"""Names, as the container's own libc sees them."""

from __future__ import annotations

import re
from functools import partial

import pytest
import trustme

from pytest_egress import Egress
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.dns.answers import NamesAnswer
from pytest_egress.traffic.entries import DnsQuery
from tests.support.clients import OTHER_CA, attempts, python
from tests.support.outside import Outside
from tests.support.upstreams import succeed


@pytest.fixture(scope="module")
def other_ca() -> trustme.CA:
    """The authority of the real servers, which nobody but the container has heard of."""
    return trustme.CA()


@pytest.fixture(scope="module")
def client(
    module_egress: Egress, services_image: str, other_ca: trustme.CA, outside: Outside
) -> Container:
    """A container that waits for commands; each test answers them with routes of its own."""
    files = {OTHER_CA: other_ca.cert_pem.bytes()}
    start = partial(module_egress.start, services_image, ["sleep", "infinity"], files=files)
    return outside.near(start)


# Names, as the container's own libc sees them.

LOOK_UP = """
import socket, sys
for name in sys.argv[1:]:
    try:
        found = socket.getaddrinfo(name, 5432, type=socket.SOCK_STREAM)
        print(*sorted(where[0] for *_, where in found))
    except socket.gaierror as error:
        names = "EAI_AGAIN", "EAI_NONAME", "EAI_NODATA", "EAI_FAIL"
        print(*(name for name in names if getattr(socket, name) == error.errno))
"""


def look_up(client: Container, *names: str, **env: str) -> list[str]:
    """What getaddrinfo says of each name: its addresses, or the name of the error."""
    command = ["python3", "-c", LOOK_UP, *names]
    return succeed(client.exec(command, env=env)).splitlines()


def synthetic(found: str) -> bool:
    return bool(re.fullmatch(r"198\.18\.\d+\.\d+ fd00:198:18::[0-9a-f]+", found))


def test_every_name_resolves_by_default(egress: Egress, client: Container) -> None:
    found = look_up(client, "a.test", "b.test", "a.test")
    assert all(synthetic(each) for each in found)
    assert found[0] == found[2] != found[1]


@pytest.mark.egress(dns="strict", unrouted="block")
def test_strict_names_resolve_only_where_a_route_names_them(
    egress: Egress, client: Container
) -> None:
    egress.intercept_https("api.test:8443", optional=True)
    egress.intercept_tcp("*.cache.test:6379", optional=True)
    egress.block("telemetry.test")
    given = egress.dns("given.test", "192.0.2.20")
    names = ("api.test", "one.cache.test", "telemetry.test", "given.test", "typo.test")
    *declared, given_one, undeclared = look_up(client, *names)
    assert all(synthetic(each) for each in declared)
    assert (given_one, undeclared) == ("192.0.2.20", "EAI_NONAME")
    assert {query.host for query in given.calls} == {"given.test"}
    found = {(query.host, query.rcode, query.outcome) for query in attempts(egress, DnsQuery)}
    assert ("typo.test", "NXDOMAIN", "blocked") in found
    assert ("api.test", "NOERROR", "recorded") in found


ALL = ["192.0.2.20", "192.0.2.21", "2001:db8::20"]


@pytest.mark.parametrize(
    ("answer", "seen", "rcode"),
    [
        ("192.0.2.20", "192.0.2.20", "NOERROR"),
        ("2001:db8::20", "2001:db8::20", "NOERROR"),
        (ALL, " ".join(ALL), "NOERROR"),
        ([], "EAI_NODATA", "NOERROR"),
        ("NXDOMAIN", "EAI_NONAME", "NXDOMAIN"),
        ("SERVFAIL", "EAI_AGAIN", "SERVFAIL"),
        ("REFUSED", "EAI_AGAIN", "REFUSED"),
        ("silence", "EAI_AGAIN", ""),
    ],
    ids=["A", "AAAA", "both", "none", "NXDOMAIN", "SERVFAIL", "REFUSED", "silence"],
)
def test_a_name_is_answered_as_its_route_says(
    egress: Egress, client: Container, answer: NamesAnswer, seen: str, rcode: str
) -> None:
    route = egress.dns("db.test", answer)
    found, beside = look_up(client, "db.test", "beside.test", RES_OPTIONS="timeout:1 attempts:1")
    assert found == seen
    assert synthetic(beside)
    assert {(call.type, call.rcode) for call in route.calls} == {("A", rcode), ("AAAA", rcode)}


def test_what_dials_an_address_of_a_name_is_matched_by_the_name(
    egress: Egress, client: Container
) -> None:
    egress.dns("db.test", ["192.0.2.20", "2001:db8::20"])
    route = egress.intercept_tcp("db.test:5432", b"by name\n")
    code = """
        import socket
        socket.getaddrinfo("db.test", 5432)
        for address in ("192.0.2.20", "2001:db8::20"):
            print(socket.create_connection((address, 5432), 30).recv(99).decode().strip())
    """
    assert python(client, code).splitlines() == ["by name", "by name"]
    assert [(call.host, call.address) for call in route.calls] == [
        ("db.test", "192.0.2.20"),
        ("db.test", "2001:db8::20"),
    ]


def test_names_that_share_an_address_are_told_apart_by_sni_and_host(
    egress: Egress, client: Container
) -> None:
    egress.dns("*.shared.test", "192.0.2.30")
    for name in ("one", "two"):
        egress.intercept_http(f"{name}.shared.test", {"name": name})
        egress.intercept_https(f"{name}.shared.test", {"name": name})
    code = """
        import http.client, json, socket, ssl
        names = "one.shared.test", "two.shared.test"
        found = {name: socket.gethostbyname(name) for name in names}
        for name in names:
            https = http.client.HTTPSConnection(name, timeout=30)
            sock = socket.create_connection((found[name], 443), 30)
            https.sock = ssl.create_default_context().wrap_socket(sock, server_hostname=name)
            http_ = http.client.HTTPConnection(found[name], timeout=30)
            for connection in (https, http_):
                connection.request("GET", "/", headers={"Host": name})
                print(json.loads(connection.getresponse().read())["name"])
    """
    assert python(client, code).split() == ["one", "one", "two", "two"]


DIAL = """
import socket, sys
print(socket.create_connection((sys.argv[1], 5432), 30).recv(99).decode())
"""


def test_an_address_means_itself_again_after_the_removal_of_the_name_it_was_given_to(
    egress: Egress, client: Container
) -> None:
    names, by_name = egress.dns("db.test", "192.0.2.40"), egress.intercept_tcp("db.test", b"name")
    egress.intercept_tcp("192.0.2.40:5432", b"address")
    assert python(client, DIAL, "db.test") == "name"
    names.remove()
    assert python(client, DIAL, "192.0.2.40") == "address"
    by_name.assert_called_once()


def test_an_address_means_itself_again_in_the_next_test(
    pytester: pytest.Pytester, services_image: str
) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(f"""
        import pytest

        @pytest.fixture(scope="module")
        def dial(module_egress):
            client = module_egress.start("{services_image}", ["sleep", "infinity"])
            return lambda host: client.exec(["python3", "-c", {DIAL!r}, host]).stdout.strip()

        @pytest.mark.egress_dns("db.test", "192.0.2.40")
        @pytest.mark.intercept_tcp("db.test:5432", b"name")
        def test_name(dial):
            assert dial("db.test") == "name"

        @pytest.mark.intercept_tcp("192.0.2.40:5432", b"address")
        def test_address(dial):
            assert dial("192.0.2.40") == "address"
    """)
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


@pytest.mark.egress_dns("*.gone.test", "NXDOMAIN")
@pytest.mark.egress_dns("here.gone.test", "192.0.2.21")
def test_markers_name_too_and_the_exact_name_wins(egress: Egress, client: Container) -> None:
    found = look_up(client, "a.gone.test", "b.c.gone.test", "here.gone.test", "gone.test")
    assert found[:3] == ["EAI_NONAME", "EAI_NONAME", "192.0.2.21"]
    assert synthetic(found[3])


def test_a_name_whose_route_is_removed_resolves_as_others_do(
    egress: Egress, client: Container
) -> None:
    route = egress.dns("db.test", "NXDOMAIN")
    assert look_up(client, "db.test") == ["EAI_NONAME"]
    route.respond("192.0.2.22")
    assert look_up(client, "db.test") == ["192.0.2.22"]
    route.remove()
    (found,) = look_up(client, "db.test")
    assert synthetic(found)

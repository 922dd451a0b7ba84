"""What a name is changes, comes late, needs TCP, and is more than addresses: as real resolvers see it."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import dns
import pytest

from pytest_egress import Egress, delayed, sequence
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.entries import DnsQuery, Entry
from tests.support.clients import attempts, python
from tests.support.upstreams import succeed

DNSPYTHON = "/opt/dnspython.zip"


def zipped(package: Path) -> bytes:
    """A package of pure Python, for a container's path."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for path in package.rglob("*.py"):
            archive.write(path, path.relative_to(package.parent))
    return found.getvalue()


@pytest.fixture(scope="module")
def client(module_egress: Egress, clients_image: str) -> Container:
    """A container with Python and Node.js that waits for commands; each test answers them with routes of its own."""
    files = {DNSPYTHON: zipped(Path(dns.__file__).parent)}
    return module_egress.start(clients_image, ["sleep", "infinity"], files=files)


LOOK_UP = """
import socket, sys
names = "EAI_AGAIN", "EAI_NONAME", "EAI_NODATA", "EAI_FAIL"
for name in sys.argv[1:]:
    try:
        found = socket.getaddrinfo(name, 5432, type=socket.SOCK_STREAM)
        print(*sorted(where[0] for *_, where in found))
    except socket.gaierror as error:
        print(*(name for name in names if getattr(socket, name) == error.errno))
"""


def look_up(client: Container, *names: str, options: str = "timeout:1 attempts:1") -> list[str]:
    """What glibc's getaddrinfo says of each name, by these options of its resolver (resolv.conf(5))."""
    absolute = (
        f"{name}." for name in names
    )  # no search list is tried, which Podman copies from the machine
    command = ["python3", "-c", LOOK_UP, *absolute]
    return succeed(client.exec(command, env={"RES_OPTIONS": options})).splitlines()


def node(client: Container, code: str) -> Any:
    """What an async function of Node.js returns, whose resolver is c-ares."""
    program = f"(async () => {{ {code} }})().then((v) => console.log(JSON.stringify(v)))"
    return json.loads(succeed(client.exec(["node", "-e", program])))


BOTH = ["192.0.2.20", "2001:db8::20"]


def test_each_lookup_of_glibc_takes_one_answer_of_a_sequence(
    egress: Egress, client: Container
) -> None:
    route = egress.dns("db.test", sequence("SERVFAIL", "silence", [], "truncated", BOTH))
    *found, without = look_up(client, *["db.test"] * 6, options="timeout:1")
    assert found[:3] == ["EAI_AGAIN", "EAI_AGAIN", "EAI_NODATA"]
    assert found[3] == without != found[4] == " ".join(BOTH)
    calls = [(call.type, call.rcode, call.fault) for call in route.calls]
    assert calls[:2] == [("A", "SERVFAIL", None), ("AAAA", "SERVFAIL", None)]
    assert {fault for _, _, fault in calls} == {None, "silence", "truncated"}
    assert [query.route for query in attempts(egress, DnsQuery)][-2:] == [None, None]


IPV4_ALONE = """
import socket, sys
for _ in range(int(sys.argv[1])):
    try:
        print(socket.gethostbyname("db.test."))
    except OSError:
        print("none")
"""


def test_a_second_attempt_of_glibc_takes_no_other_answer_where_it_asks_for_ipv4_alone(
    egress: Egress, client: Container
) -> None:
    route = egress.dns("db.test", sequence("SERVFAIL", "silence", "192.0.2.27"))
    command = ["python3", "-c", IPV4_ALONE, "3"]
    asked = client.exec(command, env={"RES_OPTIONS": "timeout:1 attempts:2"})
    assert succeed(asked).split() == ["none", "none", "192.0.2.27"]
    assert [call.rcode for call in route.calls] == [*["SERVFAIL"] * 2, *[""] * 2, "NOERROR"]


@pytest.mark.egress_dns("db.test", sequence("NXDOMAIN"))
@pytest.mark.egress_dns("db.test", "192.0.2.20")
def test_after_a_sequence_the_route_before_it_answers(egress: Egress, client: Container) -> None:
    found = look_up(client, "db.test", "db.test", "db.test")
    assert found == ["EAI_NONAME", "192.0.2.20", "192.0.2.20"]


LATE = """
import socket, threading
order = []
def look_up(name):
    order.append((name, sorted({where[0] for *_, where in socket.getaddrinfo(name, 5432)})))
thread = threading.Thread(target=look_up, args=("late.test",))
thread.start()
look_up("next.test")
thread.join()
print(order)
"""


def test_a_late_answer_holds_up_no_other_one(egress: Egress, client: Container) -> None:
    asked = threading.Event()

    def until_the_next_is_asked() -> float:
        assert asked.wait(60)
        return 0.1

    def at_once() -> float:
        asked.set()
        return 0

    late = egress.dns("late.test", delayed("192.0.2.21", until_the_next_is_asked))
    egress.dns("next.test", delayed("192.0.2.22", at_once))
    found = client.exec(["python3", "-c", LATE], env={"RES_OPTIONS": "timeout:30"})
    assert succeed(found).splitlines()[-1] == (
        "[('next.test', ['192.0.2.22']), ('late.test', ['192.0.2.21'])]"
    )
    assert {str(call.fault) for call in late.calls} == {
        "delayed('192.0.2.21', until_the_next_is_asked)"
    }


def test_records_of_every_type_reach_node(egress: Egress, client: Container) -> None:
    egress.dns("_db._tcp.shop.test", SRV=["1 2 27017 db0.shop.test", "1 2 27018 db1.shop.test"])
    egress.dns(
        "shop.test",
        "192.0.2.23",
        TXT=["v=spf1 -all", "x" * 300],
        MX="10 mail.shop.test",
        CAA='0 issue "ca.test"',
        NS=["ns1.shop.test"],
        SOA="ns1.shop.test hostmaster.shop.test 1 7200 3600 1209600 300",
    )
    egress.dns("www.shop.test", CNAME="shop.test")
    egress.dns("192.0.2.23", PTR="shop.test")
    egress.dns("2001:db8::23", PTR="shop.test")
    found = node(
        client,
        """
        const dns = require("dns").promises;
        const of = (type) => dns.resolve("shop.test", type);
        return {
            SRV: await dns.resolveSrv("_db._tcp.shop.test"), TXT: await of("TXT"), MX: await of("MX"),
            CAA: await of("CAA"), NS: await of("NS"), SOA: (await of("SOA")).hostmaster,
            CNAME: await dns.resolveCname("www.shop.test"), A: await dns.resolve4("www.shop.test"),
            PTR: [await dns.reverse("192.0.2.23"), await dns.reverse("2001:db8::23")],
            none: await dns.resolveMx("www.other.test").catch((error) => error.code),
        };
        """,
    )
    assert sorted(found.pop("SRV"), key=lambda srv: srv["port"])[1] == {
        "name": "db1.shop.test",
        "port": 27018,
        "priority": 1,
        "weight": 2,
    }
    assert {"".join(strings) for strings in found.pop("TXT")} == {"v=spf1 -all", "x" * 300}
    assert found == {
        "MX": [{"exchange": "mail.shop.test", "priority": 10}],
        "CAA": [{"critical": 0, "issue": "ca.test"}],
        "NS": ["ns1.shop.test"],
        "SOA": "hostmaster.shop.test",
        "CNAME": ["shop.test"],
        "A": ["192.0.2.23"],
        "PTR": [["shop.test"], ["shop.test"]],
        "none": "ENODATA",
    }


def test_libc_finds_the_name_of_an_address_and_follows_a_cname(
    egress: Egress, client: Container
) -> None:
    egress.dns("192.0.2.24", PTR="db.test")
    egress.dns("db.test", CNAME="db-1.cloud.test")
    database = egress.intercept_tcp("db.test:5432", b"by the name that was asked for")
    assert succeed(client.exec(["getent", "hosts", "192.0.2.24"])).split()[-1] == "db.test"
    code = "import socket; print(socket.create_connection(('db.test', 5432), 30).recv(99).decode())"
    assert python(client, code) == "by the name that was asked for"
    database.assert_called_once()
    (query,) = {(q.type, q.cnames) for q in attempts(egress, DnsQuery) if q.type == "A"}
    assert query == ("A", ("db-1.cloud.test",))


@pytest.mark.egress(unrouted="block")
def test_what_a_cname_leads_to_is_another_name_and_answers_for_the_first(
    egress: Egress, client: Container
) -> None:
    egress.dns("db.test", CNAME="db-1.cloud.test")
    egress.intercept_tcp("db.test:5432", b"of the first")
    egress.intercept_https("db-1.cloud.test", b"of the second")
    code = """
        import socket, urllib.request
        for name in ("db.test", "db-1.cloud.test", "db.test"):
            try:
                print(socket.create_connection((name, 5432), 30).recv(99))
            except ConnectionResetError:
                print("reset")
        for name in ("db.test", "db-1.cloud.test"):
            print(urllib.request.urlopen(f"https://{name}/").read())
    """
    assert python(client, code).splitlines() == [
        *("b'of the first'", "reset", "b'of the first'"),
        *["b'of the second'"] * 2,
    ]
    seen = [(e.host, e.outcome) for e in attempts(egress, Entry) if not isinstance(e, DnsQuery)]
    assert seen == [
        *(("db.test", "routed"), ("db-1.cloud.test", "blocked"), ("db.test", "routed")),
        *[("db-1.cloud.test", "routed")] * 2,
    ]


CLUSTER = """
import sys
sys.path.insert(0, "/opt/dnspython.zip")
import dns.resolver
try:
    dns.resolver.resolve("_mongodb._tcp.cluster.test", "SRV")
except dns.resolver.NoNameservers:
    print("SERVFAIL")
hosts = sorted((each.port, str(each.target)) for each in dns.resolver.resolve("_mongodb._tcp.cluster.test", "SRV"))
texts = [b"".join(each.strings).decode() for each in dns.resolver.resolve("cluster.test", "TXT")]
(service,) = dns.resolver.resolve("cluster.test", "HTTPS")
long = [b"".join(each.strings) for each in dns.resolver.resolve("long.test", "TXT")]
print(hosts, texts, service, len(long), sum(map(len, long)))
"""


@pytest.mark.egress(dns="strict")
def test_a_cluster_is_found_by_srv_and_txt_and_what_is_long_comes_over_tcp(
    egress: Egress, client: Container
) -> None:
    nodes = [f"0 0 2701{number} db{number}.cluster.test" for number in (7, 8)]
    srv = egress.dns("_mongodb._tcp.cluster.test", SRV=nodes)
    failing = egress.dns("_mongodb._tcp.cluster.test", sequence("SERVFAIL"))
    egress.dns("cluster.test", TXT="authSource=admin&replicaSet=rs0", HTTPS='1 . alpn="h2"')
    long = egress.dns("long.test", TXT=[str(number) * 1000 for number in range(5)])
    found = python(client, CLUSTER)
    assert found == (
        "SERVFAIL\n[(27017, 'db7.cluster.test.'), (27018, 'db8.cluster.test.')] "
        "['authSource=admin&replicaSet=rs0'] 1 . alpn=\"h2\" 5 5000"
    )
    assert [call.rcode for call in (*failing.calls, *srv.calls)] == ["SERVFAIL", "NOERROR"]
    assert [(len(call.answer), call.rcode) for call in long.calls] == [
        (0, "NOERROR"),
        (5, "NOERROR"),
    ]


def test_go_asks_over_tcp_and_follows(egress: Egress, go_image: str) -> None:
    name = egress.dns("api.test", "truncated", CNAME="edge.test")
    egress.dns("edge.test", "192.0.2.25")
    route = egress.intercept_https("api.test", {"said": "hello"})
    assert "hello" in succeed(egress.run(go_image, ["api.test"]))
    route.assert_called_once()
    found = {(call.fault, call.answer) for call in name.calls if call.type == "A"}
    assert found == {("truncated", ()), (None, ("192.0.2.25",))}


JNDI = """
import java.util.*;
import javax.naming.directory.*;

class Find {
    public static void main(String[] args) throws Exception {
        var env = new Hashtable<String, String>();
        env.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
        env.put("java.naming.provider.url", "dns:");
        var types = new String[] {"SRV", "MX", "TXT"};
        for (var name : args)
            for (var all = new InitialDirContext(env).getAttributes(name, types).getAll(); all.hasMore();)
                System.out.println(all.next());
        System.out.println(java.net.InetAddress.getByName("www.shop.test").getHostAddress());
    }
}
"""


def test_java_finds_records_by_jndi(egress: Egress, java_image: str) -> None:
    egress.dns("_db._tcp.shop.test", delayed("synthetic", 0.2), SRV="1 2 27017 db0.shop.test")
    egress.dns("mail.test", MX="10 mx.mail.test", TXT="a b")
    egress.dns("www.shop.test", CNAME="shop.test")
    egress.dns("shop.test", "192.0.2.26")
    command = ["java", "/srv/Find.java", "_db._tcp.shop.test", "mail.test"]
    output = succeed(egress.run(java_image, command, files={"/srv/Find.java": JNDI.encode()}))
    assert sorted(output.splitlines()) == [
        "192.0.2.26",
        "MX: 10 mx.mail.test.",
        "SRV: 1 2 27017 db0.shop.test.",
        'TXT: "a b"',
    ]

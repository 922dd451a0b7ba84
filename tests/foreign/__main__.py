"""Runs other people's suites inside a target, their servers behind routes, and beside that without us: `make foreign`.

Nothing is expected of a suite but that what passes without us passes with us. Its control is the same suite in a plain
container without a network, where its server is on loopback.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpbin

from pytest_egress import Egress, UnroutedError, forward, port_open, wsgi

HERE = Path(__file__).parent
IMAGE = "pytest-egress-test/foreign:latest"
# Older ones do not work with today's werkzeug.
HTTPBIN = ("pytest", "pytest-httpbin>=2", "httpbin>=0.10")
INSIDE = "/foreign"
PIP = f"""
set -e
pip="python3 -m pip --quiet --disable-pip-version-check"
$pip install --target {INSIDE}/packages {{needs}}
$pip download --dest {INSIDE} --no-deps --no-binary :all: {{name}}
"""
SECONDS = 1800.0  # for a suite
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS) (.+?)(?: - .*)?$", re.MULTILINE)

ANY_NAME = "every name has an address in a target, so that its lookup does not fail"
TRUSTED = "every server is trusted in a target that has a route"
# What differs because it is meant to, by the end of a test's name; anything else that is lost is a failure.
BY_NATURE = {
    "::test_certificate_failure": TRUSTED,
    "::test_errors[http://doesnotexist.google.com-ConnectionError]": ANY_NAME,
    "::test_proxy_error": ANY_NAME,
    "::test_request_with_bytestring_host": "a Host that is not the dialled name is misdirected (421)",
}

Outcomes = dict[str, str]  # "PASSED", or otherwise, by the name of a test


# Suites from PyPI, with httpbin.


def from_pypi(name: str, *needs: str) -> tuple[Outcomes, Outcomes]:
    """The outcomes of the tests in the source distribution of a package: without us, and with us.

    Args:
        name: Of the package.
        needs: What its tests import besides.
    """
    with tempfile.TemporaryDirectory(prefix="foreign-") as folder:
        download(Path(folder), name, *needs)
        shutil.copy(HERE / "routed.py", folder)
        pytest = "python3 -m pytest -rA -q --tb=no -p no:cacheprovider tests 2>&1"
        options: dict[str, Any] = {
            "volumes": [f"{folder}:{INSIDE}:ro"],
            "working_dir": f"{INSIDE}/source",
            "environment": {"PYTHONPATH": f"{INSIDE}:{INSIDE}/packages:{INSIDE}/source/src"},
        }
        without = run_plain(pytest, **options)
        # What else a suite attempts is refused and tells nothing here.
        with contextlib.suppress(UnroutedError), Egress() as egress:
            egress.intercept_http("httpbin.test:8080", wsgi(httpbin.app), optional=True)
            egress.intercept_https("httpbin.test:8443", wsgi(httpbin.app), optional=True)
            routed = run_routed(egress, f"PYTEST_PLUGINS=routed {pytest}", **options)
    return parse(without), parse(routed)


def download(folder: Path, name: str, *needs: str) -> None:
    """Put the source of a package, and all that its tests import, into a folder, by the pip of the image."""
    roots = ssl.get_default_verify_paths().cafile or ssl.get_default_verify_paths().openssl_cafile
    with plain_container(
        PIP.format(name=name, needs=shlex.join([name, *HTTPBIN, *needs])),
        network_mode="bridge",
        user=f"{os.getuid()}:{os.getgid()}",
        environment={"HOME": "/tmp", "PIP_CERT": "/roots.pem"},
        volumes=[f"{folder}:{INSIDE}", f"{roots}:/roots.pem:ro"],
    ) as container:
        if container.wait(timeout=SECONDS)["StatusCode"]:
            sys.exit(container.logs().decode(errors="replace"))
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    unpacked.rename(folder / "source")


# Programs from Debian, with a server in a container.


def from_debian(server: str, port: int, client: str) -> tuple[Outcomes, Outcomes]:
    """The outcomes of a client's commands: without us, and with us.

    Args:
        server: Starts it.
        port: Where it listens.
        client: Prints `PASSED name` for each of its tests; `$HOST` is the server.
    """
    with plain_container(server) as container:
        options = {"network_mode": f"container:{container.id}"}
        without = run_plain(client, environment={"HOST": "127.0.0.1"}, **options)
    with Egress() as egress:
        started = egress.start(IMAGE, ["sh", "-c", server], wait=port_open(port))
        egress.intercept_tcp(f"server.test:{port}", forward(started, port))
        routed = run_routed(egress, client, environment={"HOST": "server.test"})
    return parse(without), parse(routed)


REDIS = "exec redis-server --save '' --bind 0.0.0.0 --protected-mode no"
REDIS_BENCHMARK = """
until redis-cli -h $HOST ping >/dev/null; do sleep 0.1; done
redis-benchmark -h $HOST -n 5000 -c 40 -P 4 -d 4000 --csv | sed -n 's/^"\\([^"]*\\)","[0-9.]*[1-9].*/PASSED \\1/p'
"""
POSTGRESQL = """
export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
cd /tmp
setpriv --reuid postgres --regid postgres --clear-groups initdb --pgdata data --auth trust >/dev/null
exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D data -h 0.0.0.0
"""
PGBENCH = """
export PGHOST=$HOST PGUSER=postgres
test() { name=$1; shift; "$@" >/dev/null 2>&1 && echo "PASSED $name" || echo "FAILED $name"; }
until pg_isready >/dev/null; do sleep 0.1; done
test initialize pgbench --initialize --scale 2
for protocol in simple extended prepared; do
    test $protocol pgbench --client 4 --transactions 100 --protocol $protocol
done
test rows psql -v ON_ERROR_STOP=1 -c 'SELECT repeat(md5(i::text), 100) FROM generate_series(1, 20000) i'
test out psql -v ON_ERROR_STOP=1 -c '\\copy pgbench_accounts TO /tmp/rows'
test in psql -v ON_ERROR_STOP=1 -c 'TRUNCATE pgbench_accounts' -c '\\copy pgbench_accounts FROM /tmp/rows'
"""

SUITES: dict[str, Callable[[], tuple[Outcomes, Outcomes]]] = {
    "requests": lambda: from_pypi("requests", "requests[socks]", "pytest-mock", "trustme"),
    "redis-benchmark": lambda: from_debian(REDIS, 6379, REDIS_BENCHMARK),
    "pgbench": lambda: from_debian(POSTGRESQL, 5432, PGBENCH),
}


# Running and comparing.


def run_routed(egress: Egress, script: str, **options: Any) -> str:
    """What a script writes in a target."""
    environment = options.pop("environment")
    workdir = options.pop("working_dir", None)
    command = ["sh", "-c", script]
    done = egress.run(
        IMAGE, command, env=environment, workdir=workdir, timeout=SECONDS, **options, check=False
    )
    return done.stdout


def run_plain(script: str, **options: Any) -> str:
    """What a script writes in a container that we have nothing to do with."""
    with plain_container(script, **options) as container:
        container.wait(timeout=SECONDS)
        return str(container.logs(stdout=True, stderr=False).decode(errors="replace"))


@contextlib.contextmanager
def plain_container(script: str, **options: Any) -> Iterator[Any]:
    """A container as docker-py starts it; gone at the end."""
    options = {"network_mode": "none", **options}
    with contextlib.closing(docker.from_env()) as client:
        container = client.containers.run(IMAGE, ["sh", "-c", script], detach=True, **options)
        try:
            yield container
        finally:
            container.remove(force=True, v=True)


def parse(output: str) -> Outcomes:
    """The outcomes in what pytest -rA, or a script that says the same, has written."""
    outcomes = {name: outcome for outcome, name in OUTCOME.findall(output)}
    if not outcomes:
        sys.exit(f"the suite has not run:\n{output}")
    return outcomes


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A suite's outcomes without us and with us."""

    name: str
    without: Outcomes
    routed: Outcomes

    def lost(self) -> dict[str, str]:
        """What passes without us alone, each with why that is meant to be, or nothing."""
        lost = sorted(passed(self.without) - passed(self.routed))
        return {
            test: next((why for end, why in BY_NATURE.items() if test.endswith(end)), "")
            for test in lost
        }

    def row(self) -> str:
        counts = (
            len(self.without | self.routed),
            len(passed(self.routed)),
            len(passed(self.without)),
            len(self.lost()),
        )
        return f"{self.name:<16}" + "".join(f"{count:>14}" for count in counts)


def passed(outcomes: Outcomes) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome == "PASSED"}


def main(names: Sequence[str]) -> int:
    """Run these suites, or all; return 1 where one loses a test that is not meant to differ."""
    compared = []
    for name in names or SUITES:
        print(f"{name} ...", flush=True)
        without, routed = SUITES[name]()
        compared.append(Comparison(name=name, without=without, routed=routed))
    heads = ("tests", "pass with us", "pass without", "differ")
    print("\n" + f"{'suite':<16}" + "".join(f"{head:>14}" for head in heads))
    for each in compared:
        print(each.row())
    for each in compared:
        for test, why in each.lost().items():
            print(f"\n{each.name}: passes without us alone: {test}\n    {why or 'NOT KNOWN WHY'}")
        for test in sorted(passed(each.routed) - passed(each.without)):
            print(f"\n{each.name}: passes with us alone: {test}")
    return int(not all(why for each in compared for why in each.lost().values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

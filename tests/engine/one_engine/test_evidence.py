"""The report of a test with a real container: its attempts with their times, its log, and no secret in any file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.inner_runs import Inside

KEY = "Kx7/hQ2v+R9xLm4Zp8Wd3&Ns6"

CLIENT = """
import base64, os, socket, subprocess, sys
key = os.environ["SHOP_KEY"]
def curl(*args):
    done = subprocess.run(["curl", "-sS", "-m", "5", *args], capture_output=True, text=True)
    print(done.stdout, done.stderr)
print("begin", key, base64.b64encode(key.encode()).decode())
print("to stderr", file=sys.stderr, flush=True)
curl("https://api.shop.test/v1/charges", "https://api.shop.test/v1/charges", "-H", f"X-Key: {key}")
curl("https://api.shop.test/refunds", "--data-binary", key)
with socket.create_connection(("db.shop.test", 5432), 5) as sock:
    sock.sendall(b"PASS " + key.encode() + b"\\r\\n")
    print(sock.recv(100))
    sock.sendall(b"QUIT\\r\\n")
    print(sock.recv(100))
"""

SOURCE = f"""
from pytest_egress import websocket

def test_a(egress, image):
    egress.intercept_https("api.shop.test", {{"id": "ch_1"}}, path="/v1/charges")
    @egress.intercept_tcp("db.shop.test:5432")
    def db(sock):
        sock.recv(1000)
        sock.sendall(b"+OK")
        sock.recv(1000)
        sock.sendall(b"+BYE")
    egress.run(image, ["python3", "-c", {CLIENT!r}], env={{"SHOP_KEY": {KEY!r}}})
"""


def test_a_report_of_a_container_has_its_times_and_its_log_and_no_secret(
    inside: Inside, pytester: pytest.Pytester
) -> None:
    run = inside(SOURCE, "--egress-report=out")
    (folder,) = (each for each in (pytester.path / "out").iterdir() if each.is_dir())
    assert f"the whole of it: out/{folder.name}/timeline.html#entry-" in run.output
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    charges = [line for line in lines if line.get("request", {}).get("path") == "/v1/charges"]
    (refund,) = (line for line in lines if line["fails"])
    assert len(charges) == 2
    assert charges[0]["connection"] == charges[1]["connection"] != refund["connection"]
    for line in (*charges, refund):
        times = [*line["marks"].values()]
        assert None not in times
        assert times == sorted(times)
    (db,) = (line for line in lines if line["kind"] == "tcp")
    assert [(each["from_client"], each["size"]) for each in db["messages"]] == [
        (True, 7 + len(KEY)),
        (False, 3),
        (True, 6),
        (False, 4),
    ]
    assert db["handler"].startswith("db at test_")
    (log,) = folder.glob("*.log")
    assert "to stderr" in log.read_text()
    assert "begin <SHOP_KEY>" in log.read_text()
    check_no_secret(pytester.path / "out")
    check_head(folder, lines)


def check_no_secret(out: Path) -> None:
    forms = [
        KEY,
        json.dumps(KEY)[1:-1],
        KEY.encode().hex(),
        base64.b64encode(KEY.encode()).decode(),
    ]
    for path in out.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not [form for form in forms if form in text], path


def check_head(folder: Path, lines: list[dict[str, Any]]) -> None:
    """The facts of the page: how the container ended, and its lines by the clock of its attempts."""
    page = (folder / "timeline.html").read_text()
    head = json.loads(page.partition('id="run">')[2].partition("</script>")[0])
    (container,) = head["containers"]
    assert container["exit_code"] == 0
    assert 0 <= container["started"] < container["ended"]
    assert container["name"] == lines[0]["container"]
    streams = {log["stream"] for log in head["logs"]}
    assert streams == {"stdout", "stderr"}
    first = min(line["at"] for line in lines)
    begin = next(log["at"] for log in head["logs"] if log["text"] == "to stderr")
    assert container["started"] <= begin + 100
    assert begin <= first + 100  # the engine's clock may be another
    connections = {each["id"]: each for each in head["connections"]}
    of_charges = connections[next(x["connection"] for x in lines if x["kind"] == "http")]
    assert of_charges["opened"] <= of_charges["hello"] <= of_charges["secured"]
    assert of_charges["tls"]["version"] == "TLSv1.3"

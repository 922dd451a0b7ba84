"""What a report costs (`--egress-report`): 10,000 exchanges that are recorded with it and without, and its memory.

And what a cassette of 1,000 interactions costs: to write it without its secrets, to read it, and to find each.

The exchanges are recorded by a ledger without a gateway, so that its own time is not in the figures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.figures import Row
from benchmarks.first import run_python
from benchmarks.parts import Measure, Part
from benchmarks.servers import HERE

WITH, WITHOUT = "with a report", "without"
RECORDED, WRITTEN = "10,000 exchanges, recorded", "the report of 10,000 exchanges"
CASSETTE: Final = "a cassette of 1,000 interactions"
CPU, PEAK = "ms of CPU", "MB at the peak, beyond what the ledger holds"

ROWS: Final = (
    Row(subject=RECORDED, unit=CPU, ours=WITH, against=WITHOUT),
    Row(subject=WRITTEN, unit=CPU),
    Row(subject=WRITTEN, unit=PEAK),
    *(Row(subject=f"{CASSETTE}, {done}", unit=CPU) for done in ("written", "read", "played")),
)

PROGRAM: Final = """
import resource, sys, tempfile, time
from pathlib import Path
from pytest_egress.evidence.writing import TestFacts, write_test
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.notes import Marks, Notes

def used():
    return time.process_time() * 1e3

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

fields = Headers([("content-type", "application/json"), ("authorization", "Bearer abcdefgh0123456789")])
ledger, count = Ledger(), 10_000
if sys.argv[1] == "with":
    ledger.accounts.notes = Notes(ledger.now)
window = Window(account=ledger.accounts.open())
requests = [
    Request(method="POST", scheme="https", host="api.test", port=443, path=f"/v1/charges/{number}",
            headers=fields, content=b'{"amount": 4200, "currency": "eur"}')
    for number in range(count)
]
response = Response(json={"id": "ch_1", "amount": 4200})
began = used()
for request in requests:
    entry = Exchange(container="shop", started=ledger.now(), outcome="routed", host="api.test", port=443,
                     request=request, response=response, duration=0.001)
    if (notes := window.account.notes) is not None:
        entry.connection = entry.connection or notes.connection()
        entry.marks = marks = Marks(entry.started)
        marks.whole = marks.called = marks.answered = marks.sent = notes.now()
    ledger.record(window, entry)
recorded, held = used() - began, peak()
began = used()
with tempfile.TemporaryDirectory() as folder:
    facts = TestFacts(id="test_it.py::test_it", outcome="failed", duration=1.0)
    write_test(Path(folder), [window], facts, [], ledger.redactor)
print(recorded, used() - began, peak() - held)
"""

CASSETTE_PROGRAM: Final = """
import sys, threading, time
from pytest_egress.routes.recordings.reel import Reel
from pytest_egress.traffic.cassettes.hiding import hidden
from pytest_egress.traffic.cassettes.making import recording_of
from pytest_egress.traffic.cassettes.tape import tape_of, text_of
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import Redactor

KEY = "sk_test_0123456789abcdef"
fields = Headers([("content-type", "application/json"), ("authorization", f"Bearer {KEY}")])
requests = [
    Request(method="POST", scheme="https", host="api.test", port=443, path=f"/v1/charges/{number}",
            headers=fields, content=b'{"amount": 4200, "currency": "eur", "country": "no"}')
    for number in range(1000)
]
response = Response(json={"id": "ch_1", "amount": 4200, "lines": [{"id": n, "text": "a line"} for n in range(5)]})
recordings = [recording_of(request, response) for request in requests]
spent = [time.process_time()]
text = text_of(hidden(recordings, Redactor().knowing({"STRIPE_KEY": KEY})))
spent.append(time.process_time())
tape_of("egress_cassette: 1\\ninteractions: []\\n", "x")  # imports what reads
spent.append(time.process_time())
tape = tape_of(text, "x")
spent.append(time.process_time())
reel = Reel(tape, name="x", records="nothing", variables=lambda name: {"STRIPE_KEY": KEY}, command="",
            lock=threading.Lock())
assert all(reel.take(request, (), repeat=False) for request in requests)
spent.append(time.process_time())
written, _, read, played = (1e3 * (after - before) for before, after in zip(spent, spent[1:]))
print(written, read, played)
"""


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    def measure(subject: str, of: str) -> Mapping[str, float]:
        if subject.startswith(CASSETTE):
            taken = map(float, run_python(HERE.parent, ["-c", CASSETTE_PROGRAM]).split())
            done = subject.rpartition(" ")[2]
            return {CPU: dict(zip(("written", "read", "played"), taken, strict=True))[done]}
        word = "without" if of == WITHOUT else "with"
        recorded, written, peak = map(float, run_python(HERE.parent, ["-c", PROGRAM, word]).split())
        return {CPU: recorded} if subject == RECORDED else {CPU: written, PEAK: peak}

    yield measure


PART: Final = Part(name="evidence", rows=ROWS, rounds=3, prepare=prepare, in_table=False)

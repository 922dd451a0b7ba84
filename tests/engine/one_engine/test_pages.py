"""The pages of a report in Chromium and in Firefox, which have no network."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from pytest_egress.evidence.pages.destinations import Destinations
from pytest_egress.evidence.pages.index import write_index
from pytest_egress.sweep.cells import CallRow, Cell
from pytest_egress.sweep.matrix import Result
from pytest_egress.sweep.table import table
from tests.support.browsers import Chromium, chromium, firefox
from tests.support.inner_runs import Inside
from tests.support.ledger_lines import http_line, line_of, row_of, story, write_page_of
from tests.support.upstreams import Upstream

SPLITS = "\u2028\u2029\x85"
TURNS = "\u202e\u2066\u200f"
MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!--<script>"
SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(3)'><script>alert(4)</script></svg>"
# What a terminal would take for the end of what is pasted, and for Enter.
PASTED = "x\x1b[201~\r\nrm -rf /tmp/it; `id` $(id) 'quoted'"

PIXELS = "document.images[0].decode().then(() => document.images[0].naturalWidth)"
IS_IN_VIEW = """(() => {
  const row = $('entry-500').getBoundingClientRect(), view = $('scroll').getBoundingClientRect();
  return row.top >= view.top && row.bottom <= view.bottom;
})()"""
# What a reader cannot reach by scrolling.
OUTSIDE = """[...document.querySelectorAll('button, input, a, h1, h2')]
  .filter((it) => it.offsetParent && !it.closest('.wide, .chips, [hidden]'))
  .filter((it) => it.getBoundingClientRect().right > innerWidth + 1)
  .map((it) => it.outerHTML)"""


def hostile() -> list[dict[str, Any]]:
    """Entries whose every text is markup, or hides what it is."""
    text = MARKUP + SPLITS + TURNS
    svg = {
        "status": 200,
        "reason": text,
        "headers": [[text, text]],
        "trailers": [],
        "type": "image/svg+xml",
        "body": {"size": len(SVG), "text": SVG},
    }
    nested = "[" * 4000 + "]" * 4000
    first = http_line(1, 10, f"POST https://evil.test/{text}", body=nested) | {
        "response": svg,
        "note": text,
        "outcome": "unrouted",
        "fails": True,
        "problem": text,
        "fault": text,
    }
    first["near"] = [
        {"text": text, "declared_at": text, "differences": [text, f"path: {text} is not {text}"]}
    ]
    first["remedy"] = [[text, text]]
    pasted = http_line(2, 20, "POST https://evil.test/", body=PASTED)
    pasted["request"]["method"] = "`id`"
    pasted["request"]["headers"] += [["x-turned", TURNS], ["@file", "x"], ["x-empty", ""]]
    fences = http_line(3, 30, "https://evil.test/`````", note="````\n@everyone #1", fails=True)
    return [
        first,
        pasted,
        fences,
        line_of(4, "dns", text, 40, type=text, answer=[text], rcode="NOERROR", cnames=[text]),
        line_of(
            5,
            "mail",
            text,
            50,
            sender=text,
            recipients=[text],
            subject=text,
            user=text,
            parts=[text],
            body={"size": 3, "text": text},
        ),
        line_of(
            6,
            "tcp",
            text,
            60,
            first=text,
            sent=1,
            received=1,
            messages=[{"at": 60, "from_client": True, "size": 1, "text": text}],
            body={"size": 2, "base64": "AAE="},
        ),
        line_of(7, text, text, 70, text=text),
        line_of(8, "tls", text, 80, reason=text, sni=text, note=text),
    ]


def cells(lines: list[dict[str, Any]]) -> dict[str, Any]:
    made = Destinations()
    for line in lines:
        made.add(line)
    return made.cells()


def sweep_of(test: str, call: str) -> dict[str, Any]:
    """The matrix of a sweep with a cell of each kind, of which those that lie are `test_story`."""
    row, bad = CallRow(call), "tests/test_shop.py::test_story"
    letters = {"503": "LIES", "429": "ok", "reset": "err", "cut": "-", "silence": "HUNG"}
    found = [
        (bad if said == "LIES" else fault, Result(cell=cell, letters=said, met=2, seconds=1.0))
        for fault, said in letters.items()
        for cell in (Cell(row=row, fault=fault), Cell(row=row, fault=fault, is_once=True))
    ]
    return {"test": test, **table(found)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a page of each kind of test."""
    folder = tmp_path_factory.mktemp("report")
    write_page_of(folder / "story", story(), lookups=1)
    write_page_of(
        folder / "hostile", hostile(), verdict={"error": MARKUP, "headline": MARKUP, "text": MARKUP}
    )
    many = [http_line(n, n * 3.0, f"https://api.test/{n}") for n in range(1, 601)]
    passed = {"id": "test_a.py::test_many", "outcome": "passed", "duration": 1.0, "when": ""}
    write_page_of(folder / "many", many, verdict=None, paste=[], test=passed)
    write_page_of(folder / "empty", [], verdict=None, paste=[], logs=[], test=passed)
    rows = [
        row_of("test_story", outcome="failed")
        | {"folder": "story", "hosts": cells(story()), "unrouted": [["", "", 7, ""]]},
        row_of("test_hostile", outcome="failed")
        | {"folder": "hostile", "headline": MARKUP, "hosts": cells(hostile())},
        row_of("test_many", "https api.test:443") | {"duration": 900.0},
        row_of("test_crashed", outcome="failed") | {"folder": "", "duration": 0.0},
    ]
    sweeps = [
        sweep_of("test_paid", "GET https://pay.test/v1"),
        sweep_of(MARKUP + TURNS, f"POST https://pay.test/{'a' * 200}{MARKUP}{TURNS}"),
    ]
    write_index(
        folder / "index.html", rows, new={"https pay.test:443"}, lock="egress.lock", sweeps=sweeps
    )
    return folder


@pytest.fixture(scope="module")
def running(
    engine_client: docker.DockerClient, browsers_image: str, pages: Path
) -> Iterator[Chromium]:
    with chromium(engine_client, browsers_image) as browser:
        browser.put(pages)
        browser.call(
            "Browser.grantPermissions",
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )
        yield browser


@pytest.fixture
def browser(running: Chromium) -> Iterator[Chromium]:
    """Chromium, which at a test's end has met no error and asked for nothing."""
    yield running
    errors, asked = running.errors[:], running.asked[:]
    running.errors.clear()
    running.asked.clear()
    running.media()
    running.sized(1440, 900)
    assert (errors, asked) == ([], [])


def text_of(browser: Chromium, selector: str) -> str:
    text = browser.evaluate(f"document.querySelector({selector!r}).innerText")
    assert isinstance(text, str)
    return text


def shown(browser: Chromium) -> list[int]:
    """The numbers of the entries that have a row in the document."""
    found = browser.evaluate(
        "[...document.querySelectorAll('.row [role=gridcell].n')].map((it) => +it.textContent).sort((a, b) => a - b)"
    )
    assert isinstance(found, list)
    return found


def search(browser: Chromium, words: str) -> None:
    browser.evaluate(f"search({words!r})")


def copied(browser: Chromium, selector: str) -> str:
    """What the clipboard has once this button was pressed."""
    browser.evaluate(f"document.querySelector({selector!r}).click()")
    text = browser.evaluate("navigator.clipboard.readText()")
    assert isinstance(text, str)
    return text


def picked(browser: Chromium) -> str:
    return text_of(browser, "#side h2")


def test_the_top_says_what_failed_and_what_got_out(browser: Chromium) -> None:
    browser.open("story/timeline.html")
    assert (
        text_of(browser, "h1")
        == "KeyError: 'amuont' in the handler of POST https://pay.test/v1/transfers"
    )
    assert text_of(browser, ".facts").split("\n")[0] == "reached the real upstream: index.test"
    assert text_of(browser, ".fails").split("\n") == [
        "7",
        "POST https://api.stripe.com/v1/refunds",
        "path: '/v1/refunds' is not '/v1/charges'",
        "9",
        "POST https://pay.test/v1/transfers",
        "its handler raised KeyError: 'amuont'",
        "18",
        "TLS api.stripe.com:443",
        "its TLS handshake failed: its client does not trust the CA of this run",
    ]
    browser.open("many/timeline.html")
    assert text_of(browser, ".facts").split("\n")[0] == "nothing got out"
    assert text_of(browser, "h1") == "Every attempt was answered as declared"
    browser.open("empty/timeline.html")
    assert "ran, and sent nothing" in text_of(browser, "#space")


def test_keys_lead_through_the_attempts(browser: Chromium) -> None:
    browser.open("story/timeline.html")
    browser.press("n")
    assert picked(browser) == "POST https://api.stripe.com/v1/refunds"
    browser.press("n")
    assert picked(browser) == "POST https://pay.test/v1/transfers"
    assert browser.evaluate("location.hash") == "#entry-9"
    browser.press("p", "j", "j")
    assert browser.evaluate("location.hash") == "#entry-9"
    row = browser.evaluate("document.querySelector('.row.pick').id")
    assert browser.evaluate("$('scroll').getAttribute('aria-activedescendant')") == row
    browser.press("Escape")
    assert browser.evaluate("[$('side').hidden, location.hash]") == [True, ""]
    browser.press("/", *"kind:dns", "Enter")
    browser.evaluate("new Promise((done) => setTimeout(done, 60))")
    assert shown(browser) == [1, 10]
    browser.press("Escape", "Escape", "d")
    assert shown(browser)[:2] == [1, 2]
    browser.press("?")
    assert browser.evaluate("$('keys').open") is True


def test_filters(browser: Chromium) -> None:
    browser.open("story/timeline.html")
    found = {}
    for words in (
        "host:stripe -kind:dns",
        "status:2xx",
        "status:resource_exhausted",
        "outcome:blocked",
        "container:worker kind:tls",
        "fault:reset",
        "slow:100",
        "n:17",
        "method:post host:stripe",
        '"amount',
        "<STRIPE_KEY> refunds",
        "nobody",
    ):
        search(browser, words)
        found[words] = shown(browser)
    assert found == {
        "host:stripe -kind:dns": [2, 3, 7, 18],
        "status:2xx": [2, 4, 5, 6],
        "status:resource_exhausted": [15],
        "outcome:blocked": [8, 13],
        "container:worker kind:tls": [18],
        "fault:reset": [3],
        "slow:100": [14],
        "n:17": [17],
        "method:post host:stripe": [2, 3, 7],
        '"amount': [2],
        "<STRIPE_KEY> refunds": [7],
        "nobody": [],
    }
    assert "Nothing matches" in text_of(browser, "#space")
    assert text_of(browser, "#count") == "0 of 17 attempts"
    search(browser, "kind:dns")
    assert text_of(browser, "#count") == "1 of 17 attempts, 1 lookup"
    browser.evaluate("document.querySelector('.chip.bad').click()")
    search(browser, "")
    assert shown(browser) == [7, 9, 18]


@pytest.mark.parametrize(
    ("link", "entry"),
    [
        ("#entry-1", "api.stripe.com A"),
        ("#entry-15", "gRPC https://payments.test:50051/shop.Payments/List"),
    ],
)
def test_links_lead_to_an_entry(browser: Chromium, link: str, entry: str) -> None:
    browser.open(f"story/timeline.html{link}")
    assert picked(browser) == entry
    assert browser.evaluate("document.querySelectorAll('.row.pick').length") == 1


def test_links_to_what_is_searched_for_and_to_what_is_not_there(browser: Chromium) -> None:
    browser.open("story/timeline.html#find=cdn.test%20status:200")
    assert shown(browser) == [5]
    browser.open("story/timeline.html#find=%")
    assert shown(browser) == []
    browser.open("story/timeline.html#entry-99")
    assert text_of(browser, "#count") == "entry 99 is in ledger.jsonl alone"


def test_details_have_what_was_sent_and_answered(browser: Chromium) -> None:
    browser.open("story/timeline.html#entry-7")
    side = text_of(browser, "#side")
    assert "path\t'/v1/refunds'\t'/v1/charges'" in side
    assert 'egress.intercept_https("api.stripe.com", method="POST", path="/v1/refunds")' in side
    assert "charge\tch_1\nreason\tduplicate" in side or "charge=ch_1&reason=duplicate" in side
    browser.open("story/timeline.html#entry-2")
    side = text_of(browser, "#side")
    for part in ("TLS handshake", "OpenSSL", "ALPN http/1.1", '"expires"', "Bearer <STRIPE_KEY>"):
        assert part in side
    browser.open("story/timeline.html#entry-5")
    assert browser.evaluate(PIXELS) == 2


def test_what_is_copied(browser: Chromium) -> None:
    browser.open("story/timeline.html#entry-7")
    assert copied(browser, "#head [data-copy]").split("\n") == [
        'egress.intercept_https("api.stripe.com", method="POST", path="/v1/refunds")',
        'egress.block("metrics.test")',
    ]
    issue = copied(browser, "#side .hd [data-copy]")
    assert "```\nPOST https://api.stripe.com/v1/refunds\n```" in issue
    assert "path: '/v1/refunds' is not '/v1/charges'" in issue
    browser.open("hostile/timeline.html#entry-3")
    issue = copied(browser, "#side .hd [data-copy]")
    assert "``````\nGET https://evil.test/`````\n``````" in issue
    assert "`````\n````\n@everyone #1\n`````" in issue


def test_a_copied_curl_has_one_command_of_these_words(browser: Chromium) -> None:
    browser.open("hostile/timeline.html#entry-2")
    command = browser.evaluate("curl(byNumber.get(2))")
    assert all(character.isprintable() for character in command.replace("\n", ""))
    says = f"curl() {{ printf '%s\\0' \"$@\"; }}\n{command}"
    ran = subprocess.run(["bash", "-c", says], capture_output=True, check=True)
    words = ran.stdout.decode().split("\0")[:-1]
    assert words == [
        "--globoff",
        "--path-as-is",
        "-X",
        "`id`",
        "https://evil.test/",
        "-H",
        "accept: */*",
        "-H",
        "authorization: Bearer <STRIPE_KEY>",
        "-H",
        f"x-turned: {TURNS}",
        "-H",
        "x-empty;",
        "--data-raw",
        PASTED,
    ]


def test_nothing_from_a_container_runs_or_hides(browser: Chromium) -> None:
    for path in ("hostile/timeline.html", "index.html"):
        browser.open(path)
        assert browser.evaluate("document.querySelectorAll('script').length") in (2, 3)
        assert browser.evaluate("[...document.images].length") == 0
    browser.open("hostile/timeline.html")
    for number in range(1, 9):
        browser.evaluate(f"location.hash = '#entry-{number}'")
        browser.evaluate(f"choose(byNumber.get({number}))")
        browser.evaluate("document.querySelectorAll('.seg button').forEach((it) => it.click())")
        text = browser.evaluate("document.body.textContent")
        assert not set(SPLITS + TURNS + "\x1b") & set(
            text.replace(browser.evaluate("$('ledger').textContent"), "")
        )
    browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert (
        browser.evaluate("document.title")
        == "failed: tests/test_checkout.py::test_an_order_is_paid"
    )


def test_a_screen_reader_has_a_name_for_all_of_it(browser: Chromium) -> None:
    browser.open("story/timeline.html")
    browser.press("n")
    grid = browser.evaluate(
        "['role', 'aria-rowcount', 'aria-label'].map((name) => $('scroll').getAttribute(name))"
    )
    assert grid == ["grid", "27", "Attempts"]
    said = browser.evaluate("document.querySelector('.row.pick').getAttribute('aria-label')")
    assert (
        said
        == "7: POST https://api.stripe.com/v1/refunds, no route, fails the test, at 0.120 s, took 2.1 ms"
    )
    assert browser.evaluate("$('count').getAttribute('aria-live')") == "polite"
    browser.press("?")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    kinds = {"button", "link", "searchbox", "grid", "row", "status"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in kinds - {"status", "row"}
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []


def test_of_many_entries_some_rows_are_in_the_document(browser: Chromium) -> None:
    browser.open("many/timeline.html")
    assert browser.evaluate("document.querySelectorAll('.row').length") < 80
    assert browser.evaluate("$('scroll').getAttribute('aria-rowcount')") == "609"
    browser.open("many/timeline.html#entry-500")
    assert browser.evaluate(IS_IN_VIEW) is True


def test_print_has_all_rows_and_no_tools(browser: Chromium) -> None:
    browser.open("many/timeline.html")
    browser.media("print")
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown(browser) == [*range(1, 601)]
    assert browser.evaluate("getComputedStyle(document.querySelector('.bar')).display") == "none"
    assert browser.evaluate("document.documentElement.scrollHeight") > 600 * 28


@pytest.mark.parametrize("width", [1440, 800, 390])
def test_nothing_is_cut_off_at_a_width(browser: Chromium, width: int) -> None:
    browser.sized(width, 900)
    for path in ("story/timeline.html#entry-7", "index.html"):
        browser.open(path)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(OUTSIDE) == []
    wide = "document.querySelector('#tests td.id').getBoundingClientRect().width"
    assert browser.evaluate(wide) > 200


def test_the_index_leads_to_the_entries(browser: Chromium) -> None:
    browser.open("index.html")
    assert text_of(browser, "h1") == "3 of 4 tests failed"
    assert text_of(browser, ".facts").split("\n")[0] == "reached the real upstream: index.test"
    links = browser.evaluate(
        "[...document.querySelectorAll('#tests a')].map((it) => it.getAttribute('href'))"
    )
    assert links == [
        "story/timeline.html#entry-7",
        "hostile/timeline.html",
        "tests-test_shop.py-test_many/timeline.html",
    ]
    cell = "[...document.querySelectorAll('#matrix a.fails')].map((it) => it.getAttribute('href'))"
    assert "story/timeline.html#entry-9" in browser.evaluate(cell)
    assert text_of(browser, "#matrix .new") == "new"
    browser.press("/", *"redis")
    assert browser.evaluate("document.querySelectorAll('#tests tr').length") == 1


def test_the_index_has_the_matrix_of_each_sweep(browser: Chromium) -> None:
    browser.open("index.html")
    sweep = text_of(browser, "#sweeps section")
    for part in ("test_paid", "10 runs in 10.0 s: 4 bad", "LIES exit code of a success, and the"):
        assert part in sweep
    found = "[...document.querySelectorAll('#sweeps section:nth-of-type(1) SELECTOR')].map(SHOWN)"
    texts = found.replace("SHOWN", "(it) => it.textContent")
    assert browser.evaluate(texts.replace("SELECTOR", "tbody tr:first-child > *")) == [
        *("GET https://pay.test/v1", "LIES", "ok", "err", "-", "HUNG")
    ]
    links = found.replace("SHOWN", "(it) => it.getAttribute('href')")
    pages = browser.evaluate(links.replace("SELECTOR", "td a"))
    assert pages == ["story/timeline.html#entry-7"] * 2
    browser.press("/", *"test_paid")
    assert browser.evaluate("document.querySelectorAll('#sweeps section').length") == 1


RUN = """
    from pytest_egress import forward

    def test_refund(egress, sh):
        @egress.intercept_https("api.shop.test", path="/v1/charges")
        def charges(request):
            return {"id": 1, "of": request.json()}

        sh("curl -sS --json '[1]' https://api.shop.test/v1/charges")
        sh("curl -sS -H 'Authorization: Bearer live_0123456789' https://api.shop.test/v1/refunds")

    def test_forwarded(egress, sh):
        egress.intercept_https("index.test", forward("http://127.0.0.1:PORT"))
        sh("curl -sS https://index.test/simple")
"""


def test_the_report_of_a_real_run_leads_from_its_index_to_the_attempt_that_failed(
    inside: Inside, browser: Chromium, pytester: pytest.Pytester
) -> None:
    with Upstream() as server:
        run = inside(
            RUN.replace("PORT", str(server.port)), "--egress-report=report", "--egress-report-all"
        )
    run.result.assert_outcomes(passed=1, failed=1)
    browser.put(pytester.path / "report", "real")
    browser.open("real/index.html")
    assert text_of(browser, "h1") == "1 of 2 tests failed"
    assert text_of(browser, ".facts").split("\n")[0] == "reached the real upstream: index.test"
    links = browser.evaluate(
        "[...document.querySelectorAll('#tests a')].map((it) => it.getAttribute('href'))"
    )
    browser.open(f"real/{links[0]}")
    assert text_of(browser, ".facts").split("\n")[0] == "nothing got out"
    assert picked(browser) == "GET https://api.shop.test/v1/refunds"
    assert "\n2 attempts\n" in text_of(browser, ".facts")
    assert text_of(browser, "#count") == "2 attempts"
    assert len(shown(browser)) == 2
    side = text_of(browser, "#side")
    for part in (
        "path\t'/v1/refunds'\t'/v1/charges'",
        "to answer it:",
        "TLS handshake",
        "OpenSSL",
        "curl/",
    ):
        assert part in side
    assert "live_0123456789" not in browser.evaluate("document.documentElement.textContent")
    browser.press("p")
    assert (
        browser.evaluate(
            "rows.some((row) => row.e && row.e.response && row.e.response.status === 200)"
        )
        is True
    )
    browser.open(f"real/{links[1]}")
    assert text_of(browser, ".facts").split("\n")[0] == "reached the real upstream: index.test"


def test_firefox_opens_both_pages(
    engine_client: docker.DockerClient, browsers_image: str, pages: Path
) -> None:
    with contextlib.ExitStack() as stack:
        browser = stack.enter_context(firefox(engine_client, browsers_image))
        browser.put(pages)
        browser.open("story/timeline.html#entry-7")
        assert (
            browser.evaluate("document.querySelector('#side h2').innerText")
            == "POST https://api.stripe.com/v1/refunds"
        )
        assert browser.evaluate("document.querySelectorAll('.row.bad').length") >= 2
        browser.open("hostile/timeline.html#entry-1")
        assert (
            browser.evaluate("document.title")
            == "failed: tests/test_checkout.py::test_an_order_is_paid"
        )
        assert browser.evaluate("document.querySelectorAll('#side section').length") >= 5
        browser.open("index.html")
        assert browser.evaluate("document.querySelector('h1').innerText") == "3 of 4 tests failed"

"""The test about an image, as text."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import pytest

from pytest_egress.commands.order import Order
from pytest_egress.commands.written import SHOWN_ROUTES, name_of
from pytest_egress.commands.written import test_text as text_of
from pytest_egress.traffic.entries import Entry
from tests.support.entries import dns_query, http_exchange, packet, tcp

KEY = "Zx81-ab-cdef-0123"


def written(order: Order, *entries: Entry) -> str:
    text = text_of(order, entries, order.redactor)
    ast.parse(text)
    return text


def command_of(*command: str) -> str:
    return written(Order(image="shop", command=command, env={"API_KEY": KEY}))


def test_a_route_for_each_destination_and_method_with_its_count() -> None:
    order = Order(image="registry.test:5000/a/shop:1.2@sha256:ab", command=("sh", "-c", "it"))
    entries: Sequence[Entry] = [
        dns_query(),
        http_exchange("POST", "/a"),
        http_exchange("POST", "/b"),
        http_exchange("GET", port=8443),
        http_exchange("GET", port=8443),
        tcp(port=25, host="mail.test"),
        packet(),
    ]
    assert written(order, *entries) == (
        '"""What registry.test:5000/a/shop:1.2@sha256:ab asks, as `pytest-egress watch` saw it. '
        'Each answer is empty: give it yours."""\n'
        """
from pytest_egress import smtp


def test_shop(egress):
    api_test = egress.intercept_https("api.test", {}, method="POST")
    api_test_2 = egress.intercept_https("api.test:8443", {}, method="GET")
    egress.intercept_tcp("mail.test:25", smtp())
    egress.intercept_udp("api.test:123")

    egress.run("registry.test:5000/a/shop:1.2@sha256:ab", ["sh", "-c", "it"], check=False)

    assert len(api_test.calls) == 2
    assert len(api_test_2.calls) >= 1  # it was refused, and may have asked again
    egress.assert_only("api.test:443", "api.test:8443", "mail.test:25", "api.test:123")
"""
    )


def test_an_image_that_asks_nobody() -> None:
    assert written(Order(image="shop")).endswith(
        '    egress.run("shop", check=False)\n\n    egress.assert_no_egress()\n'
    )


def test_a_secret_of_the_environment_is_that_of_whoever_runs_the_test() -> None:
    order = Order(
        image="shop", env={"API_KEY": KEY, "MODE": "x", "HOME": "/h"}, named=frozenset({"HOME"})
    )
    text = written(order)
    assert KEY not in text
    assert '"API_KEY": os.environ.get("API_KEY", "-")' in text
    assert '"MODE": "x"' in text
    assert '"HOME": os.environ.get("HOME", "-")' in text
    assert "\nimport os\n" in text


@pytest.mark.parametrize(
    ("command", "shown", "secret"),
    [
        (["curl", f"https://a.test/{KEY}"], "https://a.test/<API_KEY>", KEY),
        (["curl", "-H", "X-Any: Bearer abcd-efgh"], "X-Any: Bearer <secret>", "efgh"),
        (["curl", "-H", "Authorization: Bearer abcdefgh"], "Bearer <secret>", "abcdefgh"),
        (["shop", "--api-token", "abcdefghijkl"], "abc... (12 characters)", "abcdefghijkl"),
        (["shop", "--password=hunter22"], "--password=<secret>", "hunter22"),
        (
            ["curl", "https://ann:hunter22@a.test/?x=1"],
            "https://ann:<secret>@a.test/?x=1",
            "hunter22",
        ),
    ],
)
def test_a_secret_of_the_command_is_left_out(command: list[str], shown: str, secret: str) -> None:
    text = command_of(*command)
    assert secret not in text
    assert shown in text
    assert "# What may be a secret was left out" in text


def test_a_variable_of_a_shell_is_no_secret() -> None:
    script = 'curl -H "Authorization: $API_KEY" -d token=$TOKEN https://a.test/'
    text = command_of("sh", "-c", script)
    assert script in ast.literal_eval(text[text.index("[") : text.index("]") + 1])
    assert "left out" not in text


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("shop:latest", "shop"),
        ("r.test/a/7-zip", "_7_zip"),
        ("--", "image"),
        ("api.test:80", "api_test"),
    ],
)
def test_a_name_of_python(image: str, name: str) -> None:
    assert name_of(image) == name


def test_an_image_that_asks_very_many_has_some_in_its_test_and_the_number_of_the_others() -> None:
    entries = [http_exchange(host=f"a{number}.test") for number in range(SHOWN_ROUTES + 3)]
    text = written(Order(image="shop"), *entries)
    assert text.count("egress.intercept_https(") == SHOWN_ROUTES
    assert "    # and 3 more: declare them by globs" in text

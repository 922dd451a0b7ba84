"""Services that index orders in Elasticsearch, and open issues at GitHub, with the clients of their vendors."""

from pytest_egress import Egress, Request, Response, sequence

INDEX = """
import elasticsearch

search = elasticsearch.Elasticsearch("https://search.internal:9200", api_key="key", max_retries=1)
print(search.index(index="orders", id="7", document={"sku": "chair"})["result"])
"""
REPORT = """
import github

shop = github.Github(auth=github.Auth.Token("ghp_1")).get_repo("acme/shop")
if not any(issue.title == "Order 7 failed" for issue in shop.get_issues()):
    print(shop.create_issue("Order 7 failed", labels=["bug"]).number)
"""


def test_an_order_is_indexed_when_the_server_was_busy(egress: Egress, sdks: str) -> None:
    product = {"X-Elastic-Product": "Elasticsearch"}  # the client refuses a server without it
    busy, created = [
        Response(status, headers=product, json={"result": "created"}) for status in (503, 201)
    ]
    orders = egress.intercept_https(
        "search.internal:9200", sequence(busy, created), method="PUT", path="/orders/_doc/{id}"
    )

    result = egress.run(sdks, ["python3", "-c", INDEX])

    assert result.stdout == "created\n"
    assert [call.request.json() for call in orders.calls] == [{"sku": "chair"}] * 2


def test_an_issue_is_opened_that_is_on_no_page_yet(egress: Egress, sdks: str) -> None:
    issues = "https://api.github.com/repos/acme/shop/issues"
    egress.intercept_https("api.github.com", {"url": issues.removesuffix("/issues")})

    @egress.intercept_https("api.github.com", path="/repos/acme/shop/issues", method="GET")
    def pages(request: Request) -> Response:
        page = int(request.query.get("page", "1"))
        link = {"Link": f'<{issues}?page={page + 1}>; rel="next"'} if page < 3 else {}
        return Response(headers=link, json=[{"number": page, "title": f"Order {page} failed"}])

    opened = egress.intercept_https("api.github.com", (201, {"number": 8}), method="POST")

    result = egress.run(sdks, ["python3", "-c", REPORT])

    assert result.stdout == "8\n"
    assert pages.call_count == 3
    assert opened.assert_called_once().request.json() == {
        "title": "Order 7 failed",
        "labels": ["bug"],
    }

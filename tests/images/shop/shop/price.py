"""Ask a GraphQL API for a price."""

import requests

QUERY = "query Price($sku: ID!) { product(sku: $sku) { price } }"


def price(sku):
    question = {"query": QUERY, "variables": {"sku": sku}}
    answer = requests.post("https://api.shop.test/graphql", json=question, timeout=10).json()
    if "errors" in answer:
        raise SystemExit(answer["errors"][0]["message"])
    return answer["data"]["product"]["price"]


if __name__ == "__main__":
    print(price("chair"))

"""Count the orders of an API that has them on pages, and that may ask to wait."""

import time

import requests

ORDERS = "https://api.shop.test/v1/orders"


def page_of(number):
    while True:
        answer = requests.get(ORDERS, params={"page": number}, timeout=10)
        if answer.status_code != 429:
            answer.raise_for_status()
            return answer.json()
        time.sleep(float(answer.headers["Retry-After"]))


def count():
    number, orders = 1, 0
    while number:
        page = page_of(number)
        orders += len(page["orders"])
        number = page["next"]
    return orders


if __name__ == "__main__":
    print(count(), "orders")

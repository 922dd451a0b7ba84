"""One image, three clients, one handler: none of them knows that it is tested."""

import pytest

from pytest_egress import Egress, Request

CURL = ["curl", "--silent", "--json", '{"amount": 4200}', "https://api.stripe.com/v1/charges"]
PYTHON = """
import requests
answer = requests.post("https://api.stripe.com/v1/charges", json={"amount": 4200})
print(answer.text)
"""
NODE = """
fetch("https://api.stripe.com/v1/charges", {method: "POST", body: JSON.stringify({amount: 4200})})
    .then(answer => answer.text()).then(console.log)
"""


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(CURL, id="curl"),
        pytest.param(["python3", "-c", PYTHON], id="python"),
        pytest.param(["node", "-e", NODE], id="node"),
    ],
)
def test_a_charge_is_answered_by_a_function_in_the_test(
    egress: Egress, clients: str, command: list[str]
) -> None:
    @egress.intercept_https("api.stripe.com", method="POST", path="/v1/charges")
    def charges(request: Request) -> dict[str, object]:
        return {"id": "ch_1", "amount": request.json()["amount"]}

    result = egress.run(clients, command)

    assert '"id": "ch_1"' in result.stdout
    call = charges.assert_called_once()
    assert call.request.json() == {"amount": 4200}
    assert call.request.url == "https://api.stripe.com/v1/charges"

"""Which names say that their value is a secret."""

from __future__ import annotations

import pytest

from pytest_egress.traffic.redaction.names import is_secret

NAMES = """
    Authorization Proxy-Authorization Cookie Set-Cookie X-Api-Key api_key apiKey key access_token accessToken
    token refresh_tokens client_secret clientSecret password user[password] X-Amz-Signature X-Amz-Credential sig
    X-Auth session sessionid SESSION AWSAccessKeyId private-key
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_a_name_says_that_its_value_is_a_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Accept",
        "author",
        "authority",
        "monkey",
        "keyboard",
        "design",
        "path",
        "amount",
        "Content-Type",
    ],
)
def test_a_name_that_only_sounds_like_it_says_nothing(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "Idempotency-Key",
        "Key",  # the name of an object in S3
        "max_tokens",
        "maxTokens",
        "completion_tokens",
        "X-Ratelimit-Used-Tokens",
        "idempotencyKey",
        "X-Idempotency-Key",
        "Sec-WebSocket-Key",
        "primary_key",
        "foreign_key",
        "foreign_keys",
        "sort_key",
        "PartitionKey",
        "partition_key",
        "Cache-Key",
        "Surrogate-Key",
    ],
)
def test_a_name_with_the_word_of_a_secret_may_be_none(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize("name", ["key", "access_tokens", "tokens", "max_token_secret"])
def test_a_name_that_is_almost_one_of_these_is_a_secrets(name: str) -> None:
    assert is_secret(name)

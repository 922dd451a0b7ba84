"""The secrets among the variables of a container."""

from __future__ import annotations

import json

import pytest

from pytest_egress.traffic.redaction.variables import is_worth_hiding, secrets_of

PLAIN = "whsec_4f9aB7c2D8e1"


@pytest.mark.parametrize(
    ("value", "is_hidden"),
    [
        ("postgres", False),
        ("password", False),
        ("", False),
        ("a", False),
        ("abc123!", False),  # of seven
        ("abcd1234", True),
        ("swordfish", False),
        ("Swordfish", True),
        ("correcthorsebattery", True),
    ],
)
def test_a_common_word_is_not_worth_hiding(value: str, is_hidden: bool) -> None:
    assert is_worth_hiding(value) is is_hidden


@pytest.mark.parametrize(
    ("variable", "value", "secrets"),
    [
        ("STRIPE_KEY", PLAIN, [PLAIN]),
        ("TOKEN_URL", "https://idp.test/token", []),
        ("PASSWORD_FILE", "/run/secrets/password", []),
        ("AUTH_HOST", "auth.internal.test", []),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/gcp/shop-key.json", []),
        ("DB_PASSWORD", "/run/secrets/db_password_1", []),
        ("A_KEY", "/aB3d/eF+9hIj0kLm==", ["/aB3d/eF+9hIj0kLm=="]),
        ("API_KEY_HEADER", "X-Shop-Api-Key", []),
        ("WEBHOOK_SECRET", "https://hooks.test/T0/abc", ["T0/abc"]),
        ("DATABASE_URL", "postgres://app:s3cret-pw@db.test/shop", ["s3cret-pw"]),
        (
            "DATABASE_URL",
            "postgres://app:p%40ss0rd-9@db.test/shop",
            ["p%40ss0rd-9", "p@ss0rd-9"],
        ),
        ("DATABASE_URL", "postgres://db.test/shop", []),
        ("AUTH_SERVICE", "auth-service", []),
        ("SESSION_ENGINE", "django.contrib.sessions.backends.db", []),
        ("JSON_KEY", "org.apache.kafka.connect.json.JsonConverter", []),
        ("TLS_KEY", "Ab3+Ab3+\n\nx9==", ["Ab3+Ab3+\n\nx9==", "Ab3+Ab3+"]),
        ("A_KEY", "http://[broken", [""]),
        (
            "TLS_KEY",
            "-----BEGIN KEY-----\n" + "Ab3+" * 16 + "\n-----END KEY-----\n",
            ["-----BEGIN KEY-----\n" + "Ab3+" * 16 + "\n-----END KEY-----", "Ab3+" * 16],
        ),
    ],
)
def test_the_parts_of_a_variable_that_are_secrets(
    variable: str, value: str, secrets: list[str]
) -> None:
    assert [*secrets_of(variable, value, is_named="URL" not in variable)] == secrets


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("alpha-4eC39Hq,beta-9zYxW21", ["alpha-4eC39Hq", "beta-9zYxW21"]),
        ("Bearer tok_4eC39HqLyj", ["tok_4eC39HqLyj"]),
        ('["alpha-4eC39Hq", {"x": "beta-9zYxW21"}]', ["beta-9zYxW21", "alpha-4eC39Hq"]),
        ('{"user": "robert-17", "password": "hunter22!x"}', ["hunter22!x"]),
        ("AccountName=shopacct1;AccountKey=ab/cD3+efgh==", ["ab/cD3+efgh=="]),
        ("web:alpha-4eC39Hq,app:beta-9zYxW21", ["alpha-4eC39Hq", "beta-9zYxW21"]),
        ("correct horse battery staple", []),  # words
        ("postgres,postgres", []),
        ('{"broken', []),
        ("[" * 100_000, []),
    ],
)
def test_each_part_of_a_value_that_is_worth_hiding_is_a_secret(
    value: str, parts: list[str]
) -> None:
    assert [*secrets_of("API_KEYS", value, is_named=True)] == [value, *parts]


def test_the_lines_of_a_key_within_json_are_secrets_too() -> None:
    line, last = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj", "AgEAAoIBAQC7VJTU"
    key = f"-----BEGIN PRIVATE KEY-----\n{line}\n{last}\n-----END PRIVATE KEY-----\n"
    value = json.dumps({"type": "service_account", "private_key": key})
    assert [*secrets_of("GOOGLE_CREDENTIALS", value, is_named=True)] == [value, key, line, last]

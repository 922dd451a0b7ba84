"""All of AWS is moto: a container reaches it at AWS's own names, and the test looks into the same buckets."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from pytest_egress import Egress, wsgi

ARCHIVE = """
import boto3

s3 = boto3.client("s3")
for order in s3.list_objects_v2(Bucket="orders")["Contents"]:
    content = s3.get_object(Bucket="orders", Key=order["Key"])["Body"].read()
    s3.put_object(Bucket="archive", Key=f"2026/{order['Key']}", Body=content.upper())
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture
def aws(egress: Egress) -> Iterator[None]:
    """AWS for the containers and for the test."""
    with mock_aws():
        app = DomainDispatcherApplication(create_backend_app)
        egress.intercept_https("*.amazonaws.com", wsgi(app))
        yield


def test_orders_are_archived(egress: Egress, aws: None, sdks: str) -> None:
    s3 = boto3.client("s3", region_name="us-east-1")
    for bucket in ("orders", "archive"):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="orders", Key="7.txt", Body=b"one chair")

    egress.run(sdks, ["python3", "-c", ARCHIVE], env=CREDENTIALS)

    archived = s3.get_object(Bucket="archive", Key="2026/7.txt")
    assert archived["Body"].read() == b"ONE CHAIR"
    egress.assert_only("*.amazonaws.com")

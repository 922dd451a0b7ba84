"""The shop of docs/grpc.md: `shop.py charge 4200`, `shop.py list`, `shop.py import 10 20`."""

import sys

import grpc
import payments_pb2 as pb
import payments_pb2_grpc as pb_grpc

SECONDS = 20.0


def main(what, *amounts):
    channel = grpc.secure_channel("payments.test:50051", grpc.ssl_channel_credentials())
    payments = pb_grpc.PaymentsStub(channel)
    asked = [pb.ChargeRequest(amount=int(amount), card_token="tok_visa") for amount in amounts]
    metadata = [("x-shop", "berlin")]
    try:
        if what == "charge":
            for request in asked:
                print("charged", payments.Create(request, timeout=SECONDS, metadata=metadata).id)
        elif what == "list":
            for charge in payments.List(pb.Search(), timeout=SECONDS):
                print(charge.id, charge.amount)
        else:
            print("imported", payments.Import(iter(asked), timeout=SECONDS).amount)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main(*sys.argv[1:])

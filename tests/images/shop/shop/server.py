"""Takes orders on port 8080 and tells the chat about each."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

HOOK = "https://hooks.slack.com/services/T0/B0/shop"


class Shop(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, {"status": "ok"})

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        requests.post(HOOK, json={"text": f"order {order['sku']}"}, timeout=10)
        self.answer(201, order)

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    print("listening", flush=True)
    ThreadingHTTPServer(("0.0.0.0", 8080), Shop).serve_forever()

"""A policy's server that answers at once, in the standard library alone: `python policy_stub.py FOLDER PORT`."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FOLDER, PORT = sys.argv[1], int(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._reply({"data": [{"id": FOLDER, "object": "model", "max_model_len": 4096}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = body["messages"][-1]["content"].split()
        texts = ["I cannot tell.", *(" ".join(words[9 * k : 9 * k + 20 * k]) for k in range(1, body.get("n", 1)))]
        choices = [
            {"index": k, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for k, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 500, "completion_tokens": 30}
        self._reply({"id": "1", "model": FOLDER, "choices": choices, "usage": usage})

    def _reply(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


print("listening", PORT, flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()

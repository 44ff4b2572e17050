"""A server as policy.serve starts one: chat completions of a model folder, `python policy_server.py FOLDER PORT`."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from aiohttp import web

from lrq.policy import Prompt, Sampling
from lrq.policy.local import LocalPolicy


def make_app(folder: str) -> web.Application:
    policy = LocalPolicy(Path(folder), device="cpu")

    async def complete(request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        sampling = Sampling(
            n=body.get("n", 1),
            temperature=body["temperature"],
            max_new_tokens=body.get("max_tokens") or body["max_completion_tokens"],
        )
        prompt = Prompt(item=f"{body.get('seed')}", messages=body["messages"])
        samples = await policy.sample(prompt, sampling)
        choices = [
            {
                "index": each.k,
                "finish_reason": each.finish,
                "message": {"role": "assistant", "content": each.text or ""},
            }
            for each in samples.responses
        ]
        usage = {"prompt_tokens": samples.prompt_tokens, "completion_tokens": samples.completion_tokens}
        return web.json_response({"id": "1", "model": folder, "choices": choices, "usage": usage})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": folder, "object": "model", "max_model_len": 2048}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/v1/models", models)
    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"process {os.getpid()} serves {sys.argv[1]} from {time.time():.3f}", flush=True)
    web.run_app(make_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), print=None)

"""Other clients with the same calls, each under an interpreter that has it; calls.py runs them beside ours.

    python benchmarks/rivals.py                              which of them this interpreter has
    python benchmarks/rivals.py NAME URL BODIES CONCURRENCY  make the calls of a file (JSON lines of request bodies)

Each is used as its own documentation has it: openai's asynchronous client, distilabel's text generation in a pipeline,
curator's online backend with its limits out of the way. Nothing of lrq is imported: their requirements differ.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

API_KEY = "none"
UNLIMITED = 10**9  # a minute


def ask_with_openai(url: str, bodies: Sequence[dict[str, Any]], concurrency: int) -> None:
    from openai import AsyncOpenAI  # noqa: PLC0415

    async def ask_all() -> None:
        client = AsyncOpenAI(base_url=url, api_key=API_KEY, max_retries=0)
        waiting = iter(bodies)

        async def work() -> None:
            for body in waiting:
                await client.chat.completions.create(**body)

        await asyncio.gather(*(work() for _ in range(concurrency)))

    asyncio.run(ask_all())


def ask_with_distilabel(url: str, bodies: Sequence[dict[str, Any]], concurrency: int) -> None:
    os.environ["DISTILABEL_LOG_LEVEL"] = "WARNING"  # by default it logs each request
    from distilabel.models import OpenAILLM  # noqa: PLC0415
    from distilabel.pipeline import Pipeline  # noqa: PLC0415
    from distilabel.steps import LoadDataFromDicts  # noqa: PLC0415
    from distilabel.steps.tasks import TextGeneration  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, Pipeline(cache_dir=folder) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": prompt_of(body)} for body in bodies], batch_size=concurrency)
        options = {"max_new_tokens": bodies[0]["max_tokens"], "temperature": bodies[0]["temperature"]}
        llm = OpenAILLM(model=bodies[0]["model"], base_url=url, api_key=API_KEY, generation_kwargs=options)
        load >> TextGeneration(llm=llm, input_batch_size=concurrency)
        pipeline.run(use_cache=False)


def ask_with_curator(url: str, bodies: Sequence[dict[str, Any]], concurrency: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"TELEMETRY_ENABLED": "false", "CURATOR_CACHE_DIR": folder, "OPENAI_API_KEY": API_KEY}
        import litellm.litellm_core_utils.default_encoding  # noqa: F401, PLC0415 - names the tokenizer's file it brings
        from bespokelabs.curator import LLM  # noqa: PLC0415

        limits = {
            "max_requests_per_minute": UNLIMITED,
            "max_tokens_per_minute": UNLIMITED,
            "max_concurrent_requests": concurrency,
        }
        options = {"max_tokens": bodies[0]["max_tokens"], "temperature": bodies[0]["temperature"]}
        llm = LLM(
            model_name=bodies[0]["model"],
            backend="openai",
            backend_params={"base_url": url, "api_key": API_KEY, **limits},
            generation_params=options,
        )
        llm([prompt_of(body) for body in bodies])


def prompt_of(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


RIVALS = {
    "openai": ("openai", ask_with_openai),
    "distilabel": ("distilabel", ask_with_distilabel),
    "curator": ("bespokelabs", ask_with_curator),
}


def main() -> None:
    if len(sys.argv) == 1:
        print(*(name for name, (package, _) in RIVALS.items() if find_spec(package)))
        return
    name, url, file, concurrency = sys.argv[1:]
    with open(file, encoding="utf-8") as lines:
        bodies = [json.loads(line) for line in lines]
    RIVALS[name][1](url, bodies, int(concurrency))


if __name__ == "__main__":
    main()

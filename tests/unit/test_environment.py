"""What child processes are given of the environment."""

import json
from pathlib import Path

import pytest

from lrq.config import load_settings
from lrq.domain.environment import COMPUTE, SYSTEM, pick
from lrq.trainer.launch import environment
from lrq.workers.supervisor import Supervisor

OURS = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LC_ALL": "C.UTF-8",
    "CUDA_VISIBLE_DEVICES": "0",
    "HF_HOME": "/data/hf",
    "LRQ_JUDGE_API_KEY": "sk-judge",
    "OPENAI_API_KEY": "sk-openai",
    "HF_TOKEN": "hf-secret",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "DATABASE_URL": "postgresql://me:pw@db/lrq",
    "LRQ_DATABASE_URL": "postgresql://me:pw@db/lrq",
    "WANDB_API_KEY": "wandb",
    "GITHUB_PAT": "ghp",
    "HTTPS_PROXY": "http://me:pw@proxy:3128",
    "LRQ_JUDGE_PROXY": "http://me:pw@proxy:3128",
    "MY_GATEWAY_KEY": "key-of-a-header",
}
SECRETS = {"LRQ_JUDGE_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "GITHUB_PAT"}
SECRETS |= {"HTTPS_PROXY", "LRQ_JUDGE_PROXY", "MY_GATEWAY_KEY"}


def test_only_allowed_names_and_beginnings_pass():
    assert pick({"AB": "1", "ABC": "2", "B": "3"}, ("AB",), ("B*",)) == {"AB": "1", "B": "3"}


def test_a_training_gets_what_torch_needs_and_no_secret_of_ours():
    given = environment(OURS)
    assert {"PATH", "HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "HF_HOME"} <= given.keys()
    assert not given.keys() & (SECRETS | {"LRQ_DATABASE_URL", "WANDB_API_KEY"})
    assert given["HF_HUB_OFFLINE"] == "1"


def test_a_tracker_that_is_named_gets_its_own_variables_alone():
    given = environment(OURS, report_to=["wandb"])
    assert given["WANDB_API_KEY"] == "wandb"
    assert not given.keys() & SECRETS


def test_no_list_lets_a_secret_through():
    assert not pick(OURS, SYSTEM, COMPUTE).keys() & SECRETS


@pytest.mark.parametrize("name", ["redis", "sampler", "judge-2", "aggregator", "trainer", "flower"])
def test_processes_get_keys_and_proxies_where_they_call_endpoints(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them can read the settings, which name a variable; what no setting names, none is given."""
    for variable, value in OURS.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "lrq.yaml").write_text("judge: {url: 'http://h/v1', headers: {api-key: '${MY_GATEWAY_KEY}'}}\n")
    monkeypatch.setenv("LRQ_CONFIG", str(tmp_path / "lrq.yaml"))
    given = Supervisor(load_settings(), [])._environment(name)
    calls = name in {"sampler", "judge-2"}
    for variable in ("LRQ_JUDGE_API_KEY", "LRQ_JUDGE_PROXY", "HTTPS_PROXY", "MY_GATEWAY_KEY"):
        assert (given.get(variable) == OURS[variable]) is calls, variable
    assert not given.keys() & {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "GITHUB_PAT"}
    assert load_settings(env=given).endpoints("judge")[0].url == "http://h/v1"


@pytest.mark.parametrize("name", ["redis", "sampler", "judge-2", "aggregator", "trainer", "flower"])
def test_flags_reach_all_processes_and_their_keys_those_that_call(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a flag came to `up` itself or from its parent: a key of `--set` is as secret as a variable's."""
    endpoint = {"url": "http://h/v1", "model": "m", "api_key": "sk-flag", "proxy": "http://me:pw@proxy:3128"}
    endpoint |= {"headers": {"x-gateway": "key-of-a-header"}, "query": {"code": "key-of-a-query"}}
    flags = {"judge": {"endpoints": [{**endpoint, "rpm": 7}]}, "embedding": {**endpoint, "model": "e"}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRQ_OVERRIDES", json.dumps(flags))
    settings = load_settings()
    for supervisor in (Supervisor(settings, []), Supervisor(settings, [], overrides=flags)):
        environment = supervisor._environment(name)
        calls = name in {"sampler", "judge-2"}
        for secret in ("sk-flag", "me:pw", "key-of-a-header", "key-of-a-query"):
            assert (secret in environment["LRQ_OVERRIDES"]) is calls
        judge = load_settings(env=environment).endpoints("judge")[0]
        assert (judge.url, judge.rpm, set(judge.headers)) == ("http://h/v1", 7, {"x-gateway"})
        assert judge.secret() == ("sk-flag" if calls else "***")

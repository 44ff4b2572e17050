"""Templates of commands: what is filled in, and what is refused before anything runs."""

import pytest
from pydantic import ValidationError

from lrq.config import PolicySettings
from lrq.domain.commands import fill_command

VALUES = {"model": "my models/a {port}", "port": 8001}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("serve {model} --port {port}", ["serve", "my models/a {port}", "--port", "8001"]),  # filled text is not filled
        ("serve --model={model} -p{port}", ["serve", "--model=my models/a {port}", "-p8001"]),
        (
            """serve {model} '{"a": 1}' "two words" {port}""",
            ["serve", VALUES["model"], '{"a": 1}', "two words", "8001"],
        ),
        ("serve {model} {port}; rm $HOME", ["serve", VALUES["model"], "8001;", "rm", "$HOME"]),  # no shell
    ],
)
def test_words_are_split_as_a_shell_would_and_filled_in_once(template: str, words: list[str]) -> None:
    assert fill_command(template, VALUES) == words


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("serve {model} --port {port} --name {name}", "{name} is no field of a command; it has {model} and {port}"),
        ("serve {model}", "names no {port}"),
        ("serve --port {port}", "names no {model}"),
        ("serve '{model} {port}", "No closing quotation"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_with_the_setting(template: str, problem: str) -> None:
    with pytest.raises(ValidationError) as refused:
        PolicySettings(serve=template)
    assert problem in str(refused.value)


def test_a_served_policy_has_no_other_server() -> None:
    with pytest.raises(ValidationError, match="leave one of them out"):
        PolicySettings(serve="serve {model} {port}", url="http://127.0.0.1:9/v1", model="m")


def test_the_server_of_a_policy_costs_nothing_unless_it_is_told() -> None:
    """The endpoint has the role's limits, and whom its replies come from."""
    policy = PolicySettings(serve="serve {model} {port}", path="p", concurrency=3, timeout=7)
    endpoint = policy.served(url="http://127.0.0.1:8001/v1", model="m", identity="served f")
    assert endpoint.price is not None
    assert (endpoint.price.input, endpoint.price.output) == (0, 0)
    assert (endpoint.concurrency, endpoint.timeout, endpoint.identity) == (3, 7, "served f")

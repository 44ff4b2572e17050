"""A policy behind a server."""

import asyncio
from dataclasses import dataclass, field

import pytest

from lrq.domain.errors import CallFailed, CallRefused, RunHalted, Stopping
from lrq.domain.records import Call, Choice, Reply, Usage
from lrq.policy import Prompt, Sampling, open_policy

PROMPT = Prompt(item="7", messages=[{"role": "user", "content": "The text.\n\nWhat?"}], context="The text.")


@dataclass
class Server:
    """Answers each call as `behave` says: a number of choices, choices, or an exception."""

    behave: object
    calls: list[Call] = field(default_factory=list)

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        await asyncio.sleep(0)
        made = self.behave(call)
        if isinstance(made, Exception):
            raise made
        if isinstance(made, int):
            made = [Choice(text=f"{call.n}/{call.draw}/{i}") for i in range(made)]
        usage = Usage(prompt_tokens=100, completion_tokens=3 * len(made))
        return Reply(key=f"key-{call.n}-{call.draw}", choices=made, usage=usage)


def opened(behave):
    server = Server(behave)
    return server, open_policy("http://localhost:1/v1", model="m", endpoint="pod", ask=server)


def texts(samples):
    return [one.text for one in samples.responses]


def reasons(samples):
    return [one.reason for one in samples.responses]


async def test_all_responses_come_with_one_request():
    """One request with n, at the sampling parameters asked for."""
    server, policy = opened(lambda call: call.n)
    samples = await policy.sample(PROMPT, Sampling(n=4, temperature=0.7, top_p=0.9, max_new_tokens=50))
    assert texts(samples) == ["4/0/0", "4/0/1", "4/0/2", "4/0/3"]
    (call,) = server.calls
    assert (call.role, call.endpoint, call.model, call.n, call.draw) == ("policy", "pod", "m", 4, 0)
    assert (call.temperature, call.top_p, call.max_tokens) == (0.7, 0.9, 50)
    assert list(call.messages) == PROMPT.messages
    assert (samples.prompt_tokens, samples.completion_tokens, samples.calls) == (100, 12, ("key-4-0",))
    assert samples.cut is None


async def test_asking_again_for_some_makes_the_same_call():
    """A redelivered task that lacks only k = 2 asks with the key that was paid for."""
    server, policy = opened(lambda call: call.n)
    await policy.sample(PROMPT, Sampling(n=4))
    samples = await policy.sample(PROMPT, Sampling(n=4), ks=[2])
    assert [(one.k, one.text) for one in samples.responses] == [(2, "4/0/2")]
    assert server.calls[0] == server.calls[1]


@pytest.mark.parametrize("changed", [{"item": "8"}, {"index": 1}, {"round": 1}])
async def test_other_prompts_have_other_seeds(changed):
    """Item, prompt and round each change the seed, and with it the key of the call."""
    server, policy = opened(lambda call: call.n)
    await policy.sample(PROMPT, Sampling(n=2))
    await policy.sample(Prompt(**{"item": "7", "messages": PROMPT.messages, **changed}), Sampling(n=2))
    assert server.calls[0].seed != server.calls[1].seed


async def test_choices_that_are_missing_are_asked_for_with_another_draw():
    """A server that gives two of four: responses 2 and 3 come from draws 2 and 3, each with a seed of its own."""
    server, policy = opened(lambda call: min(call.n, 2))
    samples = await policy.sample(PROMPT, Sampling(n=4))
    assert texts(samples) == ["4/0/0", "4/0/1", "1/2/0", "1/3/0"]
    assert [(call.n, call.draw) for call in server.calls] == [(4, 0), (1, 2), (1, 3)]
    assert len({call.seed for call in server.calls}) == 3
    assert samples.calls == ("key-4-0", "key-1-2", "key-1-3")


async def test_a_server_that_takes_no_n_is_asked_one_by_one():
    """The refusal is learned once: the next prompt is asked one by one at once."""
    server, policy = opened(lambda call: CallRefused("400: 'n' must be 1") if call.n > 1 else 1)
    assert texts(await policy.sample(PROMPT, Sampling(n=3))) == ["1/0/0", "1/1/0", "1/2/0"]
    assert [(call.n, call.draw) for call in server.calls] == [(3, 0), (1, 0), (1, 1), (1, 2)]
    await policy.sample(PROMPT, Sampling(n=3))
    assert [call.n for call in server.calls[4:]] == [1, 1, 1]


@pytest.mark.parametrize(
    "error", [CallRefused("400: context too long,\\n shorten it"), CallFailed("503 after 6 tries")]
)
async def test_a_call_that_fails_is_the_reason_of_every_response(error):
    """No text is made up, nothing further is asked."""
    server, policy = opened(lambda call: error)
    samples = await policy.sample(PROMPT, Sampling(n=3))
    assert texts(samples) == [None] * 3
    assert reasons(samples) == [str(error)] * 3
    assert len(server.calls) == 1


async def test_a_failure_of_the_rest_costs_the_rest_alone():
    """The responses that came are kept."""
    _, policy = opened(lambda call: 2 if call.n > 1 else CallFailed("503"))
    samples = await policy.sample(PROMPT, Sampling(n=3))
    assert texts(samples) == ["3/0/0", "3/0/1", None]
    assert reasons(samples) == ["", "", "503"]


async def test_a_server_without_choices_is_not_asked_forever():
    """Each response is asked for once more and then has a reason."""
    server, policy = opened(lambda call: 0)
    assert reasons(await policy.sample(PROMPT, Sampling(n=2))) == ["no_choices"] * 2
    assert len(server.calls) == 3


async def test_empty_and_filtered_choices_are_no_texts():
    """A filter's notice is not an answer; a response cut by length is one and says so."""
    made = [
        Choice(text=" \n"),
        Choice(text="I cannot.", finish="content_filter"),
        Choice(text="It is", finish="length"),
        Choice(text="Yes.", reasoning="Hm."),
    ]
    _, policy = opened(lambda call: made)
    samples = await policy.sample(PROMPT, Sampling(n=4))
    assert texts(samples) == [None, None, "It is", "Yes."]
    assert reasons(samples) == ["empty", "content_filter", "", ""]
    assert samples.responses[2].finish == "length"


@pytest.mark.parametrize("error", [RunHalted("budget"), Stopping("SIGTERM")])
async def test_halting_and_stopping_are_passed_on_after_all_replies_are_in(error):
    """Requests sent beside the one that halts are awaited, so that what is bought is committed."""
    ended = []

    def behave(call):
        if call.n > 1:
            return 0
        ended.append(call.draw)
        return error if call.draw == 0 else 1

    _, policy = opened(behave)
    with pytest.raises(type(error)):
        await policy.sample(PROMPT, Sampling(n=3))
    assert ended == [0, 1, 2]


async def test_a_stopped_process_makes_no_request():
    """should_stop is asked before each request."""
    server, policy = opened(lambda call: call.n)
    with pytest.raises(Stopping):
        await policy.sample(PROMPT, Sampling(n=3), should_stop=lambda: True)
    assert server.calls == []


async def test_over_long_contexts_are_cut_where_a_limit_is_set():
    """The very messages that were sent come back, with the cut."""
    server, policy = opened(lambda call: call.n)
    context = "The ship is red . " * 500
    prompt = Prompt(item="7", messages=[{"role": "user", "content": context + "What?"}], context=context)
    samples = await policy.sample(prompt, Sampling(n=1, max_prompt_tokens=200))
    kept = context[: samples.cut.start] + context[samples.cut.end :]
    assert server.calls[0].messages == samples.messages == ({"role": "user", "content": kept + "What?"},)
    refused = await policy.sample(prompt, Sampling(n=2, max_prompt_tokens=200, over_long="refuse"))
    assert reasons(refused) == ["over_long"] * 2
    assert len(server.calls) == 1


def test_the_fingerprint_names_server_and_model_and_shows_neither():
    """Another model is another policy; a password in the URL does not show."""
    one = open_policy("http://u:secret@h/v1", model="a", ask=Server(None))
    other = open_policy("http://u:secret@h/v1", model="b", ask=Server(None))
    assert one.fingerprint != other.fingerprint
    assert "secret" not in one.fingerprint
    one.release()
    one.restore()


async def test_tokens_are_kept_where_the_server_gives_them():
    """vLLM and SGLang are asked for the ids that they drew; thoughts that they part come back as written."""
    choice = Choice(text="Seven.", reasoning="We count.", ids=(5, 6, 7))
    server, policy = opened(lambda call: [choice] * call.n)
    (one, _) = (await policy.sample(PROMPT, Sampling(n=2))).responses
    assert server.calls[0].extra == {"return_token_ids": True}
    assert (one.text, one.ids, one.tokens) == ("Seven.", (5, 6, 7), 3)
    assert (one.written, one.form) == ("<think>\nWe count.\n</think>\n\nSeven.", "reasoning_content")


async def test_a_server_that_knows_no_token_ids_is_asked_without():
    """It refuses the field by its name once; its texts are taken, and it is not asked for ids again."""

    def behave(call):
        if "return_token_ids" in call.extra:
            return CallRefused("HTTP 400: Unrecognized request argument supplied: return_token_ids")
        return call.n

    server, policy = opened(behave)
    first = await policy.sample(PROMPT, Sampling(n=2))
    again = await policy.sample(PROMPT, Sampling(n=2))
    assert texts(first) == texts(again) == ["2/0/0", "2/0/1"]
    assert [bool(call.extra) for call in server.calls] == [True, False, False]
    assert first.responses[0].ids == ()


async def test_settings_of_the_chat_template_go_to_the_server():
    """As `chat_template_kwargs`, the field that vLLM and SGLang read."""
    server = Server(lambda call: call.n)
    own = {"enable_thinking": False}
    policy = open_policy("http://localhost:1/v1", model="m", ask=server, template=own)
    samples = await policy.sample(PROMPT, Sampling(n=1))
    assert server.calls[0].extra["chat_template_kwargs"] == own
    assert samples.rendering["template"] == own


@pytest.mark.parametrize("word", ["length", "max_tokens", "MAX_TOKENS"])
async def test_a_reply_without_room_is_cut_in_one_word(word):
    """Whatever a server calls it."""
    _, policy = opened(lambda call: [Choice(text="Sev", finish=word)] * call.n)
    assert (await policy.sample(PROMPT, Sampling(n=1))).responses[0].finish == "length"

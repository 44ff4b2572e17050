"""Whose fault an error is, by what the vendors' servers write."""

import json
from typing import Any

import orjson
import pytest

from lrq.calls.outcomes import Outcome, read_outcome
from lrq.domain.records import Call

CHAT = Call(role="judge", endpoint="e", model="m", messages=({"role": "user", "content": "q"},), max_tokens=9)


def read(status: int, body: Any, call: Call = CHAT) -> Outcome:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return read_outcome(call, status, {}, raw)


def openai(message: str, code: str | None = None, type_: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"error": {"code": code, "message": message, "status": status, "details": list(details)}}]


QUOTA_OF_A = {
    period: {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier"}],
    }
    for period in ("Minute", "Day")
}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "10s"}
CHECK_PLAN = "You exceeded your current quota, please check your plan and billing details."
SEE_DOCS = "For more information on this error, head to: https://platform.example.com/docs/billing"

ACCOUNT = {
    "OpenAI: quota": (429, openai(f"{CHECK_PLAN} {SEE_DOCS}", "insufficient_quota", "insufficient_quota")),
    "OpenAI: not active": (429, openai("Your account is not active, see your billing", "billing_not_active")),
    "OpenAI: hard limit": (400, openai("Billing hard limit has been reached", "billing_hard_limit_reached")),
    "OpenAI: key": (401, openai("Incorrect API key provided: sk-***", "invalid_api_key")),
    "OpenAI: country": (403, openai("Country, region, or territory not supported")),
    "Anthropic: credit": (400, {"type": "error", "error": {"message": "Your credit balance is too low to go on"}}),
    "Anthropic: own limit": (400, openai("You have reached your specified API usage limits.")),
    "Gemini: key": (
        400,
        google(400, "INVALID_ARGUMENT", "API key not valid. Please pass one.", {"reason": "API_KEY_INVALID"}),
    ),
    "Gemini: day": (429, google(429, "RESOURCE_EXHAUSTED", CHECK_PLAN, QUOTA_OF_A["Day"], RETRY)),
    "Gemini: place": (400, google(400, "FAILED_PRECONDITION", "User location is not supported for the API use.")),
    "Vertex: disabled": (403, google(403, "PERMISSION_DENIED", "The API is off", {"reason": "SERVICE_DISABLED"})),
    "Vertex: billing": (403, google(403, "PERMISSION_DENIED", "This API method requires billing to be enabled.")),
    "OpenRouter: credits": (402, openai("This request requires more credits, you can only afford 900.")),
    "OpenRouter: day": (429, openai("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000")),
    "OpenRouter: wrapped": (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error":{"message":"Invalid API Key","code":401}}'},
            }
        },
    ),
    "LiteLLM: budget": (400, openai("Budget has been exceeded! Current cost: 10.02, Max budget: 10.0", "400")),
    "LiteLLM: budget of a user": (429, openai("ExceededBudget: User=u over budget. Spend=1.2, Budget=1.0")),
    "LiteLLM: wrapped": (
        400,
        openai('litellm.BadRequestError: AnthropicException - {"error":{"message":"Your credit balance is too low"}}'),
    ),
    "Moonshot: suspended": (
        429,
        openai("Your account x is suspended, please check your plan", type_="exceeded_current_quota_error"),
    ),
    "DashScope: arrears": (400, {"code": "Arrearage", "message": "Access denied, please see to your account."}),
    "DashScope: not bought": (403, {"code": "AccessDenied.Unpurchased", "message": "Access to model denied."}),
    "DashScope: free tier": (403, {"code": "AllocationQuota.FreeTierOnly", "message": "The free tier is used up."}),
    "Zhipu: arrears": (429, {"error": {"code": "1113", "message": "您的账户已欠费,请充值后重试。"}}),
    "Zhipu: locked": (400, {"error": {"code": 1112, "message": "locked"}}),
    "SiliconFlow": (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}),
    "MiniMax": (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None}),
    "Volcengine": (403, openai("The account has an overdue balance", "AccountOverdueError")),
    "Fireworks": (412, {"error": {"message": "Account a is suspended, possibly due to reaching the spending limit"}}),
    "xAI: key": (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***"}),
    "Cohere: trial": (429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}),
    "Groq: restricted": (400, openai("Organization has been restricted.", "organization_restricted")),
    "Hugging Face": (402, {"error": "You have exceeded your monthly included credits for Inference Providers."}),
    "Azure: key": (401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}}),
    "Azure: volume": (403, {"statusCode": 403, "message": "Out of call volume quota. It is filled in 2 days."}),
    "Bedrock: token": (403, {"__type": "ExpiredTokenException", "message": "The security token is expired"}),
    "in a reply": (200, {"error": {"code": 402, "message": "Insufficient credits."}}),
    "one-api": (500, {"error": {"message": "用户额度不足, 剩余额度: 0", "type": "new_api_error"}}),
    "a redirect": (307, b""),
    "xAI: spent": (
        429,
        {
            "code": "Some resource has been exhausted",
            "error": "Your team t has either used all available credits or reached its monthly spending limit.",
        },
    ),
    "Groq: spend": (400, openai("API access is blocked because a spend alert was crossed", "blocked_api_access")),
    "Mistral: subscription": (403, {"message": "Your subscription is inactive"}),
    "Together: no card": (429, openai("You must add a credit card to your account to use this model")),
    "Bedrock: no card": (403, {"message": "INVALID_PAYMENT_INSTRUMENT: A valid payment instrument must be provided."}),
    "Bedrock: signature": (403, {"message": "The request signature we calculated does not match the signature sent."}),
    "Fireworks: 402": (402, {"fault": {"faultstring": "Rate limit quota violation"}}),
    "Novita": (403, {"code": 403, "reason": "NOT_ENOUGH_BALANCE", "message": "not enough balance"}),
    "Nebius: trial": (403, {"detail": "Your trial credits have been exhausted"}),
    "a trial": (429, {"error": {"message": "Your trial has expired"}}),
    "Upstage": (403, openai("You have used up all your credits")),
    "Vercel: no card": (403, openai("AI Gateway requires a valid credit card on file to service requests.")),
    "new-api": (403, openai("token quota is not enough, token remain quota: $0.00", type_="new_api_error")),
    "GitHub: day": (429, openai("Rate limit of 50 per 86400s exceeded for UserByModelByDay. Wait 45000 seconds")),
    "Zhipu: day, in words": (429, {"error": {"message": "该 API 已达今日调用次数限额，请联系客服购买"}}),
    "DashScope: key, Chinese": (400, {"code": "InvalidApiKey", "message": "提供的 API 密钥无效。"}),
    "Hunyuan, in a 200": (
        200,
        {"Response": {"Error": {"Code": "FailedOperation.ResourcePackExhausted", "Message": "资源包余量已用尽"}}},
    ),
    "OpenAI: a day's, for hours": (
        429,
        openai("Rate limit reached on tokens per day (TPD): Limit 100000, Used 99999. Please try again in 7h12m."),
    ),
    "blocked": (403, openai("Your account has been blocked.", "account_blocked")),
    "OpenRouter: key's day": (403, openai("Key limit exceeded (daily limit). Manage it in the settings")),
    "Baidu: day": (400, {"error_code": 17, "error_msg": "Open api daily request limit reached"}),
    "API Gateway: month": (429, {"message": "API rate limit exceeded: monthly quota of your plan"}),
    "Azure API Management": (400, {"message": "The quota for subscription 'free' is used up."}),
    "a plan": (403, {"message": "Plan limit hit: upgrade to Pro"}),
    "out of tokens": (403, {"message": "You have run out of tokens. Please subscribe."}),
    "German": (429, openai("Ihr Guthaben ist aufgebraucht")),
    "French": (403, openai("Quota dépassé pour ce compte")),
    "Japanese": (429, openai("クレジットの残高が不足しています")),
    "Spark, in a 200": (200, {"code": 11200, "message": "AppIdNoAuthError:授权错误", "sid": "s"}),
}
THROTTLED = {
    "older than 429": (420, {"error": "Enhance your calm"}),
    "German": (429, openai("Zu viele Anfragen: Ihr Kontingent pro Minute ist erreicht")),
    "Japanese": (429, openai("リクエスト数の上限に達しました。しばらくしてから再試行してください")),
    "OpenAI": (
        429,
        openai(
            "Rate limit reached for m in organization o on tokens per min (TPM): Limit 10000, Used 9000, Requested "
            "1500. Please try again in 3s. You can increase it by adding a payment method to your account",
            "rate_limit_exceeded",
            "tokens",
        ),
    ),
    "OpenAI: a day's, sliding": (429, openai("Rate limit reached on requests per day (RPD): Limit 200, Used 200")),
    "Gemini: minute": (429, google(429, "RESOURCE_EXHAUSTED", CHECK_PLAN, QUOTA_OF_A["Minute"], RETRY)),
    "Gemini: short": (429, google(429, "RESOURCE_EXHAUSTED", "Quota exceeded")),
    "Vertex": (
        429,
        google(429, "RESOURCE_EXHAUSTED", "Quota exceeded for aiplatform.example.com/requests_per_minute_per_project."),
    ),
    "Anthropic": (
        429,
        openai(
            "This request would exceed your organization's rate limit of 30,000 input tokens per "
            "minute. Please reduce the prompt length, or try again later."
        ),
    ),
    "Azure": (429, openai("Requests have exceeded the call rate limit of your pricing tier. Retry after 10 seconds.")),
    "Mistral": (429, {"object": "error", "message": "Service tier capacity exceeded for this model."}),
    "DashScope: rate": (429, {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded"}),
    "DashScope: tokens": (429, {"code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded, raise it"}),
    "DashScope: as OpenAI": (429, openai("You exceeded your current quota (TPM)", "insufficient_quota")),
    "Zhipu": (429, {"error": {"code": "1302", "message": "您的账户已达到速率限制"}}),
    "Moonshot": (429, openai("request reached max request: 3, try again after 1 seconds", "rate_limit_reached_error")),
    "Cohere": (429, {"message": "You are using a Trial key, which is limited to 10 API calls / minute."}),
    "LiteLLM": (429, openai("litellm.RateLimitError: Rate limit reached for m on tokens per min.", "429")),
    "Bedrock": (400, {"__type": "ThrottlingException", "message": "Too many requests, please wait"}),
    "Cloudflare": (429, b"error code: 1015"),
    "nginx": (429, b"<html><title>429 Too Many Requests</title> billing </html>"),
    "in a reply": (200, {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-min"}}),
    "in a choice": (
        200,
        {
            "choices": [
                {"message": {"content": ""}, "finish_reason": "error", "error": {"code": 429, "message": "full"}}
            ]
        },
    ),
    "quoted in a wrapper": (400, openai('{"error":{"code":429,"message":"later"}}')),
    "Groq: minute": (
        429,
        openai(
            "Rate limit reached for model `m` in organization `o` on tokens per minute (TPM): Limit 12000, Used 11500, "
            "Requested 1800. Please try again in 6.5s. Need more tokens? Upgrade to Dev Tier today at billing"
        ),
    ),
    "Fireworks": (429, {"fault": {"faultstring": "Rate limit quota violation. Quota limit  exceeded."}}),
    "Bedrock through LiteLLM": (
        429,
        openai('litellm.RateLimitError: BedrockException - {"message":"Too many tokens"}'),
    ),
    "Moonshot: organization": (429, openai("Your account o<ak> request reached organization max RPM: 3")),
    "DashScope: Chinese": (429, {"code": "Throttling.RateQuota", "message": "请求速率超过限制，请降低请求频率。"}),
    "Zhipu: in words": (429, {"error": {"message": "该模型当前访问量过大，请您稍后再试"}}),
    "xAI": (429, {"code": "Some resource has been exhausted", "error": "Too many requests: your limit is RPS=1"}),
    "Cerebras": (429, {"message": "Tokens per minute limit exceeded", "code": "token_quota_exceeded"}),
    "GitHub: minute": (429, openai("Rate limit of 10 per 60s exceeded for UserByModelByMinute.")),
    "a budget of a minute": (429, {"message": "budget of tokens per minute exceeded"}),
    "Baidu, in a 200": (200, {"error_code": 18, "error_msg": "Open api qps request limit reached"}),
    "Hunyuan, in a 200": (200, {"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "超过了频率限制"}}}),
}
REFUSED = {
    "xAI: long": (400, {"error": "This model's maximum prompt length is 131072 but the request contains 140000."}),
    "a limit of tokens": (400, openai("Input exceeds the model's limit of 8,192 tokens")),
    "OpenAI: too long": (400, openai("This model's maximum context length is 8192", "context_length_exceeded")),
    "OpenAI: above the rate": (
        429,
        openai("Request too large for m on tokens per min (TPM): Limit 30000, Requested 45000.", "rate_limit_exceeded"),
    ),
    "only by its numbers": (429, openai("On tokens per minute: Limit: 6,000, Used: 0, Requested: 7,000")),
    "Groq": (413, openai("Request too large for m on tokens per minute (TPM): Limit 6000, Requested 7000")),
    "Together": (403, openai("Input token count + max_tokens parameter must be less than the context length")),
    "OpenRouter: moderation": (
        403,
        {
            "error": {
                "code": 403,
                "message": 'Your input was flagged for "violence". No credits were charged.',
                "metadata": {"reasons": ["violence"]},
            }
        },
    ),
    "Azure: filter": (400, openai("The prompt triggered the content management policy", "content_filter")),
    "xAI: guidelines": (403, {"error": "Content violates usage guidelines. Team: t"}),
    "DashScope: length": (400, {"code": "InvalidParameter", "message": "Range of input length should be [1, 30720]"}),
    "DashScope: content": (400, {"code": "DataInspectionFailed", "message": "Input data may contain …"}),
    "Zhipu: content": (400, {"error": {"code": "1301", "message": "系统检测到输入内容"}}),
    "MiniMax: content": (200, {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}),
    "Baidu": (400, {"error_code": 336003, "error_msg": "the max length of the last message is 4800"}),
    "FastAPI": (400, {"detail": "Prompt is longer than this deployment allows (2048 tokens)"}),
    "nginx": (413, b"<html><title>413 Request Entity Too Large</title></html>"),
    "llama.cpp": (500, openai("the request exceeds the available context size")),
    "validation": (422, {"detail": [{"loc": ["body", "messages"], "msg": "is no list", "type": "type_error"}]}),
    "law": (451, b""),
    "Moonshot: length": (400, openai("Invalid request: Your request exceeded model token limit: 8192")),
    "Moonshot: risk": (400, openai("The request was rejected because it was considered high risk")),
    "DeepSeek: risk": (400, openai("Content Exists Risk")),
    "Zhipu: length": (400, {"error": {"message": "Prompt 超长"}}),
    "DashScope: length, Chinese": (400, {"code": "InvalidParameter", "message": "输入长度超出范围[1, 30720]"}),
    "DashScope: content, Chinese": (400, {"message": "输入数据可能包含不适当的内容。"}),
}
DENIED = {
    "a page": (403, b"<html><title>403 Forbidden</title></html>"),
    "no words": (403, b""),
    "Vertex": (403, google(403, "PERMISSION_DENIED", "Permission denied on resource project p.")),
    "Bedrock": (403, {"__type": "AccessDeniedException", "message": "You don't have access to the model"}),
    "OpenAI": (404, openai("The model `m` does not exist or you do not have access to it.", "model_not_found")),
    "Azure": (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}}),
    "OpenRouter": (404, openai("No endpoints found that support this request", "404")),
    "Together": (400, openai("Unable to access model m", "model_not_available")),
    "unexplained": (400, {"errors": [{"message": "bad"}]}),
}
FAILED = {
    "Anthropic": (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "Groq": (498, openai("Flex tier capacity exceeded")),
    "Cloudflare": (520, b"<html>error</html>"),
    "Hugging Face": (503, {"error": "Model is currently loading", "estimated_time": 20.0}),
    "a gateway": (502, openai("upstream: unauthorized, billing")),
    "in a reply": (200, {"error": {"code": 502, "message": "Provider returned error"}}),
    "a choice without words": (200, {"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}),
    "no success": (200, {"code": 500, "msg": "busy", "success": False, "data": None}),
    "words alone": (200, b"upstream timeout"),
}


def cases(kind: str, table: dict[str, tuple[int, Any]]) -> list[Any]:
    return [pytest.param(status, body, kind, id=f"{kind}: {name}") for name, (status, body) in table.items()]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        *cases("account", ACCOUNT),
        *cases("throttled", THROTTLED),
        *cases("refused", REFUSED),
        *cases("denied", DENIED),
        *cases("failed", FAILED),
    ],
)
def test_what_servers_write_tells_whose_fault_it_is(status: int, body: Any, kind: str) -> None:
    """By status, code, type and words, in whatever shape they come; none of it is taken for a reply."""
    outcome = read(status, body)
    assert (outcome.kind, list(outcome.choices)) == (kind, [])


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"errors": [{"message": "bad"}]}, "refused"),
        (400, {"message": "batch size is invalid, it should not be larger than 10"}, "refused"),
        (400, {"code": 1214, "message": "input数组最大不得超过64条"}, "refused"),
        (413, {"error": "batch size 61 > maximum allowed batch size 32"}, "refused"),
        (422, {"message": "batch size 61 > maximum allowed batch size 32"}, "refused"),
        (424, {"error": "Inference failed: batch too large", "error_type": "backend"}, "refused"),
        (429, openai("too many tokens in batch; the max is 120000 tokens per batch"), "refused"),
        (500, openai("input is too large to process. increase the physical batch size"), "refused"),
        (500, {"error": "CUDA out of memory. Tried to allocate 20 GiB"}, "refused"),
        (500, {"error": "internal error"}, "failed"),
        (429, {"error": "Model is overloaded", "error_type": "overloaded"}, "throttled"),
    ],
)
def test_a_batch_of_texts_that_is_refused_is_made_smaller_by_who_asks(status: int, body: Any, kind: str) -> None:
    """An embedding server's 400 is the request's own, whatever its words, and so is a batch that it cannot hold."""
    texts = Call(role="embedding", endpoint="e", model="m", input=("a", "b"))
    assert read(status, body, texts).kind == kind


@pytest.mark.parametrize("comment", [": OPENROUTER PROCESSING\n\n", "\ufeff", "         \n\n"])
def test_comments_that_keep_a_connection_alive_are_no_part_of_a_reply(comment: str) -> None:
    """They may stand before and after it."""
    reply = json.dumps({"choices": [{"message": {"content": "[[7]]"}, "finish_reason": "stop"}]})
    outcome = read(200, f"{comment}{reply}\n\n: done".encode())
    assert [choice.text for choice in outcome.choices] == ["[[7]]"]


@pytest.mark.parametrize("error", [None, "", {}, {"code": None, "message": ""}])
def test_an_error_that_says_nothing_beside_a_reply_is_none(error: Any) -> None:
    """Some servers send the field always."""
    body = {"choices": [{"message": {"content": "[[7]]"}}], "error": error}
    assert read(200, body).kind == "ok"


@pytest.mark.parametrize(
    ("body", "unread"),
    [
        (b"", 0),
        (b"not json", 8),
        ({"odd": 1}, 9),
        ({"message": "rate limit exceeded", "usage": {"prompt_tokens": 3}}, 61),  # it counts: a model was at work
        ({"error": {"code": 502, "message": "down"}}, None),  # an error that can be read is no answer
        (b"<html>portal</html>", None),
    ],
)
def test_what_an_answer_may_cost_that_is_no_reply(body: Any, unread: int | None) -> None:
    """The bytes that came, where they are not an error's and not a page: it is known what was delivered."""
    outcome = read(200, body)
    assert (outcome.kind, outcome.unread, outcome.unknown) == ("failed", unread, False)


def test_part_of_a_reply_may_cost_what_came() -> None:
    """The error that ended it came after the model had begun."""
    body = {"choices": [{"message": {"content": "ha"}, "error": {"code": 502, "message": "lost"}}]}
    assert read(200, body).unread == len(orjson.dumps(body))

"""URLs as they are shown, and whether they can be read."""

import pytest

from lrq.domain.urls import broker_url_problem, database_url_problem, redis_url_problem, safe_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:secret@h:6379/0", "redis://***@h:6379/0"),
        ("redis://me:se@cr#et@h/5", "redis://***@h/5"),
        ("redis://me:se/cr?et@h/5", "redis://***@h/5"),
        ("redis://h/0?password=secret&ssl_cert_reqs=none", "redis://h/0?password=***&ssl_cert_reqs=none"),
        ("https://h/v1?api-key=secret&api-version=2024-10-21", "https://h/v1?api-key=***&api-version=2024-10-21"),
        ("https://h/v1?secret", "https://h/v1?***"),
        ("https://h/v1#secret", "https://h/v1#***"),
        ("postgresql+psycopg://me:secret@h/d?sslmode=require", "postgresql+psycopg://***@h/d?sslmode=require"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("amqp://me:secret@h//;amqp://me:secret@i//", "amqp://***@i//"),
        ("/run/redis.sock", "/run/redis.sock"),
        ("h:8000/v1", "h:8000/v1"),
        ("me:secret", "***"),
        ("secret words", "***"),
    ],
)
def test_a_shown_url_holds_no_secret(url: str, shown: str) -> None:
    """User, password, and whatever a query may name are hidden, also where the URL cannot be read as one."""
    assert safe_url(url) == shown


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h", None),
        ("rediss://me:pass@[::1]:6380/15?ssl_cert_reqs=none", None),
        ("redis://:p%40ss:word@h:1/0", None),
        ("unix:///run/redis.sock", None),
        ("unix://", "a socket"),
        ("http://h", "a Redis is named"),
        ("h:6379", "a Redis is named"),
        ("redis:///0", "no host"),
        ("redis://h:port/0", "the port"),
        ("redis://h:70000/0", "the port"),
        ("redis://h/first", "a number"),
        ("redis://me:p#ss@h/0", "%23"),
        ("redis://me:p/ss@h/0", "%2F"),
        ("redis://me:p?ss@h/0", "%3F"),
        ("redis://me:p ss@h/0", "%20"),
    ],
)
def test_what_is_wrong_with_the_form_of_a_redis_url(url: str, words: str | None) -> None:
    """Each mistake has words of its own; a URL that can be used has none."""
    problem = redis_url_problem(url)
    assert broker_url_problem(url) == (problem if "://" in url and "http" not in url else broker_url_problem("x"))
    if words is None:
        assert problem is None
    else:
        assert words in str(problem)


def test_brokers_and_databases() -> None:
    """RabbitMQ is a broker; an unescaped @ is the one character that a database's password cannot hold."""
    assert broker_url_problem("amqp://guest:guest@h:5672//") is None
    assert "no host" in str(broker_url_problem("amqp://"))
    assert "amqp://" in str(broker_url_problem("foo://h"))
    assert database_url_problem("postgresql+psycopg://me@/d?host=/run&options=-c%20x@y") is None
    assert "%40" in str(database_url_problem("postgresql://me:p@ss@h/d"))
    assert database_url_problem("sqlite:////a@b/c@d") is None

"""Why a Redis or a broker cannot be used: each cause in words of its own, none with a password."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lrq.config import Settings, load_settings
from lrq.domain.errors import LrqError
from lrq.queue.broker import find_server
from lrq.queue.diagnosis import broker_problem, check_servers, redis_problem

PASSWORD = "hidden-4711"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Ports of servers: plain, with a password, a replica, one with TLS, one that is none; and the authority's file."""
    folder = tmp_path_factory.mktemp("servers")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", folder / "key.pem", "-out", folder / "ca.pem")
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *names]
    subprocess.run(make, check=True, capture_output=True)
    ports = {name: str(free_port()) for name in ("plain", "locked", "replica", "tls", "http", "nobody")}
    tls = ("--tls-port", ports["tls"], "--tls-cert-file", folder / "ca.pem", "--tls-key-file", folder / "key.pem")
    options = {
        "plain": ("--port", ports["plain"]),
        "locked": ("--port", ports["locked"], "--requirepass", "right"),
        "replica": ("--port", ports["replica"], "--replicaof", "127.0.0.1", ports["nobody"]),
        "tls": ("--port", "0", *tls, "--tls-auth-clients", "no"),
    }
    with ExitStack() as stack:
        for each in options.values():
            argv = [find_server().path, *each, "--save", "", "--dir", folder]
            process = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.DEVNULL))
            stack.callback(process.kill)
        server = stack.enter_context(socket.create_server(("127.0.0.1", int(ports["http"]))))
        server.settimeout(0.1)
        for name in options:
            deadline = time.monotonic() + 30
            while not listens(int(ports[name])):
                assert time.monotonic() < deadline, name
                time.sleep(0.05)
        yield ports | {"ca": str(folder / "ca.pem"), "key": str(folder / "key.pem")}


CASES = [
    ("redis://127.0.0.1:{plain}/0", None),
    ("redis://:right@127.0.0.1:{locked}/3", None),
    ("rediss://localhost:{tls}/0?ssl_ca_certs={ca}", None),
    (f"redis://:{PASSWORD}@127.0.0.1:{{locked}}/0", "refuses user or password"),
    (f"redis://me:{PASSWORD}@127.0.0.1:{{plain}}/0", "refuses user or password"),
    ("redis://127.0.0.1:{locked}/0", "wants a password"),
    ("redis://127.0.0.1:{plain}/99", "no database of that number"),
    ("redis://127.0.0.1:{replica}/0", "a read-only replica"),
    ("redis://127.0.0.1:{nobody}/0", "nothing listens at that port"),
    ("redis://nowhere.invalid/0", "no such host name"),
    ("redis://127.0.0.1:{http}/0", "does not answer within 2 s"),
    ("redis://127.0.0.1:{tls}/0", "write rediss://"),
    ("rediss://localhost:{tls}/0", "not trusted here"),
    ("rediss://127.0.0.1:{tls}/0?ssl_ca_certs={ca}", "another host name"),
    ("rediss://localhost:{tls}/0?ssl_ca_certs=/nowhere.pem", "a file that does not exist"),
    ("rediss://localhost:{tls}/0?ssl_ca_certs={key}", "holds no certificate"),
    ("rediss://localhost:{tls}/0?ssl_certfile={ca}&ssl_keyfile={ca}", "holds no certificate, or not the key"),
    ("rediss://localhost:{tls}/0?ssl_cert_reqs=never", "an option or a value that is none"),
    ("rediss://localhost:{plain}/0", "does not speak TLS"),
    ("redis://127.0.0.1:{plain}/0?pasword=" + PASSWORD, "an option or a value that is none"),
    ("unix:///nowhere/redis.sock", "its socket"),
]


@pytest.mark.parametrize("variable", ["LRQ_REDIS_URL", "LRQ_BROKER_URL"])
@pytest.mark.parametrize(("url", "words"), CASES)
def test_each_cause_has_its_words(places: dict[str, str], variable: str, url: str, words: str | None) -> None:
    """One line that names the variable and says what to do, whichever of the two names the server."""
    settings = load_settings(env={variable: url.format(**places)})
    problem = redis_problem(settings) if variable == "LRQ_REDIS_URL" else broker_problem(settings)
    if words is None:
        assert problem is None
        check_servers(settings)
        return
    assert words in str(problem)
    assert variable in str(problem)
    assert PASSWORD not in str(problem)
    assert "\n" not in str(problem)
    with pytest.raises(LrqError, match=variable):
        check_servers(settings)


def test_what_is_away_may_come_back(places: dict[str, str]) -> None:
    """A worker waits for that; for what is wrong with the URL it does not."""

    def may_pass(url: str) -> bool:
        problem = broker_problem(Settings.model_validate({"redis_url": url.format(**places)}))
        assert problem is not None
        return problem.may_pass

    away = ["redis://127.0.0.1:{nobody}/0", "redis://127.0.0.1:{replica}/0", "unix:///nowhere/redis.sock"]
    wrong = ["redis://127.0.0.1:{locked}/0", "redis://127.0.0.1:{plain}/99", "rediss://localhost:{tls}/0"]
    assert ([may_pass(url) for url in away], [may_pass(url) for url in wrong]) == ([True] * 3, [False] * 3)


@pytest.mark.parametrize("url", ["amqp://me:{}@127.0.0.1:1//", "amqp://me:{}@nowhere.invalid//"])
def test_a_rabbitmq_that_is_away(url: str) -> None:
    """Its errors are told in the same words."""
    problem = broker_problem(load_settings(env={"LRQ_BROKER_URL": url.format(PASSWORD)}))
    assert problem is not None
    assert problem.may_pass
    assert "is not there" in str(problem)
    assert PASSWORD not in str(problem)

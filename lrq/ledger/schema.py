"""The tables of the ledger. Times are seconds since 1970 in UTC, money is in millionths of the currency."""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows only by INTEGER PRIMARY KEY


def _count(name: str, type_: type[sa.types.TypeEngine[int]] = sa.Integer) -> sa.Column[int]:
    return sa.Column(name, type_, nullable=False, server_default="0")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


meta = sa.Table("meta", metadata, sa.Column("name", sa.String(64), primary_key=True), _text("value"))

contexts = sa.Table(
    "contexts",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),  # SHA-256 of the text's bytes, hex
    sa.Column("chars", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),  # zstd
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("recipe", sa.String(200), nullable=False),
    sa.Column("config", sa.Text, nullable=False),  # the frozen configuration, JSON
    sa.Column("state", sa.String(16), nullable=False, server_default="active"),  # active, paused, stopped, done
    sa.Column(
        "halt", sa.String(16), nullable=False, server_default=""
    ),  # who halted it: user, account, budget, settings, interrupted
    _text("reason"),
    sa.Column("created_at", sa.Float, nullable=False),
    _count("round"),
    _count("series"),
    _count("open_items"),  # items of the current round that are not at an end
    sa.Column("max_cost", sa.BigInteger),
    sa.Column("max_tokens", sa.BigInteger),
    _count("spent_cost", sa.BigInteger),
    _count("spent_tokens", sa.BigInteger),
    _count("reserved_cost", sa.BigInteger),
    _count("reserved_tokens", sa.BigInteger),
    _count("unknown_cost", sa.BigInteger),  # the part of spent that belongs to deliveries of unknown outcome
    _count("ingesting"),  # 1: a process adds lines, 2: a pilot has left some; the run cannot be at its end
)

items = sa.Table(
    "items",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("key", sa.String(200), nullable=False),  # the user's id
    _count("line"),
    sa.Column("context_hash", sa.String(64), nullable=False, server_default=""),
    sa.Column("body", sa.Text, nullable=False),  # question, answer and further fields, JSON
    sa.Column(
        "state", sa.String(16), nullable=False
    ),  # waiting (for its round), unsampled, sampling, unjudged, judging, aggregating, done, failed
    _text("reason"),
    _count("round"),
    _count("open_steps"),
    _count("given"),  # how many responses with a text it brought
    sa.UniqueConstraint("run_id", "key"),
    sa.Index(None, "run_id", "state", "id"),
)

set_aside = sa.Table(
    "set_aside",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("source", sa.String(200), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    _text("reason"),
)

tasks = sa.Table(  # the backlog: a row lives from the start of its work to its end
    "tasks",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    _count("item_id"),  # 0: a task of the whole run
    _count("round"),
    sa.Column("name", sa.String(64), nullable=False),  # sample, a step's name, aggregate, train
    sa.Column("queue", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # ready, sent, running
    sa.Column("owner", sa.String(40), nullable=False, server_default=""),  # the process that works on it
    _count("delivery"),
    _count("failures"),
    sa.Column("sent_at", sa.Float),
    _text("reason"),
    sa.UniqueConstraint("run_id", "item_id", "round", "name"),
    sa.Index(None, "run_id", "queue", "state", "id"),
    sqlite_autoincrement=True,  # ids of ended tasks are never given again: an old message must not meet a new task
)

prompts = sa.Table(
    "prompts",
    metadata,
    sa.Column("item_id", sa.ForeignKey("items.id"), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("prompt", sa.Integer, primary_key=True, autoincrement=False),
    _text("body"),  # what was cut, the policy's fingerprint, how it was rendered, the keys of its calls; JSON
    _count("prompt_tokens"),
    _count("completion_tokens"),
    sa.Column("seconds", sa.Float, nullable=False, server_default="0"),  # at work on it
)

responses = sa.Table(
    "responses",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("item_id", sa.ForeignKey("items.id"), nullable=False),
    _count("round"),
    _count("prompt"),
    sa.Column("k", sa.Integer, nullable=False),
    sa.Column("text", sa.Text),  # NULL: there is none, and the reason says why
    _text("reason"),
    _count("tokens"),
    sa.Column("finish", sa.String(16), nullable=False, server_default="stop"),
    sa.Column("ids", sa.LargeBinary),  # the tokens that were drawn (`token_ids`); NULL: they are not known
    sa.Column("written", sa.Text),  # all that was written, thoughts and control tokens too; NULL: the text alone
    sa.Column("form", sa.String(32), nullable=False, server_default=""),  # the message that renders to these ids
    sa.UniqueConstraint("item_id", "round", "prompt", "k"),
)

scores = sa.Table(
    "scores",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("item_id", sa.ForeignKey("items.id"), nullable=False),
    _count("round"),
    _count("prompt"),
    sa.Column("k", sa.Integer, nullable=False),
    sa.Column("dimension", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # value, not_applicable, unscored
    sa.Column("value", sa.Float),
    _text("reason"),
    _text("evidence"),  # JSON
    sa.UniqueConstraint("item_id", "round", "prompt", "k", "dimension"),
)

# What is missing, with its reason: few, and asked for whenever a run is looked at.
sa.Index(
    "ix_scores_unscored",
    scores.c.item_id,
    sqlite_where=scores.c.state == "unscored",
    postgresql_where=scores.c.state == "unscored",
)

rewards = sa.Table(
    "rewards",
    metadata,
    sa.Column("item_id", sa.ForeignKey("items.id"), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("prompt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("k", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.Float),
    _text("reason"),
)

rows = sa.Table(
    "rows",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("item_id", sa.ForeignKey("items.id"), nullable=False),
    _count("round"),
    _count("place"),  # among the item's rows
    sa.Column("margin", sa.Float),
    _text("body"),  # its turns as [prompt, chosen, rejected, reference], and the figures that its loss reads; JSON
    sa.Column("window", sa.Integer),  # the training that it went to; NULL: none yet
    sa.UniqueConstraint("item_id", "round", "place"),
    sa.Index(None, "run_id", "round", "id"),
)
# Rows for the next training, counted at the end of each item.
sa.Index(
    "ix_rows_untrained",
    rows.c.run_id,
    rows.c.round,
    rows.c.id,
    sqlite_where=rows.c.window.is_(None),
    postgresql_where=rows.c.window.is_(None),
)

# Tasks that processes work on: asked for to free those of the dead.
sa.Index(
    "ix_tasks_running",
    tasks.c.owner,
    sqlite_where=tasks.c.state == "running",
    postgresql_where=tasks.c.state == "running",
)

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("key", sa.String(40), nullable=False, unique=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    _count("item_id"),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("endpoint", sa.String(64), nullable=False),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("step", sa.String(64), nullable=False, server_default=""),
    sa.Column("dimension", sa.String(64), nullable=False, server_default=""),
    sa.Column("kind", sa.String(64), nullable=False, server_default=""),
    _count("draw"),
    _count("attempt"),
    _count("series"),
    sa.Column("state", sa.String(16), nullable=False),  # claimed, sent, done, failed, unknown
    sa.Column("owner", sa.String(40), nullable=False),
    _count("deliveries"),
    sa.Column("server", sa.String(100), nullable=False, server_default=""),  # which of the pool answered
    _count("reserved_cost", sa.BigInteger),
    _count("reserved_tokens", sa.BigInteger),
    sa.Column("cost", sa.BigInteger),  # NULL: unpriced
    _count("prompt_tokens"),
    _count("completion_tokens"),
    _count("cached_tokens"),
    sa.Column("reply", sa.LargeBinary),  # choices and vectors, JSON, zstd where that is smaller
    sa.Column("error", sa.String(16), nullable=False, server_default=""),  # refused, failed
    _text("reason"),
    sa.Column("claimed_at", sa.Float, nullable=False),
    sa.Column("settled_at", sa.Float),
    _count("latency_ms"),
    _count("reasoning_tokens"),  # of the completion's, where the server names them
    sa.Index(None, "item_id"),
)
# Calls nobody has settled yet: few at any time, and asked for whenever a process has died.
sa.Index(
    "ix_calls_open",
    calls.c.owner,
    sqlite_where=calls.c.settled_at.is_(None),
    postgresql_where=calls.c.settled_at.is_(None),
)

usage = sa.Table(  # sums of calls, kept with each settle so that asking for them costs the same for any run
    "usage",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("role", sa.String(16), primary_key=True),
    sa.Column("endpoint", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("step", sa.String(64), primary_key=True),
    sa.Column("dimension", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(64), primary_key=True),
    _count("calls"),
    _count("reused"),
    _count("failed"),
    _count("unknown"),
    _count("unpriced"),
    _count("prompt_tokens", sa.BigInteger),
    _count("completion_tokens", sa.BigInteger),
    _count("cached_tokens", sa.BigInteger),
    _count("cost", sa.BigInteger),
    _count("saved", sa.BigInteger),  # by prompt caches: what cached input would have cost besides
    _count("latency_ms", sa.BigInteger),
    _count("reasoning_tokens", sa.BigInteger),
)

learned = sa.Table(  # what endpoints were learned to want of requests; lrq.calls.learned has the topics
    "learned",
    metadata,
    sa.Column("server", sa.String(200), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("topic", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Float, nullable=False),
    _text("reason"),
    sa.Column("at", sa.Float, nullable=False),
)

breakers = sa.Table(  # calls in a row that brought nothing, by what was asked
    "breakers",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("role", sa.String(16), primary_key=True),
    sa.Column("endpoint", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("kind", sa.String(64), primary_key=True),  # "": all of the endpoint
    _count("failures"),
    _text("items"),  # the first few that they are of, JSON
    _count("has_succeeded"),
)

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("host", sa.String(200), nullable=False),
    sa.Column("place", sa.String(100), nullable=False),  # the machine and its table of process ids
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
    _text("note"),  # what it says of itself, JSON: tokens per second, waiting, limits
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(40), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)

trainings = sa.Table(
    "trainings",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("window", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.String(16), nullable=False),  # waiting, running, done, nothing, failed
    _text("reason"),
    _count("rows"),
    _text("model"),  # the folder it wrote, below the run's
    sa.Column("started_at", sa.Float),
    sa.Column("ended_at", sa.Float),
)

metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("window", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    _text("body"),  # JSON
)

labels = sa.Table(  # which of two responses a person prefers
    "labels",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("item_id", sa.ForeignKey("items.id"), nullable=False),
    _count("round"),
    _count("prompt"),
    sa.Column("left", sa.Integer, nullable=False),  # the k that stood on the left
    sa.Column("right", sa.Integer, nullable=False),
    sa.Column("choice", sa.String(8), nullable=False),  # left, right, tie
    sa.Column("who", sa.String(100), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Index(None, "run_id", "item_id"),
)

limits = sa.Table(  # of a lane, set while its runs work; they stand over those of the settings
    "limits",
    metadata,
    sa.Column("lane", sa.String(300), primary_key=True),
    sa.Column("rpm", sa.Integer),  # NULL: what the settings say
    sa.Column("tpm", sa.Integer),
    sa.Column("concurrency", sa.Integer),
)

changes = sa.Table(  # who changed what of a run or a lane while it worked, and why
    "changes",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("who", sa.String(100), nullable=False),
    sa.Column("what", sa.String(16), nullable=False),  # pause, resume, budget, limits
    sa.Column("subject", sa.String(300), nullable=False),  # the run's or lane's name
    _text("reason"),
    _text("body"),  # the new values, JSON
)

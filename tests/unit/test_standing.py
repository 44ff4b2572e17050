"""Whose fault a denial is, by how others fare."""

from lrq.calls.standing import Standing


def test_a_denial_while_others_pass_is_the_request_s() -> None:
    """Another call, which began later, was answered."""
    standing = Standing()
    denied, other = standing.begin(), standing.begin()
    standing.end(denied, kind="denied", item=1)
    assert standing.blame(denied) is None
    standing.end(other + 1, kind="ok", item=2)
    assert standing.blame(denied) == "refused"
    assert standing.in_flight == 0


def test_three_items_denied_in_a_row_are_the_account() -> None:
    """Many calls of one item are not: they may all hold the same text."""
    standing = Standing()
    for item in (1, 1, 1, 1, 2):
        begun = standing.begin()
        standing.end(begun, kind="denied", item=item)
        assert standing.blame(begun) is None
    begun = standing.begin()
    standing.end(begun, kind="denied", item=3)
    assert standing.blame(begun) == "account"


def passing(standing: Standing, count: int, item: int = 2) -> None:
    for _ in range(count):
        standing.end(standing.begin(), kind="ok", item=item)


def test_a_call_that_is_throttled_each_time_while_others_pass_waits_for_nothing() -> None:
    """A hundred pass: (1/102)^3 is less than one in 100,000; then its item's others are given up sooner."""
    standing = Standing()
    passing(standing, 100)
    for _ in range(40):
        standing.end(standing.begin(), kind="throttled", item=1)  # its own say nothing of others
    assert [standing.is_never_taken(1, tries) for tries in (1, 2, 3)] == [False, False, True]
    assert [standing.is_its_own(1, tries) for tries in (1, 2)] == [False, True]
    assert standing.is_never_taken(1, 1)
    assert not standing.is_never_taken(3, 1)


def test_a_rate_that_throttles_everyone_is_waited_for() -> None:
    """Half of all calls are throttled: ten times in a row is no reason to give up."""
    standing = Standing()
    passing(standing, 50)
    for _ in range(50):
        standing.end(standing.begin(), kind="throttled", item=2)
    assert not any(standing.is_never_taken(1, tries) or standing.is_its_own(1, tries) for tries in range(1, 9))


def test_a_few_that_pass_tell_nothing() -> None:
    """Nor do calls of no item, which cannot be told from others."""
    standing = Standing()
    passing(standing, 9)
    assert not standing.is_never_taken(1, 30)
    passing(standing, 100)
    assert not standing.is_never_taken(None, 30)


def throttled(standing: Standing, *items: int) -> None:
    for item in items:
        standing.end(standing.begin(), kind="throttled", item=item)


def test_the_first_item_that_is_throttled_without_a_word_slows_nobody_down() -> None:
    """Until another item is throttled, which is no such item's fault."""
    standing = Standing()
    throttled(standing, 1, 1)
    assert standing.is_its_own(1, 1, names_wait=False)
    assert not standing.is_its_own(1, 1, names_wait=True)
    passing(standing, 5)
    assert standing.is_its_own(1, 1, names_wait=False)
    throttled(standing, 3)
    assert not standing.is_its_own(1, 1, names_wait=False)
    assert not standing.is_its_own(3, 1, names_wait=False)
    standing.never_taken.add(1)
    assert standing.is_its_own(3, 1, names_wait=False), "the other one is known to be too large"


def test_an_item_that_asks_alone_slows_down_where_some_of_its_calls_pass_or_many_do_not() -> None:
    """As the last item of a run does under a rate."""
    standing = Standing()
    passing(standing, 3, item=1)
    throttled(standing, 1)
    assert not standing.is_its_own(1, 1, names_wait=False)
    standing = Standing()
    throttled(standing, *[1] * 30)
    assert not standing.is_its_own(1, 1, names_wait=False)

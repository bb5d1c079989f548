"""Webhooks and their messages, on SQLite and on PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from sqlalchemy import func, select

from jobs import outbox, repository, webhooks
from jobs.database import make_engine, make_sessions
from jobs.lifecycle import Status
from jobs.outbox import BACKOFF, LEASE, EventType
from jobs.quotas import QuotaExceeded
from jobs.repository import utcnow
from jobs.tables import Webhook, WebhookDelivery
from tests.jobs.test_repository import call, claim, submit

URL = "https://hooks.example.org/dream"
SECOND = timedelta(seconds=1)


def listening(sessions, owner="local", events=(), url=URL) -> Webhook:
    return call(sessions, webhooks.create_webhook, owner, url, events)


def tell(sessions, owner="local", event=EventType.JOB_FAILED, subject="job_1", now=None) -> None:
    call(sessions, outbox.enqueue, owner, event, subject, now or utcnow())


def claim_one(sessions, now) -> WebhookDelivery:
    [(delivery, _)] = call(sessions, outbox.claim_due, 10, now)
    return delivery


def deliveries(sessions, webhook: Webhook) -> list[WebhookDelivery]:
    return call(sessions, outbox.list_deliveries, webhook.id, 1000)[0]


def reload(sessions, row):
    with sessions() as session:
        return session.get(type(row), row.id)


def test_an_owner_sees_the_own_webhooks_newest_first_page_by_page(sessions):
    mine = [listening(sessions) for _ in range(3)]
    theirs = listening(sessions, "someone")
    assert call(sessions, webhooks.get_webhook, mine[0].id, "local").url == URL
    assert call(sessions, webhooks.get_webhook, mine[0].id, "someone") is None
    assert call(sessions, webhooks.get_webhook, mine[0].id).owner == "local"
    first, more = call(sessions, webhooks.list_webhooks, 2, "local")
    assert ([one.id for one in first], more) == ([mine[2].id, mine[1].id], True)
    rest, more = call(sessions, webhooks.list_webhooks, 2, "local", (first[-1].created_at, first[-1].id))
    assert ([one.id for one in rest], more) == ([mine[0].id], False)
    assert theirs.id in [one.id for one in call(sessions, webhooks.list_webhooks, 10)[0]]


def test_an_owner_may_have_twenty(sessions):
    for _ in range(webhooks.MAX_PER_OWNER):
        listening(sessions)
    with pytest.raises(QuotaExceeded, match="20"):
        listening(sessions)
    listening(sessions, "someone")


def test_a_deleted_webhook_takes_its_messages_along(sessions):
    webhook = listening(sessions)
    tell(sessions)
    assert not call(sessions, webhooks.delete_webhook, webhook.id, "someone")
    assert call(sessions, webhooks.delete_webhook, webhook.id, "local")
    assert not call(sessions, webhooks.delete_webhook, webhook.id, "local")
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 0


def test_secrets_are_derived_and_the_one_before_signs_for_a_day(sessions):
    webhook, now = listening(sessions), utcnow()
    [first] = webhooks.signing_secrets(webhook, b"server", now)
    assert first.startswith("whsec_")
    assert webhooks.signing_secrets(webhook, b"another", now) != [first]
    assert webhooks.signing_secrets(listening(sessions), b"server", now) != [first]
    assert call(sessions, webhooks.rotate_secret, webhook.id, "someone") is None
    rotated = call(sessions, webhooks.rotate_secret, webhook.id, "local")
    second, still = webhooks.signing_secrets(rotated, b"server", now)
    assert still == first != second
    assert webhooks.signing_secrets(rotated, b"server", now + timedelta(hours=25)) == [second]
    twice = call(sessions, webhooks.rotate_secret, webhook.id)
    assert first not in webhooks.signing_secrets(twice, b"server", now)


def test_all_who_want_to_know_are_told_the_same(sessions):
    everything, chosen = listening(sessions), listening(sessions, events=["job.failed", "job.succeeded"])
    other, foreign = listening(sessions, events=["job.started"]), listening(sessions, "someone")
    now = utcnow()
    tell(sessions, subject="job_7", now=now)
    [one], [another] = deliveries(sessions, everything), deliveries(sessions, chosen)
    assert (one.message_id, one.payload) == (another.message_id, another.payload)
    assert one.payload == {
        "id": one.message_id,
        "type": "job.failed",
        "created_at": now.isoformat().replace("+00:00", "Z"),
        "data": {"id": "job_7"},
    }
    assert (one.status, one.attempts, one.type) == ("pending", 0, "job.failed")
    assert deliveries(sessions, other) == deliveries(sessions, foreign) == []


def test_the_states_of_jobs_that_are_told_of(sessions):
    webhook, job = listening(sessions), claim(sessions, submit(sessions))
    for status in Status:
        job.status = status
        call(sessions, outbox.enqueue_state, job, utcnow())
    told = {delivery.type for delivery in deliveries(sessions, webhook) if delivery.payload["data"] == {"id": job.id}}
    assert told == {"job.started", "job.paused", "job.succeeded", "job.failed", "job.cancelled"}


def test_a_message_is_told_only_if_what_it_tells_of_is_committed(sessions):
    webhook = listening(sessions)
    with sessions() as session:
        outbox.enqueue(session, "local", EventType.JOB_FAILED, "job_1", utcnow())
        session.flush()
        session.rollback()
    assert deliveries(sessions, webhook) == []


def test_a_message_is_tried_eight_times_over_a_day_and_has_failed_then(sessions):
    webhook, now = listening(sessions), utcnow()
    tell(sessions, now=now)
    for attempt, pause in enumerate([*BACKOFF, None], start=1):
        taken = claim_one(sessions, now)
        assert taken.attempts == attempt
        outcome = call(sessions, outbox.record, taken, 500, "the answer was 500", now)
        [delivery] = deliveries(sessions, webhook)
        assert (delivery.response_status, delivery.error) == (500, "the answer was 500")
        assert outcome == delivery.status == ("pending" if pause else "failed")
        if pause:
            assert delivery.due_at == now + pause
            assert call(sessions, outbox.claim_due, 10, now + pause - SECOND) == []
            now += pause
    assert delivery.finished_at == now
    assert call(sessions, outbox.claim_due, 10, now + timedelta(days=9)) == []
    assert [pause.total_seconds() for pause in BACKOFF] == [5, 300, 1800, 7200, 18000, 36000, 36000]


def test_a_message_that_has_arrived_is_not_sent_again(sessions):
    webhook, now = listening(sessions), utcnow()
    tell(sessions, now=now)
    assert call(sessions, outbox.record, claim_one(sessions, now), 204, None, now + SECOND) == "delivered"
    [delivery] = deliveries(sessions, webhook)
    assert (delivery.response_status, delivery.error, delivery.finished_at) == (204, None, now + SECOND)
    assert call(sessions, outbox.claim_due, 10, now + timedelta(days=9)) == []


def test_a_sender_that_dies_is_followed_by_another_with_the_same_message(sessions):
    webhook, now = listening(sessions), utcnow()
    tell(sessions, now=now)
    dead = claim_one(sessions, now)
    assert call(sessions, outbox.claim_due, 10, now + LEASE - SECOND) == []
    second = claim_one(sessions, now + LEASE)
    assert (second.message_id, second.attempts) == (dead.message_id, 2)
    assert call(sessions, outbox.record, dead, 500, "late", now) is None  # it was not dead: it has no say any more
    assert call(sessions, outbox.record, second, 200, None, now) == "delivered"
    assert len(deliveries(sessions, webhook)) == 1


def test_a_message_that_every_sender_dies_of_has_failed(sessions):
    webhook, now = listening(sessions), utcnow()
    tell(sessions, now=now)
    for _ in range(len(BACKOFF) + 1):
        claim_one(sessions, now)
        now += LEASE
    assert call(sessions, outbox.claim_due, 10, now) == []
    assert [delivery.status for delivery in deliveries(sessions, webhook)] == ["failed"]


def test_owners_take_turns(sessions):
    busy, quiet = listening(sessions, "busy"), listening(sessions, "quiet")
    now = utcnow()
    for _ in range(5):
        tell(sessions, "busy", now=now - SECOND)
    tell(sessions, "quiet", now=now)
    taken = call(sessions, outbox.claim_due, 3, now)
    assert sorted(delivery.webhook_id for delivery, _ in taken) == sorted([busy.id, busy.id, quiet.id])


def test_an_address_that_is_gone_is_told_nothing_any_more(sessions):
    webhook, other, now = listening(sessions), listening(sessions), utcnow()
    tell(sessions, now=now)
    tell(sessions, now=now)
    first, second = (one for one, whose in call(sessions, outbox.claim_due, 10, now) if whose.id == webhook.id)
    assert call(sessions, outbox.record, first, 410, "the answer was 410", now) == "failed"
    gone = reload(sessions, webhook)
    assert (gone.disabled_at, gone.disabled_reason) == (now, "the address answered 410 Gone")
    assert reload(sessions, second).status == "failed"
    assert call(sessions, outbox.record, second, 410, "the answer was 410", now) is None
    tell(sessions, now=now)
    assert (len(deliveries(sessions, webhook)), len(deliveries(sessions, other))) == (2, 3)
    assert reload(sessions, other).disabled_at is None


def test_a_message_is_sent_again_under_its_own_id(sessions):
    webhook, now = listening(sessions), utcnow()
    tell(sessions, now=now)
    call(sessions, outbox.record, claim_one(sessions, now), 200, None, now)
    [done] = deliveries(sessions, webhook)
    again = call(sessions, outbox.redeliver, webhook.id, done.id, now + SECOND)
    assert (again.message_id, again.payload, again.attempts) == (done.message_id, done.payload, 0)
    assert again.id != done.id
    assert [one.id for one in deliveries(sessions, webhook)] == [again.id, done.id]
    assert call(sessions, outbox.redeliver, webhook.id, done.id, now).id == again.id  # once is enough
    call(sessions, outbox.record, claim_one(sessions, now + SECOND), 500, "the answer was 500", now)
    assert call(sessions, outbox.redeliver, webhook.id, again.id, now).due_at == now  # without waiting 5 s
    assert call(sessions, outbox.redeliver, listening(sessions).id, done.id, now) is None
    assert call(sessions, outbox.redeliver, webhook.id, "dlv_none", now) is None


def test_old_messages_are_forgotten_and_those_that_wait_are_not(sessions):
    webhook, now = listening(sessions), utcnow()
    tell(sessions, now=now)
    call(sessions, outbox.record, claim_one(sessions, now), 200, None, now)
    tell(sessions, now=now)
    call(sessions, outbox.forget_old, now + outbox.KEPT)
    assert len(deliveries(sessions, webhook)) == 2
    call(sessions, outbox.forget_old, now + outbox.KEPT + SECOND)
    assert [one.status for one in deliveries(sessions, webhook)] == ["pending"]


def test_messages_come_page_by_page(sessions):
    webhook, now = listening(sessions), utcnow()
    for _ in range(5):
        tell(sessions, now=now)  # all in the same moment
    seen, after, more = [], None, True
    while more:
        page, more = call(sessions, outbox.list_deliveries, webhook.id, 2, after)
        seen += [one.id for one in page]
        after = (page[-1].created_at, page[-1].id)
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen, reverse=True)


def take_all(url: str) -> list[str]:
    """What one of several processes gets to send."""
    sessions, taken, idle = make_sessions(make_engine(url)), [], 0
    while idle < 3:
        claimed = call(sessions, outbox.claim_due, 2, utcnow())
        taken += [delivery.id for delivery, _ in claimed]
        idle = 0 if claimed else idle + 1
    return taken


def test_several_processes_never_take_the_same_message(sessions, database_url, racers):
    webhook = listening(sessions)
    for _ in range(30):
        tell(sessions)
    taken = [each for process in racers.map(take_all, [database_url] * 3) for each in process]
    assert sorted(taken) == sorted(delivery.id for delivery in deliveries(sessions, webhook))


@pytest.fixture
def postgres(postgres_url):
    engine = make_engine(postgres_url)
    yield make_sessions(engine)
    engine.dispose()


def in_another_thread(pool: ThreadPoolExecutor, sessions, function: Callable, *args):
    """The call in a transaction of its own, which is to wait for something for a while."""
    started = Event()

    def run():
        started.set()
        return call(sessions, function, *args)

    waiting = pool.submit(run)
    started.wait()
    with pytest.raises(TimeoutError):
        waiting.result(0.3)
    return waiting


def test_a_webhook_that_is_being_deleted_does_not_stop_the_job(postgres):
    webhook = listening(postgres)
    with ThreadPoolExecutor(1) as pool:
        with postgres.begin() as deleting:
            webhooks.delete_webhook(deleting, webhook.id)
            telling = in_another_thread(
                pool, postgres, outbox.enqueue, "local", EventType.JOB_FAILED, "job_1", utcnow()
            )
        telling.result(10)
        assert deliveries(postgres, webhook) == []


def test_a_webhook_is_deleted_only_after_the_job_that_tells_it_something(postgres):
    webhook = listening(postgres)
    with ThreadPoolExecutor(1) as pool:
        with postgres.begin() as telling:
            outbox.enqueue(telling, "local", EventType.JOB_FAILED, "job_1", utcnow())
            deleting = in_another_thread(pool, postgres, webhooks.delete_webhook, webhook.id)
        assert deleting.result(10)


def test_many_messages_that_find_their_address_gone_at_the_same_time_do_not_lock_each_other_out(postgres):
    webhook, now = listening(postgres), utcnow()
    for _ in range(16):
        tell(postgres, now=now)
    claimed = [delivery for delivery, _ in call(postgres, outbox.claim_due, 16, now)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = [pool.submit(call, postgres, outbox.record, one, 410, "gone", now) for one in claimed]
        assert {outcome.result(20) for outcome in outcomes} == {"failed", None}
    assert {delivery.status for delivery in deliveries(postgres, webhook)} == {"failed"}


def test_a_job_tells_its_webhooks_how_it_goes(sessions):
    webhook, job = listening(sessions), submit(sessions)
    claim(sessions, job)
    call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED)
    told = [delivery.type for delivery in reversed(deliveries(sessions, webhook))]
    assert told == ["job.started", "job.succeeded"]

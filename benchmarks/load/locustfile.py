"""Users of the service. `benchmarks/load.py` runs them; by hand:

    LOAD_PLAN=plan.json locust -f benchmarks/load/locustfile.py --host http://127.0.0.1:8000 Poller Submitter

The loop is open: every user sends a request a second, by a clock that does not wait for the service. What a request
took is counted from when it was due, not from when a user who was kept waiting by the one before came to send it;
otherwise a service that stands still for a second would have one slow answer, and not two hundred.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any, ClassVar

import gevent
from locust import FastHttpUser, constant, events, task
from locust.env import Environment

from benchmarks.load.plan import Plan, Sample

PLAN = Plan.read(Path(os.environ["LOAD_PLAN"]))
SAMPLES: list[Sample] = []
SPEC = {"dataset": "digits", "method": "dream", "ipc": 1}


class Someone(FastHttpUser):
    """One of the owners, each time drawn anew."""

    abstract = True
    connection_timeout = network_timeout = 30.0

    def on_start(self) -> None:
        self.owner = random.choice(list(PLAN.jobs))
        self.jobs = PLAN.jobs[self.owner]
        self.client.auth_header = f"Bearer {PLAN.keys[self.owner]}"


class Clocked(Someone):
    """Sends a request a second, or (`period_s` 0, a closed loop) the next as soon as there is an answer."""

    abstract = True

    def on_start(self) -> None:
        super().on_start()
        gevent.sleep(random.random() * PLAN.period_s)  # not all at the same moment
        self.prepare()
        self.due = time.time()

    def prepare(self) -> None:
        """What a user does once, before the clock starts."""

    def wait_time(self) -> float:
        """Seconds until the next request is due; none if it is late already."""
        self.due = self.due + PLAN.period_s if PLAN.period_s else time.time()
        return max(0.0, self.due - time.time())

    def send(self, name: str, method: str, path: str, **options: Any) -> Any:
        return self.client.request(method, path, name=name, context={"due": self.due}, **options)


class Poller(Clocked):
    """Follows a job of theirs as the SDK does: the answer is a 304 until something has happened."""

    def prepare(self) -> None:
        self.path = f"/v1/jobs/{random.choice(self.jobs)}"
        self.etag = (self.client.get(self.path, name="prepare").headers or {})["ETag"]

    @task
    def poll(self) -> None:
        self.send("poll", "GET", self.path, headers={"If-None-Match": self.etag})


class FullPoller(Clocked):
    """Looks at any job of theirs, and remembers none."""

    @task
    def poll(self) -> None:
        self.send("poll in full", "GET", f"/v1/jobs/{random.choice(self.jobs)}")


class Submitter(Clocked):
    """Submits a job."""

    @task
    def submit(self) -> None:
        body = {"spec": SPEC | {"seed": random.randrange(1 << 31)}, "name": "load", "metadata": {"team": "load"}}
        self.send("submit", "POST", "/v1/jobs", json=body)


class Lister(Clocked):
    """Looks at the first page, at one far behind it, and at those with a filter."""

    @task
    def first_page(self) -> None:
        self.send("list", "GET", "/v1/jobs")


class DeepLister(Clocked):
    def prepare(self) -> None:
        query = "created_before=" + PLAN.deep
        self.cursor = self.client.get(f"/v1/jobs?{query}", name="prepare").json()["next_cursor"]

    @task
    def deep_page(self) -> None:
        self.send("list deep", "GET", f"/v1/jobs?cursor={self.cursor}")


class FilteringLister(Clocked):
    queries: ClassVar = ("status=failed", "method=dream&dataset=cifar10", "metadata[team]=vision&status=succeeded")

    @task
    def filtered(self) -> None:
        self.send("list filtered", "GET", f"/v1/jobs?{random.choice(self.queries)}")


class Watcher(Someone):
    """Holds a stream of events open. A sample is an event that arrived, and what it took the time since it happened."""

    wait_time = constant(1)  # until it connects again

    @task
    def watch(self) -> None:
        path = f"/v1/jobs/{random.choice(PLAN.running[self.owner])}/events"
        headers = {"Accept": "text/event-stream"}
        with self.client.get(path, name="stream", headers=headers, stream=True, catch_response=True) as response:
            if response.status_code != 200:
                return
            response.success()
            opened = time.time()
            while block := response.stream.readline(b"\n\n"):
                data = b"".join(line[5:] for line in block.splitlines() if line.startswith(b"data:"))
                sent = json.loads(data).get("data", {}).get("sent_at", 0.0) if data else 0.0
                if sent > opened:  # what had happened before is history
                    SAMPLES.append(Sample("event", sent, (time.time() - sent) * 1000, True))


@events.request.add_listener
def remember(
    name: str, start_time: float, response_time: float, context: dict, exception: Exception | None, **_: Any
) -> None:
    late = max(0.0, start_time - context["due"]) * 1000 if "due" in context else 0.0
    SAMPLES.append(Sample(name, start_time, response_time + late, exception is None))


@events.quit.add_listener
def keep(**_: Any) -> None:
    PLAN.write_samples(SAMPLES)


@events.init.add_listener
def choose(environment: Environment, **_: Any) -> None:
    """So many of each."""
    for user in environment.user_classes:
        user.fixed_count = PLAN.users.get(user.__name__, 0)

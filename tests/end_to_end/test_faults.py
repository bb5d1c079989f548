"""The fault matrix: whatever is killed, frozen, emptied or filled, no job is lost, none is done twice, and every result
has the bytes of an undisturbed run.

Most of a row's time goes to leases that run out and processes that start. So the rows run beside one another, from the
first test on, each lane on a cluster of its own; a test then tells what came of its row.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.end_to_end import faults_of_disks, faults_of_jobs, faults_of_servers
from tests.end_to_end.faults import Check, undisturbed
from tests.fixtures.cluster import Cluster, deployed

LANES = {
    lane.name: lane
    for lane in (
        faults_of_jobs.LANE,
        faults_of_servers.LANE,
        faults_of_disks.LANE,
        faults_of_jobs.UNDER_SQLITE,
    )
}
ROWS = [
    *[pytest.param(lane.name, row) for lane in LANES.values() for row in lane.rows],
    *[pytest.param(lane.name, row, marks=pytest.mark.nightly) for lane in LANES.values() for row in lane.nightly_rows],
]
Outcomes = dict[tuple[str, str], Future[None]]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """What comes of each row that was asked for."""
    asked = [item.callspec.params for item in request.session.items if item.path == request.path]
    started: Outcomes = {}
    with ThreadPoolExecutor(len(LANES)) as starting, ExitStack() as stack:
        for name in {about["lane"]: None for about in asked}:
            lane = LANES[name]
            pool = stack.enter_context(ThreadPoolExecutor(lane.at_a_time))
            deployment = deployed(tmp_path_factory.mktemp(name), lane.workers, lane.database, lane.changes)
            cluster = starting.submit(stack.enter_context, deployment)
            for row in [about["row"] for about in asked if about["lane"] == name]:
                started[name, row] = pool.submit(_check, lane.check(row), cluster)
        undisturbed()
        yield started


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("lane", "row"), ROWS)
def test_fault(lane: str, row: str, outcomes: Outcomes):
    outcomes[lane, row].result()


def _check(check: Check, cluster: Future[Cluster]) -> None:
    check(cluster.result())

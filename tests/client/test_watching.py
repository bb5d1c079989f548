from io import StringIO

from rich.console import Console

from client.resources import Event
from client.watching import View, screen


def test_a_partial_result_is_offered_when_its_job_was_cancelled(dream, client, service, job):
    attempt = service.claim(job.id)
    client.jobs.cancel(job.id)
    service.stop_with_a_partial_result(job.id, attempt, step=40, steps=200)

    watched = dream("watch", job.id)

    assert watched.code == 2
    assert watched.out.splitlines()[-1] == f"Fetch what it had made with: dream download {job.id}"


def test_the_screen_of_a_paused_job_says_how_it_goes_on(job):
    console = Console(width=80, file=StringIO())
    view = View("running").after(Event(3, "state", "", {"to": "paused"}, {}))

    console.print(screen(job, view, "·"))

    assert f"dream resume {job.id}" in console.file.getvalue()

"""Figures for Prometheus."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.security import IsAdmin
from jobs.metrics import REGISTRY

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "In Prometheus' text format", "content": {"text/plain": {}}}},
)
def get_metrics(_: IsAdmin, request: Request) -> Response:
    """Requests, jobs by status, how long the oldest of them has waited, workers, storage."""
    return Response(
        generate_latest(REGISTRY) + generate_latest(request.app.state.figures), media_type=CONTENT_TYPE_LATEST
    )

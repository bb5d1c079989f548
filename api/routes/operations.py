"""For operators: workers, queues, the audit log."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1", tags=["operations"])

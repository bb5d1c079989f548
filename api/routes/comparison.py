"""Jobs side by side, and the best of each kind."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1", tags=["comparison"])

"""Datasets as they go out."""

from api.schemas.base import Output


class Dataset(Output):
    """What is known of a dataset, and whether its files are here."""

    name: str
    title: str
    classes: int
    channels: int
    size: int
    train: int
    test: int
    smallest_class: int
    licence: str
    available: bool
    path: str | None
    missing: list[str]
    advice: str
    """What to do to make it available; empty when it is."""


class DatasetList(Output):
    """The built-in datasets."""

    data: list[Dataset]

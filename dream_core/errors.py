"""What a user can get wrong, as exceptions whose message says what to do about it."""


class DreamError(Exception):
    """Base of every error that the user can mend. `code` is stable; the message is for people."""

    code = "USER_ERROR"


class InvalidRecipe(DreamError):
    """A recipe that cannot be run. `problems` holds (field, message), the field dotted as in `evaluation.epochs`."""

    code = "INVALID_RECIPE"

    def __init__(self, problems: list[tuple[str, str]]):
        self.problems = problems
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))


class DatasetMissing(DreamError):
    """The files of a dataset are not where they were looked for. The message names them and where to put them."""

    code = "DATASET_MISSING"


class DatasetInvalid(DreamError):
    """The files of a dataset are there, but are not what the dataset should be."""

    code = "DATASET_INVALID"


class DevicesMissing(DreamError):
    """A run wants more devices than are here."""

    code = "DEVICES_MISSING"


class Diverged(DreamError):
    """A loss or a pixel is no longer finite."""

    code = "NUMERICAL_DIVERGENCE"

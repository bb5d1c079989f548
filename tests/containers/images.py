"""The images that ours are made from: pulled where a registry answers, else stand-ins made of Debian's packages."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.containers.engine import Engine, Failed, Unavailable, run

HERE = Path(__file__).parent
PUBLISHED = {
    "PYTHON_IMAGE": "python:3.11-slim-bookworm",
    "POSTGRES_IMAGE": "postgres:17-bookworm",
    "REDIS_IMAGE": "redis:8-bookworm",
    "PROMETHEUS_IMAGE": "prom/prometheus:v3.14.0",
    "GRAFANA_IMAGE": "grafana/grafana:13.2.3",
    "CADDY_IMAGE": "caddy:2.11.7",
    "S3_IMAGE": "chrislusf/seaweedfs:4.48",
}
MADE = ("PYTHON", "BUILD", "POSTGRES", "REDIS", "PROMETHEUS", "CADDY", "S3")  # Grafana is in no registry of packages
STANDINS = {f"{name}_IMAGE": f"dream-standin-{name.lower()}" for name in MADE}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
DEBIAN = "bookworm"  # has Python 3.11


def base_images(engine: Engine) -> dict[str, str]:
    """Their names, for the variables of the compose file and the arguments of the builds. Raises Unavailable."""
    if not _exist(engine, [STANDINS["PYTHON_IMAGE"]]):
        if _exist(engine, PUBLISHED.values()) or _pulled(engine):
            return PUBLISHED | {"BUILD_IMAGE": PUBLISHED["PYTHON_IMAGE"]}
        if not engine.own:
            raise Unavailable("the images that ours are made from cannot be pulled")
        _bootstrap(engine, STANDINS["PYTHON_IMAGE"])
    for name in list(STANDINS)[1:]:
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(HERE / "standins", place, dirs_exist_ok=True)
            if name == "BUILD_IMAGE":
                _collect_pip_settings(Path(place) / "pip")
            file = f"{place}/{name.partition('_')[0].lower()}.Dockerfile"
            base = f"BASE={STANDINS['PYTHON_IMAGE']}"
            engine.run(
                "build", "--network", "host", "--build-arg", base, "--tag", STANDINS[name], "--file", file, place
            )
    return dict(STANDINS)


def torch_arguments() -> dict[str, str]:
    """Where a CPU build of torch lies on this machine, that one: the index of PyTorch may be out of reach."""
    wheels = [wheel for folder in _local_wheels() for wheel in folder.glob("torch-*+cpu-*.whl")]
    if not wheels:
        return {}
    version = wheels[0].name.split("-")[1].partition("+")[0]
    major, minor, _ = version.split(".")
    vision = f"0.{int(minor) + 15}.0"  # torch 2.13 and torchvision 0.28 go together, and so on
    assert major == "2"
    return {"TORCH_INDEX_URL": "", "TORCH_PINS": f"torch=={version} torchvision=={vision}"}


def _exist(engine: Engine, names: Iterable[str]) -> bool:
    try:
        engine.run("image", "inspect", *names)
    except Failed:
        return False
    return True


def _pulled(engine: Engine) -> bool:
    try:
        for name in PUBLISHED.values():
            engine.run("pull", "--quiet", name, seconds=300)
    except (Failed, subprocess.TimeoutExpired):
        return False
    return True


def _bootstrap(engine: Engine, name: str) -> None:
    """Debian with Python and this machine's certificates, as an image."""
    mirror = next(
        line.split()[1]
        for line in Path("/etc/apt/sources.list.d/debian.sources").read_text().splitlines()
        if line.startswith("URIs:")
    )
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "root"
        environment = dict(os.environ)
        run(
            ["debootstrap", "--variant=minbase", "--include=ca-certificates,python3", DEBIAN, str(root), mirror],
            environment,
        )
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        (root / "usr/bin/python").symlink_to("python3")
        for litter in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / litter, ignore_errors=True)
            (root / litter).mkdir(parents=True)
        tar = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            [engine.docker, "import", "--change", 'CMD ["python3"]', "-", name],
            env=engine.environment,
            stdin=tar.stdout,
            check=True,
            capture_output=True,
        )
        tar.wait()


def _pip_config() -> dict[str, str]:
    """What pip has been told on this machine, by its files and by the environment."""
    listed = run(["python3", "-m", "pip", "config", "list"], dict(os.environ))
    pairs = (line.partition("=") for line in listed.splitlines())
    return {name.rpartition(".")[2]: value.strip("'") for name, _, value in pairs}


def _local_wheels() -> list[Path]:
    return [Path(word) for word in _pip_config().get("find-links", "").split() if Path(word).is_dir()]


def _collect_pip_settings(folder: Path) -> None:
    """The same for builds, which see no file of this machine: its certificates, index and CPU build of torch."""
    (folder / "wheels").mkdir(parents=True)
    for place in _local_wheels():
        for wheel in place.glob("torch-*+cpu-*.whl"):
            shutil.copy(wheel, folder / "wheels")
    kept = {name: value for name, value in _pip_config().items() if name in ("index-url", "default-timeout")}
    kept |= {"cert": str(CERTIFICATES), "find-links": "/opt/wheels"}
    lines = ["[global]", *(f"{name} = {value}" for name, value in kept.items())]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")

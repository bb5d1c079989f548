#!/bin/sh
# The bill of materials of an image, CycloneDX JSON: `sh docker/sbom.sh dream-api:latest > dream-api.cdx.json`.
# With syft (https://github.com/anchore/syft) everything in it, Debian's packages included; without, what is Python, by
# cyclonedx-bom (`pip install cyclonedx-bom`).
set -eu
image=$1
if command -v syft >/dev/null 2>&1; then
  exec syft "$image" --quiet --output cyclonedx-json
fi
docker run --rm --network none "$image" python -c '
from importlib.metadata import distributions
print(*sorted({f"{each.name}=={each.version}" for each in distributions()}), sep="\n")
' | cyclonedx-py requirements --output-format JSON -

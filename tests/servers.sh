#!/bin/sh
# Install the servers that the tests run against, where they are missing and apt may be asked for them.
missing=
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
  echo "not here:$missing; the tests that need them will be skipped" >&2
  exit 0
fi
root=
[ "$(id -u)" = 0 ] || root="sudo -n"
# shellcheck disable=SC2086  # a list of names
if $root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
  echo "installed:$missing"
else
  echo "could not install:$missing; the tests that need them will be skipped" >&2
fi

#!/bin/sh
# rclone has no address that is open for health checks: an answer of any kind is one.
code=0
/usr/bin/wget "$@" || code=$?
[ "$code" = 8 ] || exit "$code"

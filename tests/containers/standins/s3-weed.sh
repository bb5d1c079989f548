#!/bin/sh
# `weed mini`: one bucket, and a server that lets in whoever has the keys.
set -eu
mkdir -p "/data/$S3_BUCKET"
export RCLONE_AUTH_KEY="\"$AWS_ACCESS_KEY_ID,$AWS_SECRET_ACCESS_KEY\"" HOME=/tmp # a list of one
exec rclone serve s3 --addr :8333 --vfs-cache-mode off --config "" /data

#!/bin/sh
# Streams, uploads and downloads by curl.
set -eu

call() {
  curl --silent --show-error --fail "--http$VERSION" "$@"
}

events=$(
  call --no-buffer "$API/v1/stream/$NAME" | while read -r line; do
    case $line in
      "data: "*)
        printf '"%s",' "${line#data: }"
        call --request POST --output /dev/null "$API/v1/seen/$NAME"
        ;;
    esac
  done
)
up=$(call --upload-file "$BODY" "$API/v1/digest")
down=$(call "$API/v1/bytes/$NAME" | sha256sum)
version=$(call --output /dev/null --write-out '%{http_version}' "$API/v1/models")
printf '{"events": [%s], "up": %s, "down": "%s", "version": "%s"}\n' \
  "${events%,}" "$(printf %s "$up" | sed 's/.*: //; s/}//')" "${down%% *}" "$version"

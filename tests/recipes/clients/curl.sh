#!/bin/sh
# Everything that a client does, by curl. VERSION is the option that chooses the version of HTTP; the proxy is the environment's.
set -eu

call() { curl --silent --show-error --max-time 60 "$VERSION" --header "Authorization: Bearer $TOKEN" "$@"; }
status() { call --output /dev/null --write-out '%{http_code}' "$@"; }

denied=$(curl --silent --max-time 60 "$VERSION" --output /dev/null --write-out '%{http_code}' "$BASE/echo")
kept=$(call --output /dev/null --output /dev/null --output /dev/null --write-out '%{http_code},' "$BASE/echo" "$BASE/echo" "$BASE/echo" | sed "s/000/0/g" || true)
events=$(
  call --no-buffer "$BASE/events/$NAME" | while read -r line; do
    case $line in
      "data: "*)
        printf '"%s",' "${line#data: }"
        call --request POST --output /dev/null "$BASE/seen/$NAME"
        ;;
    esac
  done
)
cat <<END
{
  "version": "$(curl --version | sed -n '1s/^curl \([0-9.]*\).*/\1/p')",
  "denied": $denied,
  "kept": [${kept%,}],
  "head": $(status --head "$BASE/echo"),
  "options": $(status --request OPTIONS "$BASE/echo"),
  "underscore": $(status --header "client_id: x" "$BASE/underscore"),
  "upload": "$(call --data-binary "@$BODY" "$BASE/digest")",
  "chunked": "$(call --upload-file - --header "Expect:" "$BASE/digest" <"$BODY")",
  "events": [${events%,}],
  "gzip": "$(call --compressed "$BASE/gzip" | head -c 8)"
}
END

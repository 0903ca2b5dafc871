#!/bin/sh
# From nothing to an agent that answers, on this machine: a kind cluster, the emulator as its Entra, an API, and the
# demo's agent in the product's own overlay. Run again, it changes what has changed.
set -eu

usage() {
  cat <<'USAGE'
usage: up.sh [workload-identity|client-secret-file]
       up.sh --delete

Without an overlay: workload-identity. Needs docker, kind, kubectl, openssl, curl, and the ports 8080, 8443 and 8444 of
127.0.0.1. For development only: whoever reaches the emulator gets tokens for anybody.

  --delete   delete the cluster
USAGE
}

fail() {
  printf 'up.sh: %s\n' "$1" >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
overlay=workload-identity
delete=no
[ $# -le 1 ] || { usage >&2 && fail "one argument at most"; }
for argument; do
  case $argument in
    workload-identity | client-secret-file) overlay=$argument ;;
    --delete) delete=yes ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && fail "unknown argument: $argument" ;;
  esac
done

# ---- Tools. All that is missing is named, before anything happens. ----

missing=
for tool in docker kind kubectl openssl curl; do
  command -v "$tool" >/dev/null || missing="$missing $tool"
done
[ -z "$missing" ] || fail "not installed:$missing"
docker info >/dev/null 2>&1 || fail "docker does not answer"

cluster=authz
if [ "$delete" = yes ]; then
  kind delete cluster --name "$cluster"
  rm -rf "$here/.up"
  exit 0
fi

say() {
  printf '==> %s\n' "$1"
}

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# shellcheck source=development.sh
. "$here/development.sh"

# ---- Cluster and images. ----

if kind get clusters 2>/dev/null | grep -qx "$cluster"; then
  say "the cluster $cluster is there"
else
  say "making the cluster $cluster"
  kind create cluster --name "$cluster" --config "$here/cluster.yaml" --wait 180s
fi
build entra-authz
build entra-authz-development development

# ---- What no file of the checkout holds: the cluster's own documents, certificates, a secret. ----

apply "$here/emulator/namespace.yaml"
apply "$here/namespaces.yaml"
publish_issuer
if ! certified emulator-tls entra-emulator || ! certified orders-tls apis; then
  make_authority
  certificate orders-tls apis orders nightly desk
fi
trust agent
mkdir -p "$here/.up"
cp "$work/trusted.crt" "$here/.up/ca.crt"

# ---- Manifests. ----

made=$(made_of "entra-authz:$version" "entra-authz-development:$version")
deploy emulator entra-emulator emulator "$made"
deploy orders apis orders "$made"
if [ "$overlay" = client-secret-file ]; then
  emulator_value client_secret |
    k create secret generic agent-credential --namespace agent --from-file=client-secret=/dev/stdin \
      --dry-run=client --output yaml | apply -
fi
deploy "$overlay" agent agent "$made"

say "asking the agent as alice; ask.sh does so again"
"$here/ask.sh" alice /my-orders

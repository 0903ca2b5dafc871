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

name=authz
if [ "$delete" = yes ]; then
  kind delete cluster --name "$name"
  rm -rf "$here/.up"
  exit 0
fi

say() {
  printf '==> %s\n' "$1"
}

# Never the current context: that may be anybody's cluster.
k() {
  kubectl --context "kind-$name" "$@"
}

# Server-side apply keeps no copy of what was applied, which would be a secret's.
apply() {
  k apply --server-side --field-manager=authz-kind --filename "$1"
}

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# ---- Cluster and images. ----

if kind get clusters 2>/dev/null | grep -qx "$name"; then
  say "the cluster $name is there"
else
  say "making the cluster $name"
  kind create cluster --name "$name" --config "$here/cluster.yaml" --wait 180s
fi

version=$(sed -n 's/.*image: entra-authz:\(.*\)/\1/p' "$root/kubernetes/base/deployment.yaml" | head -n 1)
say "building entra-authz:$version and entra-authz-development:$version"
docker build --quiet --tag "entra-authz:$version" "$root"
docker build --quiet --tag "entra-authz-development:$version" --build-arg REQUIREMENTS=development "$root"
kind load docker-image --name "$name" "entra-authz:$version" "entra-authz-development:$version"

# ---- What no file of the checkout holds: the cluster's own documents, certificates, a secret. ----

apply "$here/namespaces.yaml"

say "telling the emulator which tokens the cluster signs"
CONTEXT=kind-$name "$here/issuer.sh" documents "$work/issuer"
k create configmap issuer --namespace entra-emulator --dry-run=client --output yaml \
  --from-file=openid-configuration="$work/issuer/.well-known/openid-configuration" \
  --from-file=jwks="$work/issuer/openid/v1/jwks" >"$work/issuer.yaml"
apply "$work/issuer.yaml"

# certified: whether every certificate is there, of one authority, and good for another week.
certified() {
  k get secret orders-tls --namespace apis >/dev/null 2>&1 &&
    k get configmap development-ca --namespace agent >/dev/null 2>&1 &&
    k get secret emulator-tls --namespace entra-emulator --output 'jsonpath={.data.tls\.crt}' 2>/dev/null |
    openssl base64 -d -A | openssl x509 -noout -checkend 604800 >/dev/null 2>&1
}

# certificate SECRET NAMESPACE NAME...: a certificate for these names of the namespace, in a Secret of it.
certificate() {
  secret=$1 namespace=$2
  shift 2
  names=
  for host; do
    names="$names${names:+,}DNS:$host.$namespace.svc.cluster.local"
  done
  openssl req -new -newkey rsa:2048 -nodes -config "$work/openssl.cnf" -subj "/CN=$secret" \
    -keyout "$work/$secret.key" -out "$work/$secret.csr" 2>/dev/null
  cat >"$work/$secret.ext" <<EXTENSIONS
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
subjectAltName = $names
EXTENSIONS
  openssl x509 -req -in "$work/$secret.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial \
    -days 90 -sha256 -extfile "$work/$secret.ext" -out "$work/$secret.crt" 2>/dev/null
  k create secret generic "$secret" --namespace "$namespace" --type kubernetes.io/tls --dry-run=client --output yaml \
    --from-file=tls.crt="$work/$secret.crt" --from-file=tls.key="$work/$secret.key" \
    --from-file=ca.crt="$work/ca.crt" >"$work/$secret.yaml"
  apply "$work/$secret.yaml"
}

if ! certified; then
  say "making certificates of an authority whose key is thrown away"
  cat >"$work/openssl.cnf" <<'OPENSSL'
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
OPENSSL
  openssl req -x509 -newkey rsa:2048 -nodes -config "$work/openssl.cnf" -extensions authority -days 90 -sha256 \
    -subj "/CN=authz on kind, for development only" -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
  certificate emulator-tls entra-emulator login graph directory
  certificate orders-tls apis orders nightly desk
  k create configmap development-ca --namespace agent --from-file=ca.crt="$work/ca.crt" \
    --dry-run=client --output yaml >"$work/development-ca.yaml"
  apply "$work/development-ca.yaml"
fi
mkdir -p "$here/.up"
k get configmap development-ca --namespace agent --output 'jsonpath={.data.ca\.crt}' >"$here/.up/ca.crt"

# ---- Manifests. Pods are replaced when their image or the authority has changed, though the names are the same. ----

made=$({
  docker image inspect --format '{{.Id}}' "entra-authz:$version" "entra-authz-development:$version"
  cat "$here/.up/ca.crt"
} | openssl dgst -sha256 -r | cut -c1-16)
ln -s "$root/kubernetes" "$work/kubernetes"
# deploy FOLDER NAMESPACE NAME: apply a folder of this one, and wait until its Deployment runs.
deploy() {
  say "deploying $1"
  mkdir -p "$work/$1"
  ln -s "$root/kubernetes" "$work/$1/kubernetes"
  cat >"$work/$1/kustomization.yaml" <<KUSTOMIZATION
resources:
  - kubernetes/kind/$1
patches:
  - target:
      kind: Deployment
    patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: any
      spec:
        template:
          metadata:
            annotations:
              authz/made-of: "$made"
KUSTOMIZATION
  kubectl kustomize "$work/$1" >"$work/$1.yaml"
  apply "$work/$1.yaml"
  k rollout status "deployment/$3" --namespace "$2" --timeout=180s || {
    printf 'up.sh: %s does not run; what it says:\n' "$1" >&2
    printf '  kubectl --context kind-%s logs --namespace %s deployment/%s --all-containers\n' "$name" "$2" "$3" >&2
    exit 1
  }
}

deploy emulator entra-emulator emulator
deploy orders apis orders
if [ "$overlay" = client-secret-file ]; then
  k exec --namespace entra-emulator deployment/emulator -- cat /tmp/entra/emulator.json |
    sed -n 's/.*"client_secret": "\(.*\)".*/\1/p' | head -n 1 | tr -d '\n' |
    k create secret generic agent-credential --namespace agent --from-file=client-secret=/dev/stdin \
      --dry-run=client --output yaml | apply -
fi
deploy "$overlay" agent agent

say "asking the agent as alice; ask.sh does so again"
"$here/ask.sh" alice /my-orders

#!/bin/sh
# What a cluster publishes about its service accounts' tokens, for an Entra to read.
set -eu

usage() {
  cat <<'USAGE'
usage: issuer.sh config URL         print the configuration of a kind cluster whose issuer is URL
       issuer.sh documents FOLDER   write the two documents of the running cluster to FOLDER, which is to be
                                    served under URL, and print the federated credential

Inputs are environment variables.
  CONTEXT     context of kubectl [default: the current one]
  NAMESPACE   namespace of the agent [default: agent]
USAGE
}

fail() {
  printf 'issuer.sh: %s\n' "$1" >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd -P)

config() {
  case $1 in
    https://*[!A-Za-z0-9._~/:-]* | https://) fail "URL holds a character that an issuer does not need" ;;
    https://*/) fail "URL ends in a slash: Entra compares issuers to the letter" ;;
    https://?*) ;;
    *) fail "URL does not begin with https://" ;;
  esac
  cat "$here/cluster.yaml"
  # kubeadm has had two forms; kind takes the one that its version knows.
  cat <<PATCH
kubeadmConfigPatches:
  - |
    apiVersion: kubeadm.k8s.io/v1beta3
    kind: ClusterConfiguration
    apiServer:
      extraArgs:
        service-account-issuer: $1
        service-account-jwks-uri: $1/openid/v1/jwks
  - |
    apiVersion: kubeadm.k8s.io/v1beta4
    kind: ClusterConfiguration
    apiServer:
      extraArgs:
        - name: service-account-issuer
          value: $1
        - name: service-account-jwks-uri
          value: $1/openid/v1/jwks
PATCH
}

# member FILE NAME: the text that a member of a flat JSON document has.
member() {
  sed -n "s/.*\"$2\" *: *\"\([^\"]*\)\".*/\1/p" "$1"
}

get() {
  if [ -n "${CONTEXT:-}" ]; then
    kubectl --context "$CONTEXT" get --raw "$1"
  else
    kubectl get --raw "$1"
  fi
}

documents() {
  command -v kubectl >/dev/null || fail "kubectl is not installed"
  metadata=$1/.well-known/openid-configuration
  keys=$1/openid/v1/jwks
  mkdir -p "$1/.well-known" "$1/openid/v1"
  trap 'rm -f "$metadata.new" "$keys.new"' EXIT
  get /.well-known/openid-configuration >"$metadata.new" || fail "the cluster does not give its metadata"
  get /openid/v1/jwks >"$keys.new" || fail "the cluster does not give its keys"
  issuer=$(member "$metadata.new" issuer)
  [ -n "$issuer" ] || fail "the cluster's metadata names no issuer"
  grep -q '"kty" *: *"RSA"' "$keys.new" || fail "the cluster has no RSA key: Entra takes RS256 alone"
  mv "$metadata.new" "$metadata"
  mv "$keys.new" "$keys"
  cat <<CREDENTIAL
The federated credential of the blueprint:
  issuer    $issuer
  subject   system:serviceaccount:${NAMESPACE:-agent}:agent
  audience  api://AzureADTokenExchange
CREDENTIAL
  case $issuer in
    https://kubernetes.default.svc*)
      printf 'issuer.sh: only the emulator can read that issuer; for a tenant make the cluster with: issuer.sh config URL\n' >&2
      return
      ;;
  esac
  [ "$(member "$metadata" jwks_uri)" = "$issuer/openid/v1/jwks" ] ||
    printf 'issuer.sh: jwks_uri of the metadata is not %s/openid/v1/jwks, so Entra will look for keys elsewhere\n' "$issuer" >&2
}

case $#:${1:-} in
  *:-h | *:--help) usage ;;
  2:config) config "$2" ;;
  2:documents) documents "$2" ;;
  *) usage >&2 && fail "say what to do" ;;
esac

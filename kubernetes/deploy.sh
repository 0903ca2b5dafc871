#!/bin/sh
# Deploys an overlay of this folder and waits until it runs. Run again, it changes what has changed.
# It stands for two ordinary steps, `kubectl create secret` and `kubectl apply -k`, which
# docs/kubernetes.md shows without it.
set -eu

usage() {
  cat <<'USAGE'
usage: deploy.sh client-secret-file|workload-identity [--render] [--local-image] [--dry-run]

Its inputs are environment variables; those that are not set are read from OVERLAY/.env, as they are written there.
OVERLAY/env.example lists them.

  --render        first render base/envoy.yaml from base/authz.yaml: after a change of that. With --dry-run the file stays as it is
  --local-image   the nodes have entra-authz with the tag of base/deployment.yaml, so AUTHZ_IMAGE is not needed
  --dry-run       print the manifests and stop; needs no cluster
USAGE
}

fail() {
  printf 'deploy.sh: %s\n' "$1" >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd -P)
overlay=
dry_run=no
local_image=no
render=no
for argument; do
  case $argument in
    client-secret-file | workload-identity) overlay=$argument ;;
    client-secret) fail "this overlay is called client-secret-file now; client-secret/deploy.sh is the demo of the Entra SDK sidecar" ;;
    --dry-run) dry_run=yes ;;
    --local-image) local_image=yes ;;
    --render) render=yes ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && fail "unknown argument: $argument" ;;
  esac
done
[ -n "$overlay" ] || { usage >&2 && fail "name an overlay"; }
command -v kubectl >/dev/null || fail "kubectl is not installed"

# shellcheck source=inputs.sh
. "$here/inputs.sh"
# shellcheck source=rollout.sh
. "$here/rollout.sh"
# shellcheck source=reach.sh
. "$here/reach.sh"

[ ! -e "$here/$overlay/.env" ] || read_env "$here/$overlay/.env"
NAMESPACE=${NAMESPACE:-agent}
SCOPE=${SCOPE:-access_agent access_as_user}
ROLLOUT_TIMEOUT=${ROLLOUT_TIMEOUT:-180s}
# No child process inherits the secret. One of them gets it, through a pipe.
secret=${CLIENT_SECRET:-}
unset CLIENT_SECRET

# ---- Inputs. All faults are reported, before anything happens. ----

[ "$dry_run" = yes ] || check_cluster

# The configuration itself says which variables it needs.
config=base/authz.yaml
variables=$(sed -n 's/#.*//; s/.*\${\([A-Za-z_][A-Za-z0-9_]*\)}.*/\1/p' "$here/$config" | sort -u)
literals=
for name in $variables; do
  value=
  eval "value=\${$name:-}"
  case $name in
    TENANT_ID | CLIENT_ID | AGENT_IDENTITY) is_guid "$value" || problem="is not a GUID" ;;
    SCOPE)
      case $value in
        *://*) problem="has a scope with its resource, which no token has: write the part after the last slash, such as access_agent" ;;
      esac
      is_plain "$(printf '%s' "$value" | tr ' ' +)" || problem="holds more than names of scopes" ;;
    *) is_plain "$value" || problem="holds a blank, a quote or the like" ;;
  esac
  [ -n "$value" ] || problem="is not set (kubernetes/$config refers to it)"
  if [ -n "${problem:-}" ]; then
    fault "$name $problem"
    unset problem
  fi
  literals="$literals
      - '$name=$value'"
  # For authz, where it compares the pair. None of them is a secret.
  [ -z "$value" ] || export "${name?}"
done
# shellcheck disable=SC2086 # they are words
check_names "$here/$overlay/.env" $variables TENANT_ID CLIENT_ID AGENT_IDENTITY AGENT_USER SCOPE CLIENT_SECRET AGENT_IMAGE AUTHZ_IMAGE \
  NAMESPACE ROLLOUT_TIMEOUT
if [ -n "${AGENT_USER:-}" ] && ! printf '%s\n' "$variables" | grep -qx AGENT_USER; then
  fault "AGENT_USER is set, but kubernetes/$config does not refer to it: its comments say where"
fi

[ "$overlay" != client-secret-file ] || check_secret "$secret"

if [ -n "${AGENT_IMAGE:-}" ]; then
  use_image agent AGENT_IMAGE
else
  fault "AGENT_IMAGE is not set"
fi
if [ -n "${AUTHZ_IMAGE:-}" ]; then
  use_image entra-authz AUTHZ_IMAGE
elif [ "$local_image" = no ]; then
  fault "AUTHZ_IMAGE is not set: an image of authz that the cluster can pull (or --local-image, where its nodes have one)"
fi

if ! is_plain "$NAMESPACE" ||
  ! printf '%s\n' "$NAMESPACE" | grep -Eqx '[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?'; then
  fault "NAMESPACE is not a name that a namespace can have"
fi

check_timeout "$ROLLOUT_TIMEOUT"
root=$(dirname "$here")
how="kubernetes/deploy.sh $overlay --render"
[ "$render$faults" != no ] || check_pair "$root" "$here/$config" "$here/base/envoy.yaml" "$how"
report "deploy $overlay"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
envoy=$here/base/envoy.yaml
if [ "$render" = yes ]; then
  envoy=$work/envoy.yaml
  render_pair "$root" "kubernetes/$config" kubernetes/base/envoy.yaml "$envoy"
  check_pair "$root" "$here/$config" "$envoy" "$how"
  report "deploy $overlay"
fi

# ---- Manifests: the overlay under a kustomization that carries the inputs. ----

if [ "$render$dry_run" = yesyes ]; then
  # A copy, without .env, so that the checkout stays as it is.
  mkdir -p "$work/kubernetes/$overlay"
  cp -R "$here/base" "$here/components" "$work/kubernetes"
  cp "$here/$overlay"/* "$work/kubernetes/$overlay"
  cp "$envoy" "$work/kubernetes/base/envoy.yaml"
else
  [ "$render" = no ] || cp "$envoy" "$here/base/envoy.yaml"
  ln -s "$here" "$work/kubernetes"
fi
cat >"$work/kustomization.yaml" <<KUSTOMIZATION
resources:
  - kubernetes/$overlay
namespace: $NAMESPACE
images:$images
configMapGenerator:
  - name: agent-identity
    behavior: merge
    literals:$literals
KUSTOMIZATION
kubectl kustomize "$work" >"$work/manifests.yaml"
unreached "$envoy" "$work/manifests.yaml" | while IFS= read -r destination; do
  printf 'note: no egress rule of the NetworkPolicy allows %s: docs/kubernetes.md#destinations-on-other-ports\n' "$destination" >&2
done

if [ "$dry_run" = yes ]; then
  cat "$work/manifests.yaml"
  exit 0
fi

# ---- Cluster. Server-side apply keeps no copy of what was applied, which would be the secret's. ----

apply() {
  kubectl apply --server-side --field-manager=authz-deploy --namespace "$NAMESPACE" --filename "$1"
}

if ! kubectl get namespace "$NAMESPACE" >/dev/null 2>&1; then
  kubectl create --filename - <<NAMESPACE_OBJECT
apiVersion: v1
kind: Namespace
metadata:
  name: $NAMESPACE
  labels:
    pod-security.kubernetes.io/enforce: restricted
NAMESPACE_OBJECT
fi

if [ "$overlay" = client-secret-file ]; then
  printf '%s' "$secret" |
    kubectl create secret generic agent-credential --namespace "$NAMESPACE" \
      --from-file=client-secret=/dev/stdin --dry-run=client --output yaml |
    apply -
fi

apply "$work/manifests.yaml"

if [ "$overlay" = workload-identity ]; then
  issuer=$(kubectl get --raw /.well-known/openid-configuration 2>/dev/null |
    sed -n 's/.*"issuer":"\([^"]*\)".*/\1/p') || issuer=
  [ -n "$issuer" ] || issuer="(that of the cluster, which this account may not read)"
  cat <<FEDERATION
The blueprint needs a federated credential with
  issuer    $issuer
  subject   system:serviceaccount:$NAMESPACE:agent
  audience  api://AzureADTokenExchange
FEDERATION
fi

rolled_out "$NAMESPACE" agent "$ROLLOUT_TIMEOUT" kubectl

#!/bin/sh
# The demo of the Entra SDK sidecar, with authz as the sidecar. What it prints is what the walk-through of that sidecar
# shows; whatever else there is to say goes to standard error. Run again, it changes what has changed.
set -eu

usage() {
  cat <<'USAGE'
usage: deploy.sh [--transparent] [--emulator] [--dry-run]
       deploy.sh --delete

Deploys to the current context's cluster. Its inputs are environment variables; those that are not set are read from .env
of this folder, as they are written there. env.example lists them. In a kind cluster it builds the image and loads it, unless AUTHZ_IMAGE names one.

  --transparent   the same pod with Envoy in it: the app calls the API itself, and the sidecar never. It needs
                  AGENT_IDENTITY as well: ../client-secret-transparent
  --emulator      without a tenant, in a kind cluster: the emulator is Entra and Graph. For development only
  --dry-run       print the manifests and stop; needs no cluster
  --delete        delete the namespace entra-demo, and the emulator's
USAGE
}

fail() {
  printf 'deploy.sh: %s\n' "$1" >&2
  exit 2
}

say() {
  printf '==> %s\n' "$1" >&2
}

here=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
overlay=client-secret
emulator=no
dry_run=no
delete=no
for argument; do
  case $argument in
    --transparent) overlay=client-secret-transparent ;;
    --emulator) emulator=yes ;;
    --dry-run) dry_run=yes ;;
    --delete) delete=yes ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && fail "unknown argument: $argument" ;;
  esac
done
[ "$emulator$dry_run" != yesyes ] || fail "--dry-run needs no cluster, and the emulator is in one"
[ "$delete" = no ] || [ $# = 1 ] || fail "--delete goes alone"

# shellcheck source=../inputs.sh
. "$here/../inputs.sh"
# shellcheck source=../rollout.sh
. "$here/../rollout.sh"

[ ! -e "$here/.env" ] || read_env "$here/.env"
ROLLOUT_TIMEOUT=${ROLLOUT_TIMEOUT:-180s}
# No child process inherits the secret. One of them gets it, through a pipe.
client_secret=${CLIENT_SECRET:-}
unset CLIENT_SECRET

command -v kubectl >/dev/null || fail "kubectl is not installed"
context=$(kubectl config current-context 2>/dev/null) || context=
case $context in
  kind-*) cluster=${context#kind-} ;;
  *) cluster= ;;
esac

# In the demo's namespace, or for it. Never "the current context": somebody may change it meanwhile.
demo() {
  kubectl --context "$context" "$@" --namespace entra-demo
}

unanswered() {
  fail "the cluster does not answer, or not to you: the current context is ${context:-not set}"
}

# state_of NAMESPACE: print its name and phase, or nothing if there is none.
state_of() {
  demo get namespace "$1" --ignore-not-found --output 'jsonpath={.metadata.name}/{.status.phase}'
}

if [ "$delete" = yes ]; then
  say "deleting entra-demo and entra-emulator: context ${context:-not set}"
  kubectl --context "$context" delete namespace entra-demo entra-emulator --ignore-not-found || unanswered
  exit 0
fi

# ---- Inputs. All faults are reported, before anything happens. ----

# check_guid NAME VALUE MEANING
check_guid() {
  if [ -z "$2" ]; then
    fault "$1 is not set: $3"
  elif ! is_guid "$2"; then
    fault "$1 is not a GUID: $3"
  fi
}

check_names "$here/.env" CLIENT_ID TENANT_ID CLIENT_SECRET AGENT_IDENTITY AUTHZ_IMAGE ROLLOUT_TIMEOUT
if [ "$emulator" = no ]; then
  check_guid CLIENT_ID "${CLIENT_ID:-}" "the client id of the blueprint"
  is_domain "${TENANT_ID:-}" || check_guid TENANT_ID "${TENANT_ID:-}" "the tenant of the blueprint, by its id or a domain name"
  check_secret "$client_secret"
  [ "$overlay" = client-secret ] || check_guid AGENT_IDENTITY "${AGENT_IDENTITY:-}" "the client id of the agent identity"
elif [ -z "$cluster" ]; then
  fault "--emulator is for kind clusters, and the current context is ${context:-not set}: kind create cluster --name entra-desktop"
fi
if [ -n "${AUTHZ_IMAGE:-}" ]; then
  use_image entra-authz AUTHZ_IMAGE
elif [ -z "$cluster" ]; then
  fault "AUTHZ_IMAGE is not set, and the current context is not a kind cluster's, in which this script would put the image:
    docker build --tag registry.example/entra-authz:0.1.0 $root
    docker push registry.example/entra-authz:0.1.0
    AUTHZ_IMAGE=registry.example/entra-authz:0.1.0"
fi
check_timeout "$ROLLOUT_TIMEOUT"
tools=
if [ -n "$cluster" ] && [ "$dry_run" = no ]; then
  [ -n "${AUTHZ_IMAGE:-}" ] && [ "$emulator" = no ] || tools="docker kind"
  [ "$emulator" = no ] || tools="$tools openssl"
fi
for tool in $tools; do
  command -v "$tool" >/dev/null || fault "$tool is not installed"
done
report deploy
case $tools in *docker*) docker info >/dev/null 2>&1 || fail "docker does not answer" ;; esac

# ---- Manifests: the folder under a kustomization that carries the inputs. ----

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
ln -s "$root/kubernetes" "$work/kubernetes"

# render MADE_OF: write each object to a file of $work/made. Its pods are replaced when MADE_OF changes.
render() {
  rm -rf "$work/made" && mkdir "$work/made"
  {
    cat <<KUSTOMIZATION
resources:
  - kubernetes/$overlay
images:$images
patches:
  - target:
      kind: ConfigMap
      name: sidecar-config
    patch: |-
      - {op: replace, path: /data/AzureAd__TenantId, value: '$TENANT_ID'}
      - {op: replace, path: /data/AzureAd__ClientId, value: '$CLIENT_ID'}
KUSTOMIZATION
    [ "$overlay" = client-secret ] || cat <<KUSTOMIZATION
      - {op: replace, path: /data/AzureAd__AgentIdentity, value: '$AGENT_IDENTITY'}
KUSTOMIZATION
    cat <<KUSTOMIZATION
  - target:
      kind: Deployment
    patch: |-
      - {op: add, path: /spec/template/metadata/annotations/authz~1made-of, value: '$1'}
KUSTOMIZATION
    [ "$emulator" = no ] || cat <<KUSTOMIZATION
components:
  - kubernetes/kind/demo-app
KUSTOMIZATION
    [ ! -f "$work/envoy.yaml" ] || cat <<KUSTOMIZATION
configMapGenerator:
  - name: envoy
    namespace: entra-demo
    behavior: replace
    files: [envoy.yaml, ca.crt=trusted.crt]
KUSTOMIZATION
  } >"$work/kustomization.yaml"
  kubectl kustomize "$work" --output "$work/made"
}

# check_transparent: fail, unless Envoy has the hosts of the variables that the sidecar gets, and was rendered from them.
check_transparent() {
  [ "$overlay:$emulator" = client-secret-transparent:no ] || return 0
  envoy=$root/kubernetes/client-secret-transparent/envoy.yaml
  variables=$(sed -n 's/^  \([A-Za-z_0-9]*\): *\(.*\)$/\1=\2/p' "$work"/made/*_configmap_sidecar-config.yaml |
    sed "s/=[\"']\(.*\)[\"']\$/=\1/")
  for host in $(printf '%s\n' "$variables" | sed -n 's|^DownstreamApis__.*__BaseUrl=https*://\([^/]*\).*|\1|p'); do
    grep -q "^ *- name: $host\$" "$envoy" || fault "envoy.yaml lacks the host $host: make render"
  done
  find_program "$root"
  if [ -n "$program" ] && [ -z "$faults" ]; then
    # Nothing of this environment, which may have variables of the same names.
    set -- env -i "PATH=$PATH" AzureAd__ClientCredentials__0__ClientSecret=not-read
    while IFS= read -r variable; do
      set -- "$@" "$variable"
    done <<VARIABLES
$variables
VARIABLES
    interpreter=$program program=env
    shift
    compare_pair sidecar-config.yaml "$envoy" "make render" "$@" "$interpreter" check-config
  fi
  report deploy
}

if [ "$dry_run" = yes ]; then
  render nothing
  check_transparent
  for file in "$work"/made/*; do
    echo ---
    cat "$file"
  done
  exit 0
fi
[ "$overlay:$emulator" != client-secret-transparent:no ] || { render nothing && check_transparent; }

# ---- The cluster. ----

say "deploying to the cluster of the context ${context:-that is not set}"
there=$(state_of entra-demo) || unanswered
# Other clusters have none, and who may use one namespace there need not be allowed to ask for another.
emulator_there=
[ -z "$cluster" ] || emulator_there=$(state_of entra-emulator) || unanswered
[ "$emulator" = yes ] || [ -z "$emulator_there" ] ||
  say "the emulator of an earlier run is still there: kubectl --context $context delete namespace entra-emulator"

# A namespace that is being deleted takes no new objects.
going=
case $there in */Terminating) going=entra-demo there='' ;; esac
case $emulator$emulator_there in yes*/Terminating) going="$going entra-emulator" ;; esac
for namespace in $going; do
  say "waiting until the old namespace $namespace is gone"
  demo wait namespace "$namespace" --for=delete --timeout="$ROLLOUT_TIMEOUT" >&2 ||
    fail "the namespace $namespace is still being deleted"
done

# ---- Images, and the emulator. ----

image=
if [ -n "$tools" ]; then
  # shellcheck source=../kind/development.sh
  . "$here/../kind/development.sh"
fi
if [ -z "${AUTHZ_IMAGE:-}" ]; then
  build entra-authz >&2
  image=$(docker image inspect --format '{{.Id}}' "entra-authz:$version")
fi
if [ "$emulator" = yes ]; then
  build entra-authz-development development >&2
  apply "$root/kubernetes/kind/emulator/namespace.yaml" >&2
  publish_issuer >/dev/null
  certified emulator-tls entra-emulator || make_authority >&2
  authority_of emulator-tls entra-emulator >"$work/trusted.crt"
  deploy emulator entra-emulator emulator "$(made_of "entra-authz-development:$version")" >&2
  # The first blueprint, and after it its first agent.
  TENANT_ID=$(emulator_value tenant_id)
  CLIENT_ID=$(emulator_value client_id)
  AGENT_IDENTITY=$(emulator_value client_id 2)
  client_secret=$(emulator_value client_secret)
  for value in "$TENANT_ID" "$CLIENT_ID" "$AGENT_IDENTITY" "$client_secret"; do
    [ -n "$value" ] || fail "the emulator does not say who is in its directory; run this again"
  done
  # Envoy's configuration as `authz envoy` makes it for the emulator's Graph; its authority goes beside it. Without the mark, which is
  # that of the other hosts.
  [ "$overlay" = client-secret ] ||
    sed -e '/authz[.]rendered/d' -e 's/graph\.microsoft\.com/graph.entra-emulator.svc.cluster.local/' \
      -e 's/graph_microsoft_com/graph_entra-emulator_svc_cluster_local/' \
      -e 's:/etc/ssl/certs/ca-certificates.crt:/etc/envoy/ca.crt:' \
      "$root/kubernetes/client-secret-transparent/envoy.yaml" >"$work/envoy.yaml"
fi

# ---- The demo. ----

if [ -n "$there" ]; then
  echo "Namespace 'entra-demo' already exists"
else
  echo "Creating namespace: entra-demo"
  demo create --filename - <<'NAMESPACE'
apiVersion: v1
kind: Namespace
metadata:
  name: entra-demo
  labels:
    pod-security.kubernetes.io/enforce: restricted
NAMESPACE
fi
echo "Deploying to namespace: entra-demo"
[ "$emulator" = no ] || trust entra-demo >&2

echo "Applying sidecar-config..."
render nothing
for file in "$work"/made/*_configmap_*; do
  demo apply --filename "$file"
done

echo "Applying sidecar-secret..."
# By server-side apply, which keeps no copy of what was applied in an annotation; nor may one stay from another tool.
printf '%s' "$client_secret" |
  demo create secret generic sidecar-secret --dry-run=client --output yaml \
    --from-file=AzureAd__ClientCredentials__0__ClientSecret=/dev/stdin |
  demo apply --server-side --field-manager=authz-deploy --force-conflicts --filename -
demo annotate secret sidecar-secret kubectl.kubernetes.io/last-applied-configuration- >/dev/null

echo "Applying deployment..."
# The pod reads both when it starts, so it is replaced when one of them changes.
version_of() {
  demo get "$1" "$2" --output 'jsonpath={.metadata.resourceVersion}'
}
render "$(version_of configmap sidecar-config) $(version_of secret sidecar-secret) $image"
demo apply --filename "$work"/made/*_deployment_*
rolled_out entra-demo demo-app "$ROLLOUT_TIMEOUT" kubectl --context "$context" >/dev/null
echo "Deployment complete!"

if [ "$emulator" = yes ]; then
  cat <<HINTS

The agent identity in the emulator's directory, and a token of a user of it, who is alice:
  AGENT_ID=$AGENT_IDENTITY
  USER_TOKEN=\$(kubectl exec deploy/demo-app -n entra-demo -c app -- curl -s https://login.entra-emulator.svc.cluster.local/emulator/mint --data '{"user": "alice@contoso.example", "scopes": ["access_as_user"]}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
HINTS
fi

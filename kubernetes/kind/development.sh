# The emulator in a kind cluster, for scripts to source: ./up.sh and ../client-secret/deploy.sh. For development only.
# The sourcing script has set $cluster (kind's name of it), $root (the checkout) and $work (a folder of its own, which
# goes at the end), and has `say`.

# shellcheck source=../rollout.sh
. "$root/kubernetes/rollout.sh"

version=$(sed -n 's/.*image: entra-authz:\(.*\)/\1/p' "$root/kubernetes/base/deployment.yaml" | head -n 1)

# Never the current context: that may be anybody's cluster.
k() {
  kubectl --context "kind-$cluster" "$@"
}

# Server-side apply keeps no copy of what was applied, which would be a secret's.
apply() {
  k apply --server-side --field-manager=authz-kind --filename "$1"
}

# build NAME [REQUIREMENTS]: build an image of the checkout, and put it into the cluster's nodes.
build() {
  say "building and loading $1:$version"
  docker build --quiet --tag "$1:$version" ${2:+--build-arg "REQUIREMENTS=$2"} "$root"
  kind load docker-image --name "$cluster" "$1:$version"
}

# publish_issuer: give the emulator the cluster's own documents, by which it knows tokens of service accounts.
publish_issuer() {
  say "telling the emulator which tokens the cluster signs"
  CONTEXT=kind-$cluster "$root/kubernetes/kind/issuer.sh" documents "$work/issuer"
  k create configmap issuer --namespace entra-emulator --dry-run=client --output yaml \
    --from-file=openid-configuration="$work/issuer/.well-known/openid-configuration" \
    --from-file=jwks="$work/issuer/openid/v1/jwks" >"$work/issuer.yaml"
  apply "$work/issuer.yaml"
}

# authority_of SECRET NAMESPACE: print the certificate of the authority that a certificate is of.
authority_of() {
  k get secret "$1" --namespace "$2" --output 'jsonpath={.data.ca\.crt}' 2>/dev/null | openssl base64 -d -A
}

# certified SECRET NAMESPACE: whether it has a certificate of the emulator's authority, good for another week.
certified() {
  [ -n "$(authority_of "$1" "$2")" ] &&
    [ "$(authority_of "$1" "$2")" = "$(authority_of emulator-tls entra-emulator)" ] &&
    k get secret "$1" --namespace "$2" --output 'jsonpath={.data.tls\.crt}' 2>/dev/null |
    openssl base64 -d -A | openssl x509 -noout -checkend 604800 >/dev/null 2>&1
}

# make_authority: make one, for the calls of `certificate` that follow; its key goes with $work.
make_authority() {
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

# trust NAMESPACE: put the authority into the ConfigMap `development-ca` of a namespace, and into $work/trusted.crt.
trust() {
  authority_of emulator-tls entra-emulator >"$work/trusted.crt"
  k create configmap development-ca --namespace "$1" --from-file=ca.crt="$work/trusted.crt" \
    --dry-run=client --output yaml >"$work/development-ca.yaml"
  apply "$work/development-ca.yaml"
}

# made_of IMAGE...: what pods are made of beside their manifests, in one word: images and the authority. Pods are replaced
# when it changes, though the names in their manifests are the same.
made_of() {
  {
    docker image inspect --format '{{.Id}}' "$@"
    cat "$work/trusted.crt"
  } | openssl dgst -sha256 -r | cut -c1-16
}

# deploy FOLDER NAMESPACE NAME MADE_OF: apply a folder of this one, and wait until its Deployment runs.
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
              authz/made-of: "$4"
KUSTOMIZATION
  kubectl kustomize "$work/$1" >"$work/$1.yaml"
  apply "$work/$1.yaml"
  rolled_out "$2" "$3" 180s kubectl --context "kind-$cluster"
}

# emulator_value NAME [NUMBER]: print the first value (or another one) that the emulator's directory has under a name.
emulator_value() {
  k exec --namespace entra-emulator deployment/emulator -- cat /tmp/entra/emulator.json |
    sed -n "s/.*\"$1\": \"\(.*\)\".*/\1/p" | sed -n "${2:-1}p" | tr -d '\n'
}

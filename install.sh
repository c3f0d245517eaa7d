#!/usr/bin/env bash
# Installs or removes the Frappe operator with kubectl. It may be run again: only differences are applied.
#   curl -fsSL https://raw.githubusercontent.com/frappe-operator/frappe-operator/main/install.sh | bash
#   curl -fsSL …/install.sh | bash -s -- --namespace my-frappe-system --replicas 3
# To pin a release, use its tag or commit instead of main, and verify the script's SHA-256:
#   curl -fsSLO …/v0.1.0/install.sh && sha256sum --check <<<"SHA256  install.sh" && bash install.sh
set -euo pipefail

# The release, and the SHA-256 of its helm/install.yaml (make manifests). No other manifest is applied.
release=0.1.0
sha256=084d52fae4b9e130be1bf33c026304ebfb4b094c181af6489c94d267b0df5865
# Empty where the script comes through a pipe. Inside of a function it would have a name then, which a file here may have.
script=${BASH_SOURCE[0]:-}

main() {
  namespace=frappe-operator-system
  replicas=
  image=
  context=()
  action=install
  wait_seconds=180
  # Where there is a checkout, its own manifest; else the release's.
  manifest=${FRAPPE_OPERATOR_MANIFEST:-}
  if [ -z "$manifest" ] && [ -n "$script" ] && [ -f "$script" ]; then
    manifest=$(dirname -- "$script")/helm/install.yaml
    [ -f "$manifest" ] || manifest=
  fi
  parse "$@"
  [ "$action" = print ] || reachable
  source=$(read_manifest) || exit 1
  text=$(rendered)
  case $action in
    print) printf '%s\n' "$text" ;;
    uninstall) uninstall ;;
    install) install ;;
  esac
}

usage() {
  cat <<'TEXT'
install.sh [--namespace NAME] [--replicas NUMBER] [--image IMAGE] [--context NAME] [--print | --uninstall]

  --namespace NAME   namespace of the operator (default: frappe-operator-system)
  --replicas NUMBER  number of replicas (default: 2)
  --image IMAGE      image of the operator, instead of the published one
  --context NAME     kubeconfig context
  --print            print the manifest without applying it
  --uninstall        remove the operator; CRDs, benches, sites and their data are kept

Without a checkout, the script downloads the manifest of its release and applies it only if it has the SHA-256 in the script. To use
another manifest, set FRAPPE_OPERATOR_MANIFEST to a file or https:// URL, and optionally FRAPPE_OPERATOR_MANIFEST_SHA256.
For more settings use the Helm chart, helm/frappe-operator.
TEXT
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --namespace | --replicas | --image | --context) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    esac
    case $1 in
      --namespace) namespace=$2 && shift ;;
      --replicas) replicas=$2 && shift ;;
      --image) image=$2 && shift ;;
      --context) context=(--context "$2") && shift ;;
      --print) action=print ;;
      --uninstall) action=uninstall ;;
      --help | -h) usage && exit 0 ;;
      *) usage >&2 && fail "unknown argument: $1" ;;
    esac
    shift
  done
  [[ $namespace =~ ^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || fail "--namespace $namespace is not a valid namespace name"
  [[ -z $replicas || $replicas =~ ^[1-9][0-9]?$ ]] || fail "--replicas $replicas is not a number from 1 to 99"
  [[ -z $image || $image =~ ^[A-Za-z0-9][A-Za-z0-9._/:@-]*$ ]] || fail "--image $image is not a valid image"
}

fail() {
  printf 'install.sh: %s\n' "$1" >&2
  exit 1
}

reachable() {
  command -v kubectl >/dev/null || fail "kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools"
  kube version >/dev/null 2>&1 || fail "kubectl cannot reach a cluster: check KUBECONFIG, or set --context"
}

# An empty array is unset to older shells.
kube() { kubectl ${context[@]+"${context[@]}"} "$@"; }

# The manifest as it is published.
read_manifest() {
  local from found= wanted=${FRAPPE_OPERATOR_MANIFEST_SHA256:-}
  if [ -n "$manifest" ]; then
    case $manifest in
      https://*) found=$(download "$manifest") || fail "cannot download the manifest $manifest" ;;
      *) found=$(cat -- "$manifest") || fail "cannot read the manifest $manifest" ;;
    esac
    [ -z "$wanted" ] || [ "$(sum "$found")" = "$wanted" ] ||
      fail "$manifest does not match FRAPPE_OPERATOR_MANIFEST_SHA256; its SHA-256 is $(sum "$found")"
    printf '%s\n' "$found" && return
  fi
  # A script that is newer than the last release is of the branch.
  for from in "v$release" main; do
    found=$(download "https://raw.githubusercontent.com/frappe-operator/frappe-operator/$from/helm/install.yaml") || continue
    [ "$(sum "$found")" != "$sha256" ] || { printf '%s\n' "$found" && return; }
  done
  [ -n "$found" ] || fail "cannot download the manifest from raw.githubusercontent.com: download the release and run its install.sh"
  fail "the downloaded manifest does not match the SHA-256 in this script: download install.sh again"
}

download() { curl -fsSL --proto '=https' --tlsv1.2 "$1"; }

# SHA-256 of a text with its last line feed.
sum() {
  local tool=
  for tool in "sha256sum" "shasum -a 256" "openssl dgst -r -sha256"; do
    if command -v "${tool%% *}" >/dev/null; then
      printf '%s\n' "$1" | $tool | cut -d ' ' -f 1
      return
    fi
  done
  fail "none of sha256sum, shasum and openssl is on PATH"
}

# As it was asked for.
rendered() {
  printf '%s\n' "$source" | sed \
    -e "s|frappe-operator-system|$namespace|g" \
    ${replicas:+-e "s|^  replicas: [0-9]*$|  replicas: $replicas|"} \
    ${image:+-e "s|^\( *\)image: ghcr.io/frappe-operator/frappe-operator:.*$|\1image: $image|"}
}

# What of it goes with the operator: not the CRDs, with which every bench and site would go, nor the namespace, which may hold
# other things.
own() {
  printf '%s\n' "$text" | awk '
    function emit() { if (document != "" && kind !~ /^(CustomResourceDefinition|Namespace)$/) printf "---\n%s", document; document = kind = "" }
    /^---/ { emit(); next }
    /^kind: / { kind = $2 }
    { document = document $0 "\n" }
    END { emit() }'
}

install() {
  ours_alone
  kube create namespace "$namespace" --dry-run=client -o yaml | kube apply --server-side -f - >/dev/null
  printf '%s\n' "$text" | kube apply --server-side --force-conflicts --field-manager=frappe-operator-install -f -
  kube wait --for=condition=Established --timeout="${wait_seconds}s" \
    crd/frappebenches.vyogo.tech crd/frappesites.vyogo.tech crd/slotmaps.vyogo.tech >/dev/null
  kube -n "$namespace" rollout status deployment/frappe-operator-controller-manager --timeout="${wait_seconds}s" ||
    fail "the operator did not become ready: kubectl -n $namespace describe pods"
  missing
  printf '\nThe Frappe operator runs in namespace %s. Next, create a MariaDB, a bench and a site:\n' "$namespace"
  printf '  kubectl create namespace shop\n'
  printf '  kubectl apply --namespace shop -f https://raw.githubusercontent.com/frappe-operator/frappe-operator/main/examples/quickstart.yaml\n'
}

# Two installations would both own every site; a release belongs to Helm.
ours_alone() {
  local others
  others=$(kube get deployments -A -l app.kubernetes.io/name=frappe-operator \
    -o 'jsonpath={range .items[*]}{.metadata.namespace}{" "}{.metadata.labels.app\.kubernetes\.io/managed-by}{"\n"}{end}')
  if grep -q ' Helm$' <<<"$others"; then
    fail "the operator was installed by Helm (namespace ${others%% *}): use helm upgrade"
  fi
  others=$(grep -v "^$namespace " <<<"$others" || true)
  [ -z "$others" ] || fail "the operator runs in the namespace ${others%% *} already: two would both own every site"
  others=$(kube get deployments -A -o name -l 'control-plane=controller-manager,app.kubernetes.io/name!=frappe-operator' |
    grep frappe || true)
  [ -z "$others" ] || fail "another Frappe operator runs ($others): scale it to 0 first, see docs/migration.md"
}

missing() {
  kube get crd databases.k8s.mariadb.com >/dev/null 2>&1 ||
    printf '\nWARNING: the MariaDB operator is not installed. Sites that do not use an existing database wait for it.\n'
  kube get crd scaledobjects.keda.sh >/dev/null 2>&1 ||
    printf '\nNOTE: KEDA is not installed. Workers are not autoscaled.\n'
  grep -q 'is-default-class: "true"' <<<"$(kube get storageclass -o yaml)" ||
    printf '\nWARNING: no default StorageClass. Benches must set storageClassName.\n'
}

uninstall() {
  own | kube delete --ignore-not-found -f -
  printf '\nThe operator was removed. CRDs, benches, sites and their data are kept; sites stay available.\n'
  printf 'The namespace %s is kept. To list its contents: kubectl -n %s get all,leases,slotmaps\n' "$namespace" "$namespace"
}

main "$@"

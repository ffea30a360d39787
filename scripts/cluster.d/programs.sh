# shellcheck shell=bash
# The programs of the cluster, made from their Go modules. Sourced by scripts/cluster.
#
# Each is made once and kept in a folder of its own below $cache. They share a build cache of some
# gigabytes, which goes when all that was asked for is made, and stays when a build was ended early.
# shellcheck disable=SC2154  # $here and $cache are the caller's

kwok_version=v0.8.0
helm_version=v3.22.0
kubernetes_version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$here/kube/go.mod")
kube_recipe=$(cat "$here"/kube/go.* "$here"/kube/*.go "$here"/kube/pause/*.go | sha256sum | cut -c1-16)
kube_folder=$cache/kube-$kube_recipe
kwok_folder=$cache/kwok-$kwok_version
helm_folder=$cache/helm-$helm_version

# make_program FOLDER COMMAND...: runs the command with a new folder as its last argument and as GOBIN,
# which gets its name only when it is whole, so that a build that was ended leaves nothing half.
make_program() {
    local folder=$1
    shift
    [ -d "$folder" ] && return 0
    if ! command -v go >/dev/null; then
        say "no Go here to make the cluster with: install Go 1.25 or newer, or use a cluster of your own (KUBECONFIG=FILE)"
        return 1
    fi
    mkdir -p "$cache"
    (
        flock 8 # two test runs may begin at once
        [ -d "$folder" ] && exit 0
        say "making ${folder##*/} from its Go modules (once, some minutes)"
        work=$(mktemp -d "$cache/cluster-XXXXXX")
        trap 'rm -rf "$work"' EXIT
        mkdir "$work/bin"
        export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off GOBIN=$work/bin GOCACHE=$cache/cluster-build
        if "$@" "$work/bin" >"$cache/cluster-build.log" 2>&1; then
            mv "$work/bin" "$folder"
        else
            say "the build failed; the end of $cache/cluster-build.log:"
            tail -n 5 "$cache/cluster-build.log" >&2
            exit 1
        fi
    ) 8>"$cache/cluster-build.lock"
}

# Not while another call makes something with it.
forget_build_cache() { (flock -n 8 && rm -rf "$cache/cluster-build") 8>"$cache/cluster-build.lock" || true; }

build_kube() {
    local version=k8s.io/component-base/version minor=${kubernetes_version#v1.}
    # Without these the API server says that it is v0.0.0, which clients take for an ancient one.
    go build -C "$here/kube" -trimpath -o "$1/kube" -ldflags "-s -w -X $version.gitVersion=$kubernetes_version
        -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}" . &&
        ln -s kube "$1/kubectl" &&
        go build -C "$here/kube" -trimpath -ldflags '-s -w' -o "$1/pause" ./pause &&
        pack_pause "$1"
}

build_kwok() { go install -trimpath -ldflags '-s -w' sigs.k8s.io/kwok/cmd/kwok@$kwok_version; }

build_helm() { go install -trimpath -ldflags '-s -w' helm.sh/helm/v3/cmd/helm@$helm_version; }

# An image with nothing but the program, as an archive that containerd takes.
pack_pause() {
    local work=$1/image
    mkdir "$work" &&
        tar -C "$1" --owner=0 --group=0 --mtime=@0 -cf "$work/layer.tar" pause &&
        printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
            "$(go env GOARCH)" "$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)" >"$work/config.json" &&
        printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$pause_image" >"$work/manifest.json" &&
        tar -C "$work" -cf "$1/pause.tar" manifest.json config.json layer.tar &&
        rm -r "$work"
}

make_kube() { make_program "$kube_folder" build_kube; }
make_kwok() { make_program "$kwok_folder" build_kwok; }
make_helm() { make_program "$helm_folder" build_helm; }

# make_programs kube|kwok|helm...
make_programs() {
    local name
    for name in "$@"; do
        "make_$name" || return 1
    done
    [ ! -d "$cache/cluster-build" ] || forget_build_cache
}

# shellcheck shell=bash
# Sourced by ./test and ./fleet: installs programs that are missing, on Debian or Ubuntu, by the ordinary package client.

# Where Debian has what only administrators used to start.
PATH=$PATH:/usr/sbin

# install_missing PROGRAM:PACKAGE...
install_missing() {
    local packages=() pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "install these first, or run on Debian or Ubuntu: ${packages[*]}" >&2
        return 1
    fi
    local apt=(apt-get)
    [ "$(id -u)" = 0 ] || apt=(sudo apt-get)
    echo "installing ${packages[*]}"
    "${apt[@]}" update -qq
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

# The servers of a fleet. Cassandra comes as Maven artifacts; Maven brings a Java to run it with.
FLEET_SERVERS=(redis-server:redis-server etcd:etcd-server haproxy:haproxy mvn:maven)

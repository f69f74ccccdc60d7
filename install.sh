#!/bin/sh
# Installs seccomp-shim on this host; see --help.
set -eu

usage() {
    cat <<EOF
usage: sudo ./install.sh [--prefix DIR] [--wheels DIR] [--with NAMES] [--no-demo | --dry-run]
       sudo ./install.sh --uninstall [--purge] [--prefix DIR]

Installs seccomp-shim from this directory, then shows it at work (seccomp-shim demo).
Run it again to upgrade; where nothing has changed it does nothing.

  --prefix DIR   where the program goes (default /opt/seccomp-shim): a directory of its own
  --wheels DIR   take Python's packages, pip among them, from the wheels in DIR and nothing from
                 anywhere else: without a network, and without the system's package manager
  --with NAMES   also, separated by commas: fleet, what it takes to manage many hosts from here
                 (Ansible); metrics, what Prometheus reads, and a timer that writes it for
                 node_exporter where systemd runs
  --no-demo      do not run the demo at the end
  --dry-run      only tell whether anything would be installed
  --uninstall    remove the program, the system packages that installing it brought and that
                 nothing else needs, and the settings if you never edited them; the log of
                 adjustments, edited settings, and the journal and backups of patched
                 profiles stay
  --purge        with --uninstall, also a later one: remove these, too. Profiles stay as they
                 were patched, each is named: seccomp-shim rollback gives back what was there,
                 before this
  --help         this text

What it puts where (with metrics also /etc/systemd/system/seccomp-shim-metrics.*):
  DIR                            the program in a Python environment of its own
  DIR/bin/seccomp-shim-*         what engines call: the OCI hooks, and the runtime wrapper
  /usr/local/bin/seccomp-shim    a link to the command
  /etc/seccomp-shim/config.yaml  the settings; a file that is there is kept
  /var/log/seccomp-shim/         the log of adjustments, readable by root and group adm
  /etc/logrotate.d/seccomp-shim  how logrotate rotates it, where there is a logrotate
  /var/lib/seccomp-shim/         what was there before: engines' files, patched profiles
  /run/seccomp-shim/             what was found out about the kernel since it booted
System packages, only where missing: Python >= 3.11 with venv, libseccomp, and runc if the host
has neither runc nor crun. No container engine's configuration is changed: seccomp-shim install ENGINE
does that.

For tests and packagers:
  --python       print the interpreter that would be used
EOF
}

say() { printf '%s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 2
}

# --- the interpreter -------------------------------------------------------------------------

# Print the distribution's interpreter by its real path, or fail. Only /usr/bin counts: a version
# manager's python on PATH belongs to a user, and hooks run as root with an empty environment.
find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        real=$(readlink -e "/usr/bin/$name") || continue
        case $(stat -c '%u %A' "$real") in
            "0 "?????w???? | "0 "????????w?) continue ;;
            "0 "*) ;;
            *) continue ;;
        esac
        if "$real" -IS -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            say "$real"
            return
        fi
    done
    return 1
}

# --- system packages -------------------------------------------------------------------------

package_manager() {
    if [ -n "$wheels" ]; then say none
    elif command -v apt-get >/dev/null; then say apt
    elif command -v dnf >/dev/null; then say dnf
    else say none
    fi
}

list_packages() {
    # Single quotes are meant: ${...} is dpkg-query's.
    # shellcheck disable=SC2016
    case $(package_manager) in
        apt) dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' ;;
        dnf) rpm -qa --qf '%{NAME}\n' ;;
        *) ;;
    esac | sort -u
}

# add_packages NAME...: install system packages; what was new goes into the manifest.
add_packages() {
    say "Installing system packages: $*"
    list_packages >"$work/before"
    case $(package_manager) in
        apt)
            apt-get update -qq || say "apt-get update failed; going on with the lists that are there"
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
                >"$work/packages.log" 2>&1
            ;;
        dnf) dnf install -y --setopt=install_weak_deps=False "$@" >"$work/packages.log" 2>&1 ;;
        *) die "no package manager to be used here: install these by hand, then run this again: $*" ;;
    esac || {
        cat "$work/packages.log" >&2
        die "the package manager could not install: $*"
    }
    list_packages >"$work/after"
    comm -13 "$work/before" "$work/after" | sed 's/^/package /' >>"$work/new"
}

# Debian's python3-venv is the part that has pip; with wheels there is one.
can_make_environments() {
    if [ -n "$wheels" ]; then "$1" -I -c 'import venv' 2>/dev/null
    else "$1" -I -c 'import ensurepip, venv' 2>/dev/null
    fi
}

has_libseccomp() { "$1" -IS -c 'import ctypes; ctypes.CDLL("libseccomp.so.2")' 2>/dev/null; }

# Bring what the host lacks; sets $python.
need_system() {
    manager=$(package_manager)
    missing=
    if ! python=$(find_python); then
        case $manager in
            apt) apt-get update -qq || true; python_package=python3.11
                 [ -n "$(apt-cache search --names-only '^python3\.11$')" ] || python_package=
                 ;;
            dnf) python_package=python3.11 ;;
            *) python_package= ;;
        esac
        [ -n "$python_package" ] || die "no Python >= 3.11 owned by root in /usr/bin, and none to install"
        add_packages "$python_package"
        python=$(find_python) || die "no Python >= 3.11 in /usr/bin after installing $python_package"
    fi
    if ! can_make_environments "$python"; then
        # Debian and Ubuntu split venv off; python3-venv serves the default version only.
        if [ "$(readlink -e /usr/bin/python3)" = "$python" ]; then missing="python3-venv"
        else missing="${python##*/}-venv"
        fi
        [ "$manager" = apt ] || missing="${python##*/}-pip"
    fi
    if ! has_libseccomp "$python"; then
        if [ "$manager" = apt ]; then missing="$missing libseccomp2"
        else missing="$missing libseccomp"
        fi
    fi
    # Docker's containerd.io package brings a runc of its own and conflicts with the distribution's.
    command -v runc >/dev/null || command -v crun >/dev/null || missing="$missing runc"
    # Names of packages hold no spaces.
    # shellcheck disable=SC2086
    [ -z "$missing" ] || add_packages $missing
    can_make_environments "$python" || die "$python cannot make virtual environments"
    has_libseccomp "$python" || die "libseccomp.so.2 cannot be loaded"
}

# --- installing ------------------------------------------------------------------------------

# Name this version by all that goes into it.
version_name() {
    (
        cd "$here"
        find pyproject.toml README.md install.sh shim hooks profiles deploy/ansible/ansible_collections \
            -type f ! -name '*.pyc' \
            -exec sha256sum {} + | sort
        "$python" -VV
        say "$python $prefix $extras"
    ) | sha256sum | cut -c1-16
}

# replace FILE MODE: put standard input there in one step.
replace() {
    cat >"$1.new"
    chmod "$2" "$1.new"
    mv -f -- "$1.new" "$1"
}

# run_pip COMMAND...: have a pip install something, from the wheels alone where there are any.
run_pip() {
    set -- "$@" --quiet --no-input --disable-pip-version-check
    if [ -n "$wheels" ]; then "$@" --no-cache-dir --no-index --find-links "$wheels"
    else "$@"
    fi
}

# A wheel of pip can be run as it is to install itself; what builds us needs it installed.
take_pip() {
    [ -n "$wheels" ] || return 0
    for pip in "$wheels"/pip-*.whl; do
        run_pip "$version/bin/python" -I "$pip/pip" install pip
        return
    done
}

build_version() {
    say "Installing seccomp-shim into $prefix with $python"
    rm -rf -- "$version"
    building=$version
    "$python" -I -m venv ${wheels:+--without-pip} "$version" ||
        die "cannot make a virtual environment in $version"
    { take_pip && run_pip "$version/bin/python" -I -m pip install --compile "$here${extras:+[$extras]}"; } \
        >"$work/pip.log" 2>&1 || {
        cat "$work/pip.log" >&2
        die "pip could not install seccomp-shim (the last lines above say why)"
    }
    "$version/bin/seccomp-shim" --version >"$version/complete" ||
        die "the installed program does not start"
    building=
}

write_config() {
    [ -e /etc/seccomp-shim ] || mkdir -m 0755 /etc/seccomp-shim
    [ ! -e /etc/seccomp-shim/config.yaml ] || return 0
    replace /etc/seccomp-shim/config.yaml 0644 <<EOF
# Settings of seccomp-shim, from the next container on.
# Start a container that could not be adjusted or logged (allow), or refuse to (deny):
#on_error: allow
#log: /var/log/seccomp-shim/audit.jsonl
# Rotate it at this size, and keep so many old ones, compressed (none: never):
#log_max: 64 MB x 4
# Count execs of health checks instead of writing each (count):
#log_repeats: write
# Real runtimes by name, the first by default; else runc or crun on PATH:
#runtimes:
#  runc: /usr/sbin/runc
# For a test on any kernel: let this call through as well (337 to 423):
#test_syscall: 400
EOF
    sha256sum /etc/seccomp-shim/config.yaml | sed 's/^/config /' >>"$work/new"
}

# One that rotates by itself needs no logrotate; where there is one, admins look there.
write_logrotate() {
    [ -d /etc/logrotate.d ] || return 0
    [ ! -e "$logrotate" ] || return 0
    group=adm
    grep -q '^adm:' /etc/group || group=root
    replace "$logrotate" 0644 <<EOF
# seccomp-shim rotates its log itself, at log_max in /etc/seccomp-shim/config.yaml (64 MB). This is
# for what it leaves: keep the size above log_max, so that both are never at work at once.
/var/log/seccomp-shim/audit.jsonl {
    size 80M
    rotate 4
    compress
    delaycompress
    missingok
    notifempty
    nodateext
    create 0640 root $group
}
EOF
    sha256sum "$logrotate" | sed 's/^/logrotate /' >>"$work/new"
}

# write_timer: have the metrics written where node_exporter looks for them.
write_timer() {
    case ,$extras, in
        *,metrics,*) ;;
        *) return 0 ;;
    esac
    [ -d /etc/systemd/system ] || return 0
    [ -d "$textfiles" ] || say "textfiles $textfiles" >>"$work/new"
    mkdir -p "$textfiles"
    replace "$units.service" 0644 <<EOF
[Unit]
Description=Metrics of seccomp-shim for node_exporter
Documentation=file://$prefix

[Service]
Type=oneshot
ExecStart=$link metrics --textfile $textfiles/seccomp-shim.prom
Nice=19
TimeoutStartSec=60
EOF
    replace "$units.timer" 0644 <<EOF
[Unit]
Description=Metrics of seccomp-shim for node_exporter, each minute

[Timer]
OnBootSec=60
OnUnitInactiveSec=60
RandomizedDelaySec=10

[Install]
WantedBy=timers.target
EOF
    say "timer $textfiles" >>"$work/new"
    [ -d /run/systemd/system ] || return 0
    { systemctl daemon-reload && systemctl enable --quiet --now seccomp-shim-metrics.timer; } ||
        say "seccomp-shim-metrics.timer could not be started: systemctl enable --now seccomp-shim-metrics.timer"
}

remove_timer() {
    grep -q '^timer ' "$prefix/manifest" 2>/dev/null || return 0
    [ ! -d /run/systemd/system ] || systemctl disable --quiet --now seccomp-shim-metrics.timer || true
    rm -f "$units.service" "$units.timer" /var/lib/seccomp-shim/metrics.json /var/lib/seccomp-shim/metrics.json.lock
    # Who runs Prometheus may own the directory above, and have put a link in the place of this one.
    (
        real=$(cd -P "${textfiles%/*}" 2>/dev/null && pwd) && cd -P "$textfiles" 2>/dev/null || exit 0
        [ "$(pwd -P)" != "$real/${textfiles##*/}" ] || rm -f ./seccomp-shim.prom
    )
    if grep -q '^textfiles ' "$prefix/manifest"; then
        drop_empty "$textfiles"
        drop_empty "${textfiles%/*}"
    fi
    [ ! -d /run/systemd/system ] || systemctl daemon-reload || true
}

# What an earlier run was asked for holds on.
read_extras() {
    [ ! -e "$prefix/manifest" ] || extras=$({ say "$extras"; sed -n 's/^with //p' "$prefix/manifest"; } |
        tr , '\n' | sed '/^$/d' | sort -u | paste -sd , -)
    [ -z "$extras" ] || say "with $extras" >>"$work/new"
}

# Keep what this run and earlier ones put on the host.
write_manifest() {
    [ ! -e "$prefix/manifest" ] || cat "$prefix/manifest" >>"$work/new"
    sort -u "$work/new" | replace "$prefix/manifest" 0644
}

# A hook that runs during an upgrade still imports from the version it began with.
drop_old_versions() {
    for old in "$prefix"/versions/*; do
        case $old in
            "$version" | "$previous") ;;
            *) rm -rf -- "$old" ;;
        esac
    done
}

# Tell what stands in the way before anything is made; --dry-run asks the same.
check_place() {
    there=$prefix
    while [ ! -e "$there" ]; do
        there=${there%/*}
        there=${there:-/}
    done
    [ -d "$there" ] || die "$there: is no directory (choose another --prefix)"
    if [ -e "$prefix" ] && [ ! -e "$prefix/manifest" ] && [ -n "$(ls -A "$prefix")" ]; then
        die "$prefix: holds something else than seccomp-shim (choose another --prefix)"
    fi
    if [ -e "$link" ] || [ -L "$link" ]; then
        case $(readlink "$link") in
            */bin/seccomp-shim) ;;
            *) die "$link: exists and is not ours (move it away, then run this again)" ;;
        esac
    fi
    # With wheels nothing is brought from the system: what it lacks is told before anything is made.
    if [ -n "$wheels" ]; then
        [ -n "$(find "$wheels" -maxdepth 1 -name 'pip-*.whl')" ] || die "--wheels $wheels: no wheel of pip is there"
        need_system
    fi
}

# Can what an earlier run has built there still be run?
works() {
    [ -e "$1/complete" ] && "$1/bin/python" -I -c 'import shim' 2>/dev/null &&
        "$1/bin/seccomp-shim" --version >/dev/null 2>&1
}

# Remove what was begun, unless it says which system packages it has brought.
abandon() {
    [ -z "$building" ] || rm -rf -- "$building"
    if [ -n "$beginning" ]; then
        if grep -q '^package ' "$work/new"; then write_manifest
        else rm -f -- "$prefix/manifest"
        fi
        drop_empty "$prefix/versions"
        drop_empty "$prefix/bin"
        [ "$beginning" = there ] || drop_empty "$prefix"
    fi
    rm -rf -- "$work"
}

install_all() {
    check_place
    begins=there
    [ -e "$prefix" ] || begins=anew
    mkdir -p "$prefix/bin" "$prefix/versions"
    exec 9<"$prefix"
    flock -n 9 || die "$prefix: another install.sh is at work there"
    if [ ! -e "$prefix/manifest" ]; then
        beginning=$begins
        : >"$prefix/manifest"
    fi
    read_extras
    need_system
    version=$prefix/versions/$(version_name)
    previous=$(readlink -e "$prefix/current") || previous=
    if ! works "$version"; then build_version
    elif [ "$version" = "$previous" ]; then say "seccomp-shim in $prefix is up to date"
    else say "Switching seccomp-shim in $prefix to what $here has, which was installed here before"
    fi
    beginning=

    # What engines call stays in its place when versions change, and goes on without one.
    "$version/bin/python" -I -c 'import sys; from pathlib import Path
from shim.engines.registration.hookfile import render_all
render_all(Path(sys.argv[1]))' "$prefix/bin" || die "cannot make the executables in $prefix/bin"
    ln -sfn "${version#"$prefix/"}" "$prefix/current.new"
    mv -fT -- "$prefix/current.new" "$prefix/current"
    ln -sfn ../current/bin/seccomp-shim "$prefix/bin/seccomp-shim"
    mkdir -p "${link%/*}"
    ln -sfn "$prefix/bin/seccomp-shim" "$link"
    write_config
    write_logrotate
    write_timer
    if [ ! -e /var/log/seccomp-shim ]; then
        mkdir -m 0750 /var/log/seccomp-shim
        # Debian's group of log readers; with the bit, files in it are of that group as well.
        chgrp adm /var/log/seccomp-shim 2>/dev/null || true
        chmod 2750 /var/log/seccomp-shim
    fi
    write_manifest
    drop_old_versions
}

# Tell what install_all would do; system packages that are missing are told by install_all itself.
tell_plan() {
    check_place
    read_extras
    if python=$(find_python) && version=$prefix/versions/$(version_name) &&
        works "$version" && [ "$(readlink -e "$prefix/current")" = "$version" ]; then
        say "seccomp-shim in $prefix is up to date"
    else
        say "seccomp-shim would be installed into $prefix"
    fi
}

# --- removing --------------------------------------------------------------------------------

# Engines that still name our executables would fail to start containers.
refuse_while_used() {
    for record in /var/lib/seccomp-shim/engines/*.json; do
        [ -e "$record" ] || continue
        engine=${record##*/}
        die "${engine%.json} still uses it: run  seccomp-shim uninstall ${engine%.json}  first"
    done
    used=$(grep -rlsF -- "$prefix/bin/" /etc/docker /etc/containers /etc/containerd /etc/crio \
        /usr/share/containers /etc/systemd/system | head -n 1) || true
    case $used in
        "") refuse_while_running; return ;;
        /etc/docker/*) engine=docker ;;
        /etc/containerd/*) engine=containerd ;;
        /etc/crio/*) engine=crio ;;
        */containers/*) engine=podman ;;
        *) engine= ;;
    esac
    [ -z "$engine" ] ||
        die "$used: still names $prefix/bin: run  seccomp-shim uninstall $engine  first"
    die "$used: still names $prefix/bin (remove that entry first, then run this again)"
}

# ask QUESTION: have the program tell what it alone can see, a line for each answer. Where it is gone
# or broken, ours here tells: what still uses it must not be passed over for that.
ask() {
    if "$prefix/current/bin/python" -I -c 'import shim.agent.removal' 2>/dev/null; then
        "$prefix/current/bin/python" -I -m shim.agent.removal "$1" 2>/dev/null || true
    else
        (cd "$here" && "$(find_python)" -B -m shim.agent.removal "$1" 2>/dev/null) || true
    fi
}

# An engine that runs has what was taken out of its files until it is restarted, and each exec in a
# container that was started by us calls the program.
refuse_while_running() {
    engine=$(ask running | head -n 1)
    case $engine in
        "") ;;
        docker) die "the running dockerd still starts containers by it: restart dockerd first" ;;
        *)
            die "$engine still has it in memory, or containers run that were started by it:" \
                "restart $engine, end these, then run this again"
            ;;
    esac
}

remove_packages() {
    packages=$(sed -n 's/^package //p' "$prefix/manifest")
    [ -n "$packages" ] || return 0
    # shellcheck disable=SC2086
    case $(package_manager) in
        apt)
            packages=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null |
                sed -n 's/^installed //p')
            [ -n "$packages" ] || return 0
            if dpkg --simulate --purge $packages >/dev/null 2>&1; then dpkg --purge $packages >/dev/null
            else say "Kept, because something else needs them now:" $packages
            fi
            ;;
        dnf)
            if rpm -e --test $packages >/dev/null 2>&1; then rpm -e $packages
            else say "Kept, because something else needs them now:" $packages
            fi
            ;;
        *) ;;
    esac
}

# drop_empty DIR: remove a directory that nothing is in. In a container it can be one that is mounted: such
# a directory cannot be removed there and stays, empty.
drop_empty() { rmdir -- "$1" 2>/dev/null || true; }

# drop DIR: remove a directory with all that is in it.
drop() {
    [ ! -d "$1" ] || find "$1" -mindepth 1 -delete
    drop_empty "$1"
}

remove_config() {
    for twin in json lines; do  # the compiled copies
        ! grep -q '^{"source": *\[\|^settings$' "/etc/seccomp-shim/config.$twin" 2>/dev/null ||
            rm -f "/etc/seccomp-shim/config.$twin"
    done
    recorded=$(sed -n 's/^config //p' "$prefix/manifest" 2>/dev/null) || recorded=
    if [ "$purge" = yes ] || say "$recorded" | sha256sum --check --status 2>/dev/null; then
        rm -f /etc/seccomp-shim/config.yaml
    elif [ -e /etc/seccomp-shim/config.yaml ]; then
        say "Kept: /etc/seccomp-shim/config.yaml (edited; --purge removes it)"
    fi
    drop_empty /etc/seccomp-shim
    left=$(find /etc/seccomp-shim -type f ! -name config.yaml 2>/dev/null) || true
    [ -z "$left" ] || say "Kept, which are not the installation's:" "$left"
}

remove_state() {
    [ -d /var/lib/seccomp-shim ] || return 0
    patched=
    if [ -d /var/lib/seccomp-shim/runs ]; then patched=$(ask patched)
    else rm -f /var/lib/seccomp-shim/fleet.lock
    fi
    if [ -n "$patched" ]; then
        say "These profiles stay as seccomp-shim patched them:"
        say "$patched" | sed 's/^/  /'
    fi
    [ "$purge" = no ] || drop /var/lib/seccomp-shim
    [ -d /var/lib/seccomp-shim ] || return 0
    drop_empty /var/lib/seccomp-shim
    [ -z "$(ls -A /var/lib/seccomp-shim 2>/dev/null)" ] ||
        say "Kept: /var/lib/seccomp-shim, which seccomp-shim rollback needs (--purge removes it)"
}

# name_users: print whose Podman calls us by a file in his home, which stays.
name_users() {
    users=$(ask users)
    [ -n "$users" ] || return 0
    say "Users have registered it for themselves. Podman passes over a program that is gone; these files stay:"
    say "$users" | sed 's/^/  /'
}

remove_logrotate() {
    [ -e "$logrotate" ] || return 0
    recorded=$(sed -n 's/^logrotate //p' "$prefix/manifest" 2>/dev/null) || recorded=
    if [ "$purge" = yes ] || say "$recorded" | sha256sum --check --status 2>/dev/null; then rm -f "$logrotate"
    else say "Kept: $logrotate (edited; --purge removes it)"
    fi
}

remove_log() {
    remove_logrotate
    [ "$purge" = no ] || drop /var/log/seccomp-shim
    [ -d /var/log/seccomp-shim ] || return 0
    drop_empty /var/log/seccomp-shim
    [ -z "$(ls -A /var/log/seccomp-shim 2>/dev/null)" ] ||
        say "Kept: /var/log/seccomp-shim (--purge removes it)"
}

# What an uninstallation without --purge has kept.
purge_kept() {
    kept=$(find /etc/seccomp-shim /var/log/seccomp-shim /var/lib/seccomp-shim "$logrotate" -maxdepth 0 2>/dev/null) || true
    { [ "$purge" = yes ] && [ -n "$kept" ]; } || die "$prefix: no seccomp-shim is installed there"
    linked=$(readlink "$link") || linked=
    for other in /opt/seccomp-shim "${linked%/bin/seccomp-shim}"; do
        [ ! -e "$other/manifest" ] || die "$prefix: no seccomp-shim is installed there, but in $other (--prefix $other)"
    done
    refuse_while_used
    remove_config
    remove_log
    remove_state
    drop /run/seccomp-shim
    say "What was kept of seccomp-shim is removed."
}

uninstall_all() {
    if [ ! -e "$prefix/manifest" ]; then
        purge_kept
        return
    fi
    exec 9<"$prefix"
    flock -n 9 || die "$prefix: another install.sh is at work there"
    refuse_while_used
    name_users
    [ "$(readlink "$link")" != "$prefix/bin/seccomp-shim" ] || rm -f -- "$link"
    remove_config
    remove_log
    remove_timer
    remove_state
    drop /run/seccomp-shim
    remove_packages
    rm -rf -- "$prefix/bin/seccomp-shim" "$prefix"/bin/seccomp-shim-* "$prefix/versions" \
        "$prefix/current" "$prefix/manifest"
    drop_empty "$prefix/bin"
    drop_empty "$prefix"
    [ -z "$(ls -A "$prefix" 2>/dev/null)" ] ||
        say "Kept: $prefix, which holds files that are not seccomp-shim's"
    say "seccomp-shim is removed."
}

# --- the command line ------------------------------------------------------------------------

# The caller's umask, locale and Python settings must not leak into what is installed.
umask 022
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
LC_ALL=C
export PATH LC_ALL
unset CDPATH PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE SOURCE_DATE_EPOCH
unset PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV PIP_NO_COMPILE VIRTUAL_ENV

here=$(cd -- "$(dirname -- "$0")" && pwd -P)
prefix=/opt/seccomp-shim
link=/usr/local/bin/seccomp-shim
logrotate=/etc/logrotate.d/seccomp-shim
units=/etc/systemd/system/seccomp-shim-metrics
textfiles=/var/lib/prometheus/node-exporter
demo=yes
dry_run=no
purge=no
wheels=
extras=
action=install
building=
beginning=

while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --prefix)
            [ $# -ge 2 ] || die "--prefix needs a directory"
            prefix=$2
            shift
            ;;
        --prefix=*) prefix=${1#--prefix=} ;;
        --wheels)
            [ $# -ge 2 ] || die "--wheels needs a directory"
            wheels=$2
            shift
            ;;
        --wheels=*) wheels=${1#--wheels=} ;;
        --with)
            [ $# -ge 2 ] || die "--with needs a name"
            extras=$2
            shift
            ;;
        --with=*) extras=${1#--with=} ;;
        --no-demo) demo=no ;;
        --dry-run) dry_run=yes ;;
        --uninstall) action=uninstall ;;
        --purge) purge=yes ;;
        --python)
            find_python || die "no Python >= 3.11 owned by root in /usr/bin"
            exit 0
            ;;
        *) die "unknown option $1 (--help lists them)" ;;
    esac
    shift
done
for extra in $(say "$extras" | tr , ' '); do
    case $extra in
        fleet | metrics) ;;
        *) die "--with $extras: there are fleet and metrics" ;;
    esac
done
[ "$purge" = no ] || [ "$action" = uninstall ] || die "--purge goes with --uninstall"
[ "$dry_run" = no ] || [ "$action" = install ] || die "--dry-run does not go with --uninstall"
case $prefix in
    / | *[!A-Za-z0-9._/+-]* | */../* | */..) die "--prefix $prefix: not a usable directory name" ;;
    /*) prefix=${prefix%/} ;;
    *) die "--prefix $prefix: must be an absolute path" ;;
esac
[ -z "$wheels" ] || [ -d "$wheels" ] || die "--wheels $wheels: no such directory"
[ -z "$wheels" ] || wheels=$(cd -- "$wheels" && pwd -P)
[ "$(id -u)" = 0 ] || die "needs root: sudo ./install.sh"

work=$(mktemp -d)
trap abandon EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
: >"$work/new"

if [ "$action" = uninstall ]; then
    uninstall_all
    exit 0
fi
if [ "$dry_run" = yes ]; then
    tell_plan
    exit 0
fi
install_all
say "Command: $link    Hook: $prefix/bin/seccomp-shim-hook    Settings: /etc/seccomp-shim/config.yaml"
if [ "$demo" = yes ]; then
    "$link" demo || die "seccomp-shim is installed, but its demo failed (see above; try: seccomp-shim probe)"
    say ''
    "$link" doctor || [ $? -eq 1 ] || say "seccomp-shim doctor could not tell what is next"
fi

#!/bin/sh
# Installs lite on this machine and runs it as a service: docs/install.md says how it is used.
#
#   curl -sfL https://<where lite is>/install.sh | sh -s - [server|agent] [flags of that command]
#
# Everything is looked at before anything is changed; what is new is written beside what is there and renamed; and it may
# be killed at any moment and run again. `sh install.sh --help` names the variables.
set -eu

# The address that releases are served from: `make release` writes it here.
default_base_url=

etc=/etc/lite
inventory=$etc/installed
pending=$etc/install.pending # the service has not been restarted since something was changed
tmp=$etc/install.tmp
drop_in=$etc/config.yaml.d/50-install.yaml
env_file=$etc/lite.env
unit=/etc/systemd/system/lite.service
wanted=/etc/systemd/system/multi-user.target.wants/lite.service
init_script=/etc/init.d/lite
runlevel=/etc/runlevels/default/lite
logrotate=/etc/logrotate.d/lite
ready_timeout=300 # seconds

say() { echo "[lite] $*"; }
warn() { echo "[lite] warning: $*" >&2; }
die() {
	echo "[lite] error: $*" >&2
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

usage() {
	cat <<'END'
Installs lite on this machine and runs it as a service.

  sh install.sh [server|agent] [flags]     flags are those of `lite server` or `lite agent`
  curl -sfL <base>/install.sh | sh -s - [server|agent] [flags]

Without a role it is an agent if LITE_URL is set, a server otherwise. Each flag can also be a variable:
LITE_TOKEN for --token, LITE_NODE_NAME for --node-name. What is said is kept in
/etc/lite/config.yaml.d/50-install.yaml. Run again it changes what is different and restarts the service
only then. Run again with nothing said, it keeps what was said before.

  INSTALL_LITE_EXEC           words to put before the arguments, such as "server --disable metrics"
  INSTALL_LITE_VERSION        the version to install, such as v1.2.3
  INSTALL_LITE_CHANNEL        the channel to take the version from (stable)
  INSTALL_LITE_BASE_URL       where channels and versions are
  INSTALL_LITE_ARTIFACT       a local file (bundle, binary, or a .gz of it) or directory to install from
  INSTALL_LITE_SHA256         the SHA-256 of that file, if there is no SHA256SUMS beside it
  INSTALL_LITE_PUBLIC_KEY     a PEM file: SHA256SUMS must be signed with its key (SHA256SUMS.sig)
  INSTALL_LITE_BIN_DIR        where the commands go (/usr/local/bin)
  INSTALL_LITE_SKIP_DOWNLOAD  true: use the binary that is in that directory
  INSTALL_LITE_SKIP_ENABLE    true: neither start the service nor have it started at boot
  INSTALL_LITE_SKIP_START     true: do not start the service now
END
}

# --- what was said ---------------------------------------------------------------------------------------------------

# on says whether a switch is on.
on() {
	switch=
	eval "switch=\${$1:-}"
	case $switch in
	true | 1 | yes) return 0 ;;
	'' | false | 0 | no) return 1 ;;
	esac
	die "$1 is '$switch': say true or false"
}

check_variables() {
	for name in $(env | sed -n 's/^\(INSTALL_LITE_[A-Za-z0-9_]*\)=.*/\1/p'); do
		case ${name#INSTALL_LITE_} in
		EXEC | VERSION | CHANNEL | BASE_URL | ARTIFACT | SHA256 | PUBLIC_KEY | BIN_DIR) ;;
		SKIP_DOWNLOAD | SKIP_ENABLE | SKIP_START) on "$name" || true ;;
		*) die "there is no variable $name: sh install.sh --help names those there are" ;;
		esac
	done
	for name in $(env | sed -n 's/^\(\(INSTALL_\)\{0,1\}K3S_[A-Z0-9_]*\)=.*/\1/p'); do
		warn "$name is k3s's and not read: lite's would be $(echo "$name" | sed 's/K3S/LITE/')"
	done
	bin_dir=${INSTALL_LITE_BIN_DIR:-/usr/local/bin}
	case $bin_dir in
	*[!A-Za-z0-9/._-]*) die "INSTALL_LITE_BIN_DIR is '$bin_dir': choose a path of letters, digits, '.', '_' and '-'" ;;
	/*) ;;
	*) die "INSTALL_LITE_BIN_DIR is '$bin_dir': say the whole path, from /" ;;
	esac
	bin=$bin_dir/lite
	check_name VERSION v1.2.3
	check_name CHANNEL stable
}

check_name() {
	value=
	eval "value=\${INSTALL_LITE_$1:-}"
	case $value in
	-* | .* | *[!A-Za-z0-9.+_-]*) die "INSTALL_LITE_$1 is '$value': say a name such as $2" ;;
	esac
}

check_machine() {
	[ "$(uname -s)" = Linux ] || die "this is $(uname -s), and lite runs on Linux only: use a Linux machine or a virtual one"
	case $(uname -m) in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) die "this machine is $(uname -m), and there are builds for x86_64 and aarch64: use another machine, or build lite from source" ;;
	esac
	[ "$(id -u)" = 0 ] || die "not root: run it as root, with sudo for instance (… | sudo sh -s - …)"
	for tool in awk cmp df gzip od sed tar xargs; do
		have $tool || die "there is no command $tool: install it (busybox has it)"
	done
	have sha256sum || have shasum || have openssl || die "nothing here can make SHA-256 sums: install sha256sum (coreutils, busybox) or openssl"
}

# decide finds the role. keep means that nothing was said and what was said before goes on.
decide() {
	keep=false role=
	case ${1:-} in
	server | agent) role=$1 ;;
	'' | -*) ;;
	*) die "'$1' is neither server nor agent nor a flag: say sh install.sh [server|agent] [flags]" ;;
	esac
	[ -z "$role" ] || return 0
	role=server
	if [ -n "${LITE_URL:-}" ]; then
		role=agent
	elif [ $# -eq 0 ] && [ -e $drop_in ] && ! env | grep -q '^LITE_[A-Z0-9_]*=.'; then
		# Who only wants the newest version shall not lose what was said before, nor the node its role.
		keep=true
		role=$(sed -n 's/^# role: \(.*\)$/\1/p' $drop_in)
		case $role in server | agent) ;; *) die "$drop_in does not say the role of this node: say server or agent" ;; esac
	fi
}

# --- where it comes from ---------------------------------------------------------------------------------------------

here=
case $0 in
*install.sh) here=$(cd "$(dirname "$0")" && pwd) ;;
esac

# find_source sets source to one of checkout, installed, directory, bundle, file and release; and from to its place.
find_source() {
	if on INSTALL_LITE_SKIP_DOWNLOAD; then
		[ -x "$bin" ] || die "INSTALL_LITE_SKIP_DOWNLOAD is set and there is no $bin: put the binary there first"
		source=installed from=$bin
	elif [ -n "${INSTALL_LITE_ARTIFACT:-}" ]; then
		find_artifact "$INSTALL_LITE_ARTIFACT"
	elif [ -n "${INSTALL_LITE_VERSION:-}${INSTALL_LITE_CHANNEL:-}${INSTALL_LITE_BASE_URL:-}" ]; then
		find_release
	elif [ -n "$here" ] && [ -f "$here/SHA256SUMS" ]; then
		source=directory from=$here
	elif [ -n "$here" ] && [ -f "$here/../go.mod" ]; then
		source=checkout from=$(dirname "$here")/dist/lite
		[ -x "$from" ] || die "there is no $from: run make build in the checkout first"
	else
		find_release
	fi
}

find_artifact() {
	from=$1
	if [ -d "$from" ]; then
		source=directory
		[ -f "$from/SHA256SUMS" ] || die "there is no SHA256SUMS in $from: take the whole directory of a release, or unpack a bundle there"
		return
	fi
	[ -f "$from" ] || die "INSTALL_LITE_ARTIFACT: there is no $from: name a bundle, a binary, or a directory of a release"
	case $(kind "$from") in
	7f45* | 1f8b*) source="file" ;;
	*)
		source=bundle
		member SHA256SUMS >/dev/null 2>&1 || die "$from is neither a bundle nor a binary nor a .gz of one: copy it again, or name another"
		;;
	esac
}

# kind is the first bytes of a file.
kind() { od -An -tx1 -N4 "$1" | tr -d ' \n'; }

# member prints a file of the bundle.
member() {
	name_there=$(tar -tf "$from" | grep -x "\(\./\)\{0,1\}$1") || return 1
	tar -xOf "$from" "$name_there"
}

find_release() {
	source=release
	base=${INSTALL_LITE_BASE_URL:-$default_base_url}
	[ -n "$base" ] || die "where to download lite from is not known: set INSTALL_LITE_BASE_URL, or INSTALL_LITE_ARTIFACT to a file"
	base=${base%/}
	have curl || have wget || die "there is neither curl nor wget to download with: install one, or set INSTALL_LITE_ARTIFACT to a file"
	version=${INSTALL_LITE_VERSION:-}
	if [ -z "$version" ]; then
		channel=${INSTALL_LITE_CHANNEL:-stable}
		fetch "$base/channels/$channel" "$tmp/channel"
		version=$(tr -d ' \r\n' <"$tmp/channel")
		case $version in
		'' | -* | .* | *[!A-Za-z0-9.+_-]*) die "$base/channels/$channel does not hold a version: is INSTALL_LITE_BASE_URL right?" ;;
		esac
		say "channel $channel is at $version"
	fi
	from=$base/$version
}

# fetch downloads a file.
fetch() {
	if have curl; then
		why=$(curl -fsSL --retry 3 --connect-timeout 20 -o "$2" "$1" 2>&1) && return
	else
		why=$(wget -T 30 -O "$2" "$1" 2>&1) && return
	fi
	rm -f "$2"
	die "cannot download $1 ($(echo "$why" | grep . | tail -n 1)): nothing was changed; look at the address, the network and the room in $bin_dir, and try again"
}

# sums makes $tmp/SHA256SUMS, and checks its signature if it must be signed.
sums() {
	key=${INSTALL_LITE_PUBLIC_KEY:-}
	if [ -n "$key" ]; then
		[ -f "$key" ] || die "INSTALL_LITE_PUBLIC_KEY: there is no $key: name a PEM file"
		have openssl || die "INSTALL_LITE_PUBLIC_KEY is set and there is no openssl to check the signature with: install it"
	fi
	if [ $source = file ] && [ -n "${INSTALL_LITE_SHA256:-}" ]; then
		[ -z "$key" ] || die "INSTALL_LITE_SHA256 is not signed: leave it out, and put SHA256SUMS and SHA256SUMS.sig beside $from"
		echo "$INSTALL_LITE_SHA256  $(basename "$from")" >"$tmp/SHA256SUMS"
		return
	fi
	get_sums SHA256SUMS || die "nothing says what $from should be: put SHA256SUMS beside it, or set INSTALL_LITE_SHA256 to its sum"
	[ -n "$key" ] || return 0
	get_sums SHA256SUMS.sig || die "INSTALL_LITE_PUBLIC_KEY is set and SHA256SUMS is not signed: take a release that has SHA256SUMS.sig"
	openssl dgst -sha256 -verify "$key" -signature "$tmp/SHA256SUMS.sig" "$tmp/SHA256SUMS" >/dev/null 2>&1 ||
		die "SHA256SUMS is not signed with the key in $key: nothing was changed; do not use these files, and ask who serves them"
	say "the signature is right"
}

get_sums() {
	case $source in
	release) fetch "$from/$1" "$tmp/$1" ;;
	bundle) member "$1" >"$tmp/$1" ;;
	directory) cp "$from/$1" "$tmp/$1" 2>/dev/null ;;
	file) cp "$(dirname "$from")/$1" "$tmp/$1" 2>/dev/null ;;
	esac
}

# listed prints the sum that SHA256SUMS has for a name, if any.
listed() { awk -v name="$1" '$2 == name || $2 == "*" name || $2 == "./" name { print $1; exit }' "$tmp/SHA256SUMS"; }

# sha256 prints the sum of its input.
sha256() {
	if have sha256sum; then
		sha256sum
	elif have shasum; then
		shasum -a 256
	else
		openssl dgst -sha256 -r
	fi | cut -d ' ' -f 1
}

# verify compares its input with what SHA256SUMS says of a name.
verify() {
	want=$(listed "$1")
	[ -n "$want" ] || die "SHA256SUMS does not name $1: nothing was changed; the release is incomplete, take another"
	got=$(sha256)
	[ "$got" = "$want" ] || die "$1 has the wrong checksum ($got, not $want): nothing was changed; fetch it again, and if that does not help, do not use it"
}

# --- the inventory ---------------------------------------------------------------------------------------------------

# record adds paths to what uninstall removes. It is called before they are made.
record() {
	(
		umask 077
		{
			[ ! -e $inventory ] || cat $inventory
			for path; do echo "$path"; done
		} | awk '!seen[$0]++' >$inventory.new
	) 2>/dev/null || full $etc
	if cmp -s $inventory $inventory.new; then
		rm -f $inventory.new
	else
		mv -f $inventory.new $inventory
	fi
}

# keep_path is for what this run has made or found as it should be.
keep_path() { echo "$1" >>"$tmp/kept"; }

# settle leaves in the inventory what belongs to this installation, and removes what an earlier one made elsewhere.
settle() {
	(umask 077 && sort -u "$tmp/kept" >"$tmp/inventory")
	grep -vxF -f "$tmp/inventory" $inventory >"$tmp/obsolete" || true
	while read -r path; do
		case $path in
		*/) rmdir "$path" 2>/dev/null || true ;;
		*) rm -f "$path" ;;
		esac
	done <"$tmp/obsolete"
	if ! cmp -s "$tmp/inventory" $inventory; then
		cp -p "$tmp/inventory" $inventory.new
		mv -f $inventory.new $inventory
	fi
}

room() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { printf "%d", $4 / 1024 }'; }

full() { die "cannot write to $1 ($(room "$1") MiB are free): nothing was changed; free some room there, or see why it cannot be written"; }

# --- staging: PATH.new beside PATH, renamed at the end -----------------------------------------------------------------

changes='' committed=false made_bin_dir=false

# stage takes the content of a file from its input.
stage() { # <path> <mode>
	(umask 077 && cat >"$tmp/staged") 2>/dev/null || full $etc
	stage_file "$1" "$2"
}

# stage_file puts $tmp/staged beside a file, unless that is as it should be.
stage_file() { # <path> <mode>
	keep_path "$1"
	chmod "$2" "$tmp/staged"
	if cmp -s "$1" "$tmp/staged" && [ "$(mode "$1")" = "$(mode "$tmp/staged")" ]; then
		return 0
	fi
	record "$1" "$1.new"
	changes="$changes $1"
	cp -p "$tmp/staged" "$1.new" 2>/dev/null || full "$(dirname "$1")"
}

# mode is the rwxrwxrwx of a file.
mode() {
	# shellcheck disable=SC2012 # the name is ours, and stat has different flags everywhere
	ls -ld "$1" | cut -c 1-10
}

# unstage leaves the old installation as it was, whatever ends this run.
unstage() {
	code=$?
	trap - EXIT
	for path in $changes $bin $bin.gz; do rm -f "$path.new"; done
	if [ $committed = false ]; then
		[ "$made_bin_dir" = false ] || rmdir "$bin_dir" 2>/dev/null || true
		[ ! -e $tmp/inventory.before ] || cmp -s $tmp/inventory.before $inventory || mv -f $tmp/inventory.before $inventory
		rm -f $inventory.new
	fi
	rm -rf $tmp
	exit $code
}

# stage_binary puts the new binary beside the old one, unless it is the same. new is where it is then.
stage_binary() {
	new=$bin
	keep_path "$bin"
	case $source in
	installed) return 0 ;;
	checkout)
		! cmp -s "$from" "$bin" || return 0
		record "$bin" "$bin.new"
		need_room "$from"
		cp "$from" "$bin.new" 2>/dev/null || full "$bin_dir"
		;;
	*)
		sums
		name=lite-linux-$arch
		[ $source != file ] || name=$(basename "$from")
		want=$(listed "$name")
		if [ -n "$want" ] && [ -e "$bin" ] && [ "$(sha256 <"$bin")" = "$want" ]; then
			return 0
		fi
		record "$bin" "$bin.new" "$bin.gz.new"
		get_binary
		;;
	esac
	if cmp -s "$bin.new" "$bin"; then
		rm -f "$bin.new"
		return 0
	fi
	chmod 755 "$bin.new"
	new=$bin.new
	changes="$changes $bin"
	try_binary
}

# get_binary writes $bin.new.
get_binary() {
	packed=$name.gz
	case $source in
	release)
		say "downloading $from/$packed"
		fetch "$from/$packed" "$bin.gz.new"
		;;
	bundle) member "$packed" >"$bin.gz.new" 2>/dev/null || full "$bin_dir" ;;
	directory)
		if [ ! -f "$from/$packed" ]; then
			copy_binary "$from/$name"
			return
		fi
		cp "$from/$packed" "$bin.gz.new" 2>/dev/null || full "$bin_dir"
		;;
	file)
		case $(kind "$from") in
		7f45*)
			copy_binary "$from"
			return
			;;
		esac
		packed=$name
		cp "$from" "$bin.gz.new" 2>/dev/null || full "$bin_dir"
		;;
	esac
	verify "$packed" <"$bin.gz.new"
	gzip -dc <"$bin.gz.new" >"$bin.new" 2>/dev/null || full "$bin_dir"
	rm -f "$bin.gz.new"
}

copy_binary() {
	[ -f "$1" ] || die "there is no $1 and no $1.gz: take the release for $arch"
	verify "$name" <"$1"
	need_room "$1"
	cp "$1" "$bin.new" 2>/dev/null || full "$bin_dir"
}

# need_room says beforehand what a copy would find out after a while.
need_room() {
	size=$(($(wc -c <"$1") / 1048576 + 1))
	[ "$(room "$bin_dir")" -ge "$size" ] ||
		die "$bin_dir has $(room "$bin_dir") MiB free and lite needs $size: nothing was changed; free some room, or set INSTALL_LITE_BIN_DIR"
}

# try_binary finds a file system that runs nothing, and a file that is no lite.
try_binary() {
	if ! banner=$("$new" version 2>&1); then
		case $banner in
		*[Pp]ermission*) die "$bin_dir does not let programs run (it is mounted noexec, or SELinux forbids it): nothing was changed; set INSTALL_LITE_BIN_DIR" ;;
		esac
		die "the new lite does not run here ($(echo "$banner" | head -n 1)): nothing was changed; is it for $arch?"
	fi
	say "$(echo "$banner" | head -n 1)"
}

# --- the configuration -----------------------------------------------------------------------------------------------

# stage_config has lite itself check what was said, and write it.
stage_config() {
	keep_path $drop_in
	if [ $keep = true ]; then
		effective >/dev/null 2>"$tmp/said" || die "$(first_line): correct that; nothing was changed"
		return
	fi
	rm -f "$tmp/staged"
	"$new" config write "$role" --file $drop_in --to "$tmp/staged" "$@" >"$tmp/said" 2>&1 ||
		die "$(first_line): nothing was changed; \`lite $role --help\` and docs/configuration.md name all flags"
	(umask 077 && mkdir -p "$(dirname $drop_in)") || full $etc
	stage_file $drop_in 600
}

# effective prints the configuration as the files say it.
effective() {
	case $role in
	agent) "$new" config print agent ;;
	server) "$new" config print ;;
	esac
}

first_line() { sed 's/^lite: //' "$tmp/said" | head -n 1; }

# stage_env keeps the proxies of whoever installs: a service does not get them from a login.
stage_env() {
	: >"$tmp/env"
	for name in HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy all_proxy; do
		eval "value=\${$name:-}"
		case $value in
		*\'* | *'
'*) die "$name holds a quote or a line break, which the service's file cannot hold: percent-encode it; nothing was changed" ;;
		?*) echo "$name='$value'" >>"$tmp/env" ;;
		esac
	done
	if [ -s "$tmp/env" ]; then
		stage $env_file 600 <"$tmp/env"
	elif [ $keep = true ] && [ -e $env_file ]; then
		keep_path $env_file
	elif [ -e $env_file ]; then
		changes="$changes $env_file" # settle removes it
	fi
}

# --- the service -----------------------------------------------------------------------------------------------------

find_init() {
	init=none
	if [ -d /run/systemd/system ] && have systemctl; then
		init=systemd
	elif [ -x /sbin/openrc-run ] && have rc-service; then
		init=openrc
	fi
}

stage_service() {
	case $init in
	systemd)
		systemd_unit >"$tmp/file"
		stage $unit 644 <"$tmp/file"
		at_boot=$wanted
		;;
	openrc)
		openrc_service >"$tmp/file"
		stage $init_script 755 <"$tmp/file"
		if [ -d /etc/logrotate.d ]; then
			openrc_logrotate >"$tmp/file"
			stage $logrotate 644 <"$tmp/file"
		fi
		at_boot=$runlevel
		;;
	*) return 0 ;;
	esac
	if ! on INSTALL_LITE_SKIP_ENABLE; then
		record $at_boot
		keep_path $at_boot
	fi
}

systemd_unit() {
	cat <<END
# Written when lite was installed; \`systemctl edit lite\` makes changes that stay.
[Unit]
Description=Kubernetes in one process (lite $role)
After=network-online.target
Wants=network-online.target
# It is tried for as long as the machine runs.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
EnvironmentFile=-$env_file
# A program that an upgrade has put here and that cannot start is put back by the one
# before it.
ExecStartPre=-/bin/sh -c '[ ! -x /etc/lite/upgrading ] || exec /etc/lite/upgrading upgrade resume'
ExecStart=$bin $role
# The shims of pods are in the service's cgroup, and pods outlive lite.
KillMode=process
Delegate=yes
Restart=always
RestartSec=5s
# An agent waits for its server, however long that takes.
TimeoutStartSec=0
# lite gives itself 25 s.
TimeoutStopSec=40s
WatchdogSec=2min
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
END
}

openrc_service() {
	cat <<END
#!/sbin/openrc-run
# Written when lite was installed; settings of yours go into /etc/conf.d/lite.
description="Kubernetes in one process (lite $role)"
supervisor=supervise-daemon
# A program that an upgrade has put here and that cannot start is put back by the one
# before it. That is for each start: start_pre is only for the first one.
command=/bin/sh
command_args="-c '[ ! -x /etc/lite/upgrading ] || /etc/lite/upgrading upgrade resume; exec $bin $role'"
pidfile=/run/lite.pid
output_log=/var/log/lite.log
error_log=/var/log/lite.log
respawn_delay=5
respawn_max=0
# lite gives itself 25 s; pods outlive it.
retry="TERM/40/KILL/5"
rc_cgroup_cleanup=no
rc_ulimit="-n 1048576"

depend() {
	want localmount cgroups
	use net dns logger
	after firewall ntp-client
}

start_pre() {
	if [ -r $env_file ]; then
		set -a
		. $env_file
		set +a
	fi
	return 0
}
END
}

openrc_logrotate() {
	cat <<'END'
/var/log/lite.log {
	weekly
	rotate 4
	size 10M
	compress
	missingok
	notifempty
	copytruncate
}
END
}

stage_scripts() {
	for command in uninstall killall; do
		stage "$bin_dir/lite-$command.sh" 755 <<END
#!/bin/sh
exec $bin $command "\$@"
END
	done
	stage_completion bash /usr/share/bash-completion/completions lite
	stage_completion zsh /usr/share/zsh/vendor-completions _lite
	stage_completion fish /usr/share/fish/vendor_completions.d lite.fish
}

stage_completion() {
	[ -d "$2" ] || return 0
	"$new" completion "$1" >"$tmp/file"
	stage "$2/$3" 644 <"$tmp/file"
}

# link_tools gives lite the names kubectl, crictl and ctr where nobody else has them.
link_tools() {
	for tool in kubectl crictl ctr; do
		link=$bin_dir/$tool
		if [ "$(readlink "$link" 2>/dev/null)" = "$bin" ]; then
			keep_path "$link"
		elif other=$(command -v $tool) && [ "$(readlink "$other")" != "$bin" ]; then
			say "$tool is $other; lite's is \`lite $tool\`"
		elif [ ! -e "$link" ]; then
			record "$link"
			ln -s "$bin" "$link"
			keep_path "$link"
		fi
	done
}

# --- images ----------------------------------------------------------------------------------------------------------

# check_images finds the images that come with the binary, and verifies them.
check_images() {
	images=
	case $source in
	bundle) images=$(tar -tf "$from" | sed -n 's/^\(\.\/\)\{0,1\}\(images\/[^/][^/]*\)$/\2/p') ;;
	directory) images=$(cd "$from" && find images -type f 2>/dev/null) || true ;;
	esac
	for image in $images; do
		print_image "$image" | verify "$image"
	done
}

print_image() {
	case $source in
	bundle) member "$1" ;;
	directory) cat "$from/$1" ;;
	esac
}

# install_images puts images to where lite imports them from, each under its name once it is complete.
install_images() {
	[ -n "$images" ] || return 0
	data=$(effective | sed -n 's/^data-dir: \([^ ]*\).*/\1/p')
	(umask 077 && mkdir -p "$data/agent/images")
	for image in $images; do
		file=$data/agent/images/${image#images/}
		if [ -e "$file" ] && [ "$(sha256 <"$file")" = "$(listed "$image")" ]; then
			continue
		fi
		say "image archive ${image#images/}"
		print_image "$image" >"$file.new" || {
			rm -f "$file.new"
			die "cannot write to $data ($(room "$data") MiB are free): the service was not started; free some room and run the installer again"
		}
		mv -f "$file.new" "$file"
	done
}

# --- doing it --------------------------------------------------------------------------------------------------------

commit() {
	committed=true
	[ -n "$changes" ] || return 0
	: >$pending
	# After a power cut a name must not stand for a file without its content.
	for path in $changes; do
		[ ! -e "$path.new" ] || sync "$path.new" 2>/dev/null || sync || true
	done
	for path in $changes; do
		if [ -e "$path.new" ]; then
			mv -f "$path.new" "$path"
			! have restorecon || restorecon "$path" 2>/dev/null || true
		fi
	done
	new=$bin
	if have getenforce && [ "$(getenforce 2>/dev/null)" = Enforcing ] && ! have restorecon; then
		warn "SELinux is enforcing and there is no restorecon: if the service does not start, run chcon -t bin_t $bin"
	fi
}

start_service() {
	if on INSTALL_LITE_SKIP_ENABLE; then
		[ ! -e $pending ] || [ $init != systemd ] || systemctl daemon-reload
		say "installed; neither started nor enabled, as INSTALL_LITE_SKIP_ENABLE says"
		return
	fi
	case $init in
	none)
		rm -f $pending
		say "installed. There is no init system that lite knows (systemd, OpenRC): start it in the foreground with"
		say "  $bin $role"
		return
		;;
	systemd)
		[ ! -e $pending ] || systemctl daemon-reload
		[ -e $wanted ] || systemctl --quiet enable lite.service
		;;
	openrc) [ -e $runlevel ] || rc-update --quiet add lite default ;;
	esac
	if on INSTALL_LITE_SKIP_START; then
		say "installed; not started, as INSTALL_LITE_SKIP_START says"
		return
	fi
	if [ ! -e $pending ] && running; then
		say "nothing has changed, and the service runs"
		return
	fi
	say "starting the service lite ($role)"
	case $init in
	systemd)
		systemctl reset-failed lite.service 2>/dev/null || true
		before=$(systemctl show -p InvocationID lite.service)
		[ "$before" != InvocationID= ] || before=none
		systemctl --no-block restart lite.service
		;;
	openrc)
		before=$(wc -c 2>/dev/null </var/log/lite.log || echo 0)
		# Left open, the lock would be held for as long as the service runs.
		rc-service --quiet lite restart 9<&- || die "installed, but rc-service does not start lite, for the reason above; correct that and run the installer again"
		;;
	esac
	await_ready
	rm -f $pending
}

running() {
	case $init in
	systemd) systemctl --quiet is-active lite.service ;;
	openrc) rc-service --quiet lite status >/dev/null 2>&1 ;;
	esac
}

# await_ready waits until the node is ready, and says why it is not.
await_ready() {
	end=$(($(date +%s) + ready_timeout))
	while [ "$(date +%s)" -lt $end ]; do
		sleep 1
		${init}_state
		case $state in
		ready)
			say "the node is ready: see lite status$([ "$role" = agent ] || echo ' and lite kubectl get nodes')"
			return
			;;
		failing) die "installed, but the service does not start: $why; correct that and run the installer again ($logs has more)" ;;
		esac
	done
	die "installed, and the service runs, but it is not ready after $ready_timeout s: ${why:-it has not said why} ($logs and lite status say more)"
}

systemd_state() {
	logs="journalctl -u lite" state=starting
	shown=$(systemctl show -p ActiveState,NRestarts,StatusText,InvocationID lite.service)
	case $shown in
	*"$before"*) return 0 ;; # it has not ended yet
	*ActiveState=active*) state=ready ;;
	esac
	why=$(echo "$shown" | sed -n 's/^StatusText=//p')
	restarts=$(echo "$shown" | sed -n 's/^NRestarts=//p')
	if [ $state = starting ] && [ "${restarts:-0}" -ge 2 ]; then
		state=failing
		why=$(journalctl -q -o cat --no-pager -n 50 -u lite.service 2>/dev/null | grep '^lite: \|level=ERROR' | tail -n 1 | sed 's/^lite: //')
	fi
}

openrc_state() {
	logs=/var/log/lite.log state=starting why="lite status says what it waits for"
	if "$bin" status >/dev/null 2>&1; then
		state=ready
		return
	fi
	last=$(tail -c "+$((before + 1))" $logs 2>/dev/null | grep '^lite: ' | tail -n 1)
	if [ -n "$last" ]; then
		state=failing why=${last#lite: }
	fi
}

main() {
	case ${1:-} in
	-h | --help)
		usage
		exit
		;;
	esac
	check_variables
	check_machine
	decide "$@"
	case ${1:-} in server | agent) shift ;; esac

	[ -d $etc ] || (umask 077 && mkdir -p $etc) || full "$(dirname $etc)"
	if have flock; then
		exec 9<$etc
		# One that was killed holds it until the last program that it has started is gone.
		tries=10
		until flock -n 9; do
			[ $tries -gt 0 ] || die "another installation runs on this machine: wait until it ends"
			tries=$((tries - 1))
			sleep 1
		done
	fi
	trap unstage EXIT
	trap 'exit 130' HUP INT TERM
	rm -rf $tmp
	(umask 077 && mkdir $tmp && : >$tmp/kept) || full $etc
	[ -e $inventory ] || (umask 077 && : >$inventory) || full $etc
	cp -p $inventory $tmp/inventory.before || full $etc
	if [ ! -d "$bin_dir" ]; then
		record "$bin_dir/"
		made_bin_dir=true
		mkdir -p "$bin_dir" || full "$(dirname "$bin_dir")"
	fi
	! grep -qxF "$bin_dir/" $inventory 2>/dev/null || keep_path "$bin_dir/"

	find_init
	find_source
	stage_binary
	check_images
	stage_config "$@"
	stage_env
	stage_service
	stage_scripts

	commit
	link_tools
	settle
	install_images
	start_service
}

# Words of INSTALL_LITE_EXEC come before the arguments. Quotes group them as in a shell; nothing is expanded.
if [ -n "${INSTALL_LITE_EXEC:-}" ]; then
	words=$(printf '%s\n' "$INSTALL_LITE_EXEC" | xargs printf '%s\n' 2>/dev/null) ||
		die "INSTALL_LITE_EXEC has a quote that is not closed: $INSTALL_LITE_EXEC"
	count=$#
	old_ifs=$IFS
	IFS='
'
	set -f
	# shellcheck disable=SC2086 # one word per line
	set -- "$@" $words
	set +f
	IFS=$old_ifs
	while [ "$count" -gt 0 ]; do
		first=$1
		shift
		set -- "$@" "$first"
		count=$((count - 1))
	done
fi
main "$@"

#!/bin/sh
# Installs lite on this machine and runs it as a service: docs/install.md says how it is used.
# It finds a lite, verifies copies of its own, never what others could still change, and becomes `lite setup`, which does
# the rest (pkg/install/setup). Nothing is changed before all was looked at. It may be killed and run again.
set -eu
umask 022
# Who has become root by su or with an environment of next to nothing lacks the directories of administrators.
asked_path=${PATH:-}
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# The address that releases are served from: `make release` writes it here.
default_base_url=

etc=/etc/lite inventory=/etc/lite/installed tmp=/etc/lite/install.tmp release_key=/etc/lite/release.pub
died=false bin='' new='' why=''

# echo of some shells takes backslashes for more than they are.
say() { printf '[lite] %s\n' "$*"; }
warn() { printf '[lite] warning: %s\n' "$*" >&2; }
die() { died=true; printf '[lite] error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
room() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { printf "%d", $4 / 1024 }'; }
full() { die "cannot write to $1 ($(room "$1") MiB are free): nothing was changed; free some space there, or find out why it is not writable"; }

usage() {
	cat <<'END'
Installs lite on this machine and runs it as a service.

  sh install.sh [server|agent] [flags]     flags are those of `lite server` or `lite agent`
  curl -sfL <base>/install.sh | sh -s - [server|agent] [flags]

Without a role it is an agent if LITE_URL is set, a server otherwise. Each flag can also be a variable:
LITE_TOKEN for --token, LITE_NODE_NAME for --node-name. The arguments are stored in
/etc/lite/config.yaml.d/50-install.yaml. If you run it again, it changes what is different, and restarts
the service only then. Without arguments, it keeps the previous ones.

  INSTALL_LITE_EXEC           words to put before the arguments, such as "server --disable metrics"
  INSTALL_LITE_VERSION        the version to install, such as v1.2.3
  INSTALL_LITE_CHANNEL        the channel that determines the version (stable)
  INSTALL_LITE_BASE_URL       where channels and versions are
  INSTALL_LITE_ARTIFACT       a local file (bundle, binary, or a .gz of it) or directory to install from
  INSTALL_LITE_SHA256         the SHA-256 of that file, if there is no SHA256SUMS beside it
  INSTALL_LITE_PUBLIC_KEY     a PEM file: SHA256SUMS must be signed with its key, now and from then on; none: forget it
  INSTALL_LITE_BIN_DIR        where the commands go (where they are, or /usr/local/bin)
  INSTALL_LITE_ALLOW_HTTP     true: install a release that is neither signed nor downloaded encrypted
  INSTALL_LITE_SKIP_DOWNLOAD  true: use the binary that is in that directory
  INSTALL_LITE_SKIP_ENABLE    true: neither start the service nor have it started at boot
  INSTALL_LITE_SKIP_START     true: do not start the service now
END
}
on() {
	eval "value=\${$1:-}"
	case $value in true | 1 | yes) return 0 ;; '' | false | 0 | no) return 1 ;; *) die "$1 is '$value': must be true or false" ;; esac
}

check_variables() {
	for name in $(env | sed -n 's/^\(INSTALL_LITE_[A-Za-z0-9_]*\)=.*/\1/p'); do
		case ${name#INSTALL_LITE_} in
		EXEC | VERSION | CHANNEL | BASE_URL | ARTIFACT | SHA256 | PUBLIC_KEY | BIN_DIR) ;;
		SKIP_DOWNLOAD | SKIP_ENABLE | SKIP_START | ALLOW_HTTP) on "$name" || true ;;
		*) die "there is no variable $name: sh install.sh --help lists them" ;;
		esac
	done
	for name in VERSION CHANNEL; do
		eval "value=\${INSTALL_LITE_$name:-}"
		! no_name "$value" || [ -z "$value" ] || die "INSTALL_LITE_$name is '$value': must be a name such as v1.2.3 or stable"
	done
	bin_dir=${INSTALL_LITE_BIN_DIR:-$(sed -n 's|^\(/.*\)/lite-uninstall\.sh$|\1|p' $inventory 2>/dev/null | tail -n 1)}
	bin_dir=$(echo "${bin_dir:-/usr/local/bin}" | sed 's|//*$||')
	case $bin_dir in
	'' | *//* | */./* | */../* | */. | */..) die "INSTALL_LITE_BIN_DIR is '${INSTALL_LITE_BIN_DIR:-}': must be a path such as /opt/lite/bin" ;;
	*[!A-Za-z0-9/._-]*) die "INSTALL_LITE_BIN_DIR is '$bin_dir': must consist of letters, digits, '.', '_' and '-'" ;;
	/*) bin=$bin_dir/lite ;;
	*) die "INSTALL_LITE_BIN_DIR is '$bin_dir': must be an absolute path" ;;
	esac
}
# no_name says whether something cannot be a version or a channel.
no_name() { case $1 in '' | -* | .* | *[!A-Za-z0-9.+_-]*) return 0 ;; *) return 1 ;; esac }

check_machine() {
	[ "$(uname -s)" = Linux ] || die "this is $(uname -s), and lite runs on Linux only: use a Linux machine or a virtual one"
	case $(uname -m) in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) die "this machine is $(uname -m), and there are builds for x86_64 and aarch64: use another machine, or build lite from source" ;;
	esac
	[ "$(id -u)" = 0 ] || die "not root: run it as root, with sudo for instance (… | sudo sh -s - …)"
	for tool in awk cmp df gzip od sed tar; do have $tool || die "there is no command $tool: install it (busybox has it)"; done
	have sha256sum || have shasum || have openssl || die "no command here can compute SHA-256 sums: install sha256sum (coreutils, busybox) or openssl"
}

# lock keeps other installers, and lite upgrade, rollback, uninstall and killall, from changing the installation: all lock
# this directory. What this script becomes has it by the open file.
lock() {
	have flock || warn "there is no command flock (util-linux, busybox): make sure that nothing else installs, upgrades or removes lite meanwhile"
	for try in 0 1 2 3 4 5 6 7 8 9 end; do
		[ -d $etc ] || (umask 077 && mkdir -p $etc) || full "$(dirname $etc)"
		have flock || return 0
		exec 9<$etc
		# An uninstall that had the lock has removed the directory.
		if flock -n 9 && { [ ! -d /proc/self/fd ] || [ "$(inode /proc/self/fd/9/.)" = "$(inode $etc/.)" ]; }; then return; fi
		[ $try = end ] || sleep 1
	done
	die "something else installs, upgrades or removes lite on this machine: wait until it ends"
}
# shellcheck disable=SC2012 # the number only
inode() { ls -di "$1" 2>/dev/null | awk '{ print $1 }'; }
# record adds paths to what uninstall removes, before they are made.
record() {
	# awk of busybox does not notice a full disk, and its sync may take no file.
	(umask 077 && { cat $inventory && printf '%s\n' "$@"; } | awk '!seen[$0]++' | cat >$inventory.new) 2>/dev/null || full $etc
	sync $inventory.new 2>/dev/null || sync
	mv -f $inventory.new $inventory
}

# unstage leaves the machine as it was, whatever has kept this script from becoming lite setup.
unstage() {
	code=$?
	trap - EXIT
	[ "$new" = "$bin" ] || rm -f "$new" "$new.gz"
	[ ! -e $tmp/inventory.before ] || cmp -s $tmp/inventory.before $inventory || mv -f $tmp/inventory.before $inventory
	[ -s $inventory ] || rm -f $inventory
	rm -rf $tmp $inventory.new
	rmdir $etc 2>/dev/null || true # if there was nothing
	case $code$died in
	130*) echo "[lite] interrupted: run the installer again to complete it" >&2 ;;
	[1-9]*false) echo "[lite] error: something failed unexpectedly, see above; fix it and run the installer again" >&2 ;;
	esac
	exit "$code"
}

# find_source sets source to one of checkout, installed, directory, bundle, file and release; from to the place of its
# files; and name to what the program is called there.
find_source() {
	name=lite-linux-$arch here=''
	case $0 in *install.sh) here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) ;; esac
	if on INSTALL_LITE_SKIP_DOWNLOAD; then
		[ -x "$bin" ] || die "INSTALL_LITE_SKIP_DOWNLOAD is set and there is no $bin: put the binary there first"
		source=installed from=$bin
	elif [ -n "${INSTALL_LITE_ARTIFACT:-}" ]; then
		find_artifact "$INSTALL_LITE_ARTIFACT"
	elif [ -n "${INSTALL_LITE_VERSION:-}${INSTALL_LITE_CHANNEL:-}${INSTALL_LITE_BASE_URL:-}" ]; then
		find_release
	elif [ -n "$here" ] && [ -f "$here/SHA256SUMS" ]; then
		source=directory from=$here
	elif [ -n "$here" ] && grep -qs '^module lite\.io/lite$' "$here/../go.mod"; then
		source=checkout from=$(dirname "$here")/dist name=lite
		[ -x "$from/lite" ] || die "there is no $from/lite: run make build in the checkout first"
	else
		find_release
	fi
}
find_artifact() {
	case $1 in -*) from=./$1 ;; *) from=$1 ;; esac
	source=directory
	if [ -d "$from" ]; then
		[ -f "$from/SHA256SUMS" ] || die "there is no SHA256SUMS in $from: use the whole directory of a release, or unpack a bundle there"
		return
	fi
	[ -f "$from" ] || die "INSTALL_LITE_ARTIFACT: there is no $from: use a bundle, a binary, or a directory of a release"
	case $(kind "$from") in
	7f45* | 1f8b*) source="file" name=$(basename "$from") from=$(dirname "$from") ;;
	*) source=bundle && { member SHA256SUMS >/dev/null 2>&1 || die "$from is neither a bundle nor a binary nor a .gz of one: copy it again, or use another one"; } ;;
	esac
}
# kind is the first bytes of a file: 7f45 begins a program, 1f8b what gzip has compressed. member is a file of the bundle.
kind() { od -An -tx1 -N4 "$1" | tr -d ' \n'; }
member() {
	name_there=$(tar -tf "$from" | grep -x "\(\./\)\{0,1\}$1") || return 1
	tar -xOf "$from" "$name_there"
}

find_release() {
	source=release
	base=${INSTALL_LITE_BASE_URL:-$default_base_url}
	[ -n "$base" ] || die "the address to download lite from is not known: set INSTALL_LITE_BASE_URL, or INSTALL_LITE_ARTIFACT to a file"
	base=${base%/}
	case $base in
	*[[:space:]]*) die "INSTALL_LITE_BASE_URL contains white space: must be a URL such as https://example.org/lite" ;;
	https://?* | http://127.0.0.1 | http://127.0.0.1[:/]* | http://localhost | http://localhost[:/]* | 'http://[::1]' | 'http://[::1]'[:/]*) ;;
	http://?*)
		[ -n "$key" ] || on INSTALL_LITE_ALLOW_HTTP ||
			die "$(shown "$base") is not encrypted, so anybody on the way could change what runs as root here: use https, or INSTALL_LITE_PUBLIC_KEY, or set INSTALL_LITE_ALLOW_HTTP=true"
		;;
	*) die "INSTALL_LITE_BASE_URL is '$base': must be a URL that begins with https:// or http://" ;;
	esac
	have curl || have wget || die "there is neither curl nor wget to download with: install one, or set INSTALL_LITE_ARTIFACT to a file"
	version=${INSTALL_LITE_VERSION:-}
	if [ -z "$version" ]; then
		channel=${INSTALL_LITE_CHANNEL:-stable}
		from=$base/channels
		must_take "$channel" $tmp/channel
		version=$(tr -d ' \r\n' <$tmp/channel)
		! no_name "$version" || die "$(shown "$base")/channels/$channel does not contain a version: is INSTALL_LITE_BASE_URL correct?"
		say "channel $channel is at $version"
	fi
	from=$base/$version
}
# shown is a URL without the password in it.
shown() { printf '%s\n' "$1" | sed 's|^\([a-z]*://\)[^/@]*@|\1|'; }
# take copies a file of the source. A download that fails has set why.
take() { # <name> <to>
	why='' secure=''
	case $source$from in
	releasehttps:*) secure="--proto =https --proto-redir =https --tlsv1.2" ;;
	bundle*) member "$1" >"$2" 2>/dev/null || return 1 && return 0 ;;
	[!r]*) cp "$from/$1" "$2" 2>/dev/null || return 1 && return 0 ;; # from a directory
	esac
	if have curl; then
		# shellcheck disable=SC2086 # two words, or none
		why=$(curl -gfsSL $secure --retry 3 --connect-timeout 20 --speed-limit 1 --speed-time 60 -o "$2" "$from/$1" 2>&1) && return
	else
		why=$(wget -T 30 -O "$2" "$from/$1" 2>&1) && return
	fi
	rm -f "$2"
	why=$(echo "$why" | grep . | tail -n 1)
	case $why in *[Cc]ertificate*) why="$why; the clock of this machine shows $(date -u)" ;; esac
	return 1
}
must_take() {
	take "$1" "$2" && return
	[ $source = release ] || full "$(dirname "$2")"
	die "cannot download $(shown "$from/$1") ($why): nothing was changed; check the address, the network and the space in $bin_dir, and try again"
}

# find_key sets key to the file of the key that releases must be signed with, if any: the one that is named, or else the
# one of the time before. pem is what is in it, where nobody else can change it.
find_key() {
	key=${INSTALL_LITE_PUBLIC_KEY:-} pem=$tmp/key
	case $key in
	none) key='' ;;
	'') [ ! -e $release_key ] || key=$release_key pem=$release_key ;;
	*)
		[ -f "$key" ] || die "INSTALL_LITE_PUBLIC_KEY: there is no $key: use a PEM file"
		have openssl || die "INSTALL_LITE_PUBLIC_KEY is set and there is no openssl to check the signature with: install it"
		openssl pkey -pubin -in "$key" -pubout >$pem 2>/dev/null ||
			die "INSTALL_LITE_PUBLIC_KEY: $key is not a public key in PEM form: make one from the private key with openssl pkey -pubout"
		case $(openssl pkey -pubin -in $pem -noout -text 2>/dev/null) in
		ED* | X*) die "INSTALL_LITE_PUBLIC_KEY: $key is neither an RSA nor an EC key, and no other kind can sign a SHA-256: create one of these" ;;
		esac
		;;
	esac
}
# sums makes $tmp/SHA256SUMS, and checks its signature if it must be signed.
sums() {
	forget="or set INSTALL_LITE_PUBLIC_KEY=none to skip signatures from now on"
	if [ $source = file ] && [ -n "${INSTALL_LITE_SHA256:-}" ]; then
		[ -z "$key" ] || die "INSTALL_LITE_SHA256 is not signed, and must be, with the key in $key: omit it, and put SHA256SUMS and SHA256SUMS.sig beside $from/$name, $forget"
		echo "$INSTALL_LITE_SHA256  $name" >$tmp/SHA256SUMS
		return
	fi
	[ $source != file ] || [ -f "$from/SHA256SUMS" ] || die "there is no checksum for $from/$name: put SHA256SUMS beside it, or set INSTALL_LITE_SHA256 to its sum"
	must_take SHA256SUMS $tmp/SHA256SUMS
	[ -n "$key" ] || return 0
	have openssl || die "releases must be signed with the key in $key, and there is no openssl to check that with: install it, $forget"
	take SHA256SUMS.sig $tmp/SHA256SUMS.sig || die "SHA256SUMS is not signed${why:+, or its signature cannot be downloaded ($why)}, and must be, with the key in $key: use a release that has SHA256SUMS.sig, $forget"
	openssl dgst -sha256 -verify $pem -signature $tmp/SHA256SUMS.sig $tmp/SHA256SUMS >/dev/null 2>&1 ||
		die "SHA256SUMS is not signed with the key in $key: nothing was changed; do not use these files, and ask whoever serves them. If they have a new key, set its file in INSTALL_LITE_PUBLIC_KEY"
	say "the signature is valid"
}

# listed prints the sum that SHA256SUMS has for a name, if any; sha256 that of its input.
listed() { awk -v name="$1" '{ sub(/\r$/, "") } $2 == name || $2 == "*" name || $2 == "./" name { print tolower($1); exit }' $tmp/SHA256SUMS; }
sha256() { { sha256sum 2>/dev/null || shasum -a 256 2>/dev/null || openssl dgst -sha256 -r; } | cut -d ' ' -f 1; }
# verify compares a copy of a file with what SHA256SUMS says of its name.
verify() { # <name> <copy>
	named "$1"
	is=$(sha256 <"$2")
	[ "$is" = "$(listed "$1")" ] || die "$1 has the wrong checksum ($is, not $(listed "$1")): nothing was changed; download it again, and if that does not help, do not use it"
}
named() { [ -n "$(listed "$1")" ] || die "SHA256SUMS does not name $1: nothing was changed; the release is incomplete, use another one"; }

# stage sets new to the program that is to be installed: a copy beside its place, or what is there if it is the same.
stage() {
	new=$bin dir=$bin_dir
	if { [ -e "$bin" ] || [ -L "$bin" ]; } && ! grep -qxF -e "$bin" $inventory && { [ ! -f "$bin" ] || ! grep -qF lite.io/lite/cmd/lite "$bin"; }; then
		die "there already is a $bin, which is not lite's: nothing was changed; move it away, or set INSTALL_LITE_BIN_DIR"
	fi
	case $source in
	installed) return 0 ;;
	checkout) ! cmp -s "$from/$name" "$bin" || return 0 ;;
	*)
		sums
		want=$(listed "$name")
		[ -z "$want" ] || [ ! -e "$bin" ] || [ "$(sha256 <"$bin")" != "$want" ] || return 0
		;;
	esac
	while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done # which lite setup makes
	new=${dir%/}/lite.new
	record "$new" "$new.gz"
	rm -f "$new" "$new.gz" # it may be a link
	get_program
	chmod 755 "$new"
	! cmp -s "$new" "$bin" || { rm -f "$new" && new=$bin; }
}
get_program() {
	packed=$name.gz
	case $source in
	bundle) ;;
	release) named "$packed" && say "downloading $(shown "$from")/$packed" ;;
	*)
		[ $source = directory ] && [ -f "$from/$packed" ] || packed=$name
		[ -f "$from/$packed" ] || die "there is no $from/$name and no $from/$name.gz: use the release for $arch"
		size=$(($(wc -c <"$from/$packed") / 1048576 + 1))
		[ "$(room "$dir")" -ge $size ] || case $(kind "$from/$packed") in 7f45*)
			die "$dir has $(room "$dir") MiB free and lite needs $size: nothing was changed; free some space, or set INSTALL_LITE_BIN_DIR" ;;
		esac
		;;
	esac
	must_take "$packed" "$new.gz"
	[ $source = checkout ] || verify "$packed" "$new.gz"
	case $(kind "$new.gz") in 1f8b*) ;; *) mv "$new.gz" "$new" && return ;; esac
	gzip -dc <"$new.gz" >"$new" 2>/dev/null || { gzip -t <"$new.gz" 2>/dev/null && full "$dir"; } ||
		die "$packed is damaged, though its checksum is correct: nothing was changed; use another release"
	rm -f "$new.gz"
}

main() {
	case ${1:-} in -h | --help) usage && exit ;; esac
	check_variables
	check_machine
	lock
	trap unstage EXIT
	trap 'exit 130' HUP INT TERM
	(umask 077 && rm -rf $tmp $inventory.new && mkdir $tmp && { [ -e $inventory ] || : >$inventory; } && cp -p $inventory $tmp/inventory.before) 2>/dev/null || full $etc
	find_key
	find_source
	stage
	case $source$new in
	"$source$bin") ;;
	release* | directory*) # what is said about a new program beside it, for lite setup to look at
		list=$(awk '{ sub(/\r$/, ""); sub(/^([*]|[.]\/)/, "", $2) } $2 ~ /^lite-[A-Za-z0-9.-]*[.](cdx|provenance)[.]json$/ { print $2 }' $tmp/SHA256SUMS)
		for name in $list; do
			take "$name" "$tmp/$name" || [ $source = directory ] || warn "cannot download $(shown "$from")/$name ($why): not checked"
		done
		;;
	esac
	# Now that it is verified, it is run.
	said=$("$new" setup --help 2>&1) || case $said in
	*[Pp]ermission*) die "$bin_dir does not allow programs to run (it is mounted noexec, or SELinux forbids it): nothing was changed; set INSTALL_LITE_BIN_DIR" ;;
	*unknown\ command*) die "this installer is newer than the lite to install, which has no setup: nothing was changed; use the install.sh of its release" ;;
	*) die "the new lite does not run here ($(echo "$said" | head -n 1)): nothing was changed; is it for $arch?" ;;
	esac
	INSTALL_LITE_ARTIFACT='' INSTALL_LITE_VERSION='' INSTALL_LITE_BIN_DIR=$bin_dir PATH=$asked_path
	case $source in bundle | directory) INSTALL_LITE_ARTIFACT=$from ;; release) INSTALL_LITE_VERSION=$version ;; esac
	export INSTALL_LITE_ARTIFACT INSTALL_LITE_VERSION INSTALL_LITE_BIN_DIR
	exec "$new" setup --staged "$@"
}
main "$@"

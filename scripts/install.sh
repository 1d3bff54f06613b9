#!/bin/sh
# Installs lite on this machine and runs it as a service: docs/install.md says how it is used.
#
#   curl -sfL https://<where lite is>/install.sh | sh -s - [server|agent] [flags of that command]
#
# Everything is looked at before anything is changed; what is new is written beside what is there and renamed; and it may
# be killed at any moment and run again. `sh install.sh --help` names the variables.
set -eu
umask 022
# Who has become root by su or with an environment of next to nothing lacks the directories of administrators.
asked_path=${PATH:-}
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# The address that releases are served from: `make release` writes it here.
default_base_url=

etc=/etc/lite
inventory=$etc/installed
pending=$etc/install.pending # the service has not been restarted since something was changed
tmp=$etc/install.tmp
drop_in=$etc/config.yaml.d/50-install.yaml
env_file=$etc/lite.env
release_key=$etc/release.pub # what releases must be signed with
unit=/etc/systemd/system/lite.service
wanted=/etc/systemd/system/multi-user.target.wants/lite.service
init_script=/etc/init.d/lite
runlevel=/etc/runlevels/default/lite
logrotate=/etc/logrotate.d/lite
scopes=/etc/systemd/system/cri-containerd-.scope.d
ready_timeout=300 # seconds

# echo of some shells takes backslashes for more than they are.
say() { printf '[lite] %s\n' "$*"; }
warn() { printf '[lite] warning: %s\n' "$*" >&2; }
die() {
	died=true
	printf '[lite] error: %s\n' "$*" >&2
	exit 1
}
died=false
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
  INSTALL_LITE_PUBLIC_KEY     a PEM file: SHA256SUMS must be signed with its key (SHA256SUMS.sig), also the next
                              time; none: forget the key
  INSTALL_LITE_BIN_DIR        where the commands go (where they are, or /usr/local/bin)
  INSTALL_LITE_ALLOW_HTTP     true: take a release that is neither signed nor encrypted on its way
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
		SKIP_DOWNLOAD | SKIP_ENABLE | SKIP_START | ALLOW_HTTP) on "$name" || true ;;
		*) die "there is no variable $name: sh install.sh --help names those there are" ;;
		esac
	done
	for name in $(env | sed -n 's/^\(\(INSTALL_\)\{0,1\}K3S_[A-Z0-9_]*\)=.*/\1/p'); do
		warn "$name is k3s's and not read: lite's would be $(echo "$name" | sed 's/K3S/LITE/')"
	done
	bin_dir=${INSTALL_LITE_BIN_DIR:-}
	[ -n "$bin_dir" ] || bin_dir=$(sed -n 's|^\(/.*\)/lite-uninstall\.sh$|\1|p' $inventory 2>/dev/null | tail -n 1)
	bin_dir=$(echo "${bin_dir:-/usr/local/bin}" | sed 's|//*$||')
	case $bin_dir in
	'' | *//* | */./* | */../* | */. | */..) die "INSTALL_LITE_BIN_DIR is '${INSTALL_LITE_BIN_DIR:-}': say a path such as /opt/lite/bin" ;;
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
	for tool in awk cmp df gzip od readlink sed tar xargs; do
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
*install.sh) here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) ;;
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
	elif [ -n "$here" ] && grep -qs '^module lite\.io/lite$' "$here/../go.mod"; then
		source=checkout from=$(dirname "$here")/dist/lite
		[ -x "$from" ] || die "there is no $from: run make build in the checkout first"
	else
		find_release
	fi
}

find_artifact() {
	from=$1
	case $from in -*) from=./$from ;; esac
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
	case $base in
	*[[:space:]]*) die "INSTALL_LITE_BASE_URL holds white space: say a URL such as https://example.org/lite" ;;
	https://?* | http://127.0.0.1 | http://127.0.0.1[:/]* | http://localhost | http://localhost[:/]* | 'http://[::1]' | 'http://[::1]'[:/]*) ;;
	http://?*)
		[ -n "$key" ] || on INSTALL_LITE_ALLOW_HTTP ||
			die "$(shown "$base") is not encrypted, so that anybody on the way could change what is run as root here: use https, or INSTALL_LITE_PUBLIC_KEY, or set INSTALL_LITE_ALLOW_HTTP=true"
		;;
	*) die "INSTALL_LITE_BASE_URL is '$base': say a URL that begins with https:// or http://" ;;
	esac
	have curl || have wget || die "there is neither curl nor wget to download with: install one, or set INSTALL_LITE_ARTIFACT to a file"
	version=${INSTALL_LITE_VERSION:-}
	if [ -z "$version" ]; then
		channel=${INSTALL_LITE_CHANNEL:-stable}
		fetch "$base/channels/$channel" "$tmp/channel"
		version=$(tr -d ' \r\n' <"$tmp/channel")
		case $version in
		'' | -* | .* | *[!A-Za-z0-9.+_-]*) die "$(shown "$base")/channels/$channel does not hold a version: is INSTALL_LITE_BASE_URL right?" ;;
		esac
		say "channel $channel is at $version"
	fi
	from=$base/$version
}

# shown is a URL without the password in it.
shown() { printf '%s\n' "$1" | sed 's|^\([a-z]*://\)[^/@]*@|\1|'; }

# get downloads a file, or sets why.
get() {
	secure=
	case $1 in https:*) secure="--proto =https --proto-redir =https --tlsv1.2" ;; esac
	if have curl; then
		# shellcheck disable=SC2086 # two words, or none
		why=$(curl -gfsSL $secure --retry 3 --connect-timeout 20 --speed-limit 1 --speed-time 60 -o "$2" "$1" 2>&1) && return
	else
		why=$(wget -T 30 -O "$2" "$1" 2>&1) && return
	fi
	rm -f "$2"
	why=$(echo "$why" | grep . | tail -n 1)
	case $why in *[Cc]ertificate*) why="$why; the clock of this machine says $(date -u)" ;; esac
	return 1
}

# fetch downloads a file that must be there.
fetch() {
	get "$1" "$2" ||
		die "cannot download $(shown "$1") ($why): nothing was changed; look at the address, the network and the room in $bin_dir, and try again"
}

# find_key sets key to the file of the key that releases must be signed with, if any: the one that is named, or else
# the one of the time before.
find_key() {
	key=${INSTALL_LITE_PUBLIC_KEY:-}
	case $key in
	none) key= ;;
	'')
		[ ! -e $release_key ] || key=$release_key
		;;
	*)
		[ -f "$key" ] || die "INSTALL_LITE_PUBLIC_KEY: there is no $key: name a PEM file"
		have openssl || die "INSTALL_LITE_PUBLIC_KEY is set and there is no openssl to check the signature with: install it"
		public "$key" >/dev/null || die "INSTALL_LITE_PUBLIC_KEY: $key is no public key in PEM form: make one of the private key with openssl pkey -pubout"
		case $(openssl pkey -pubin -in "$key" -noout -text 2>/dev/null) in
		ED* | X*) die "INSTALL_LITE_PUBLIC_KEY: $key is neither an RSA nor an EC key, and no other kind signs a SHA-256: make one of these" ;;
		esac
		;;
	esac
}

# public prints a public key and nothing else that may be in its file.
public() { openssl pkey -pubin -in "$1" -pubout 2>/dev/null; }

# stage_key remembers the key for the next time, and for lite upgrade.
stage_key() {
	if [ "$key" = $release_key ]; then
		keep_path $release_key
	elif [ -n "$key" ]; then
		produce public "$key"
		stage $release_key 644 <"$tmp/file"
	elif [ -e $release_key ]; then
		record $release_key # and settle removes it
	fi
}

# sums makes $tmp/SHA256SUMS, and checks its signature if it must be signed.
sums() {
	forget="or set INSTALL_LITE_PUBLIC_KEY=none to do without from now on"
	if [ $source = file ] && [ -n "${INSTALL_LITE_SHA256:-}" ]; then
		[ -z "$key" ] || die "INSTALL_LITE_SHA256 is not signed, and $key says that it must be: leave it out, and put SHA256SUMS and SHA256SUMS.sig beside $from, $forget"
		echo "$INSTALL_LITE_SHA256  $(basename "$from")" >"$tmp/SHA256SUMS"
		return
	fi
	if [ $source = release ]; then
		fetch "$from/SHA256SUMS" "$tmp/SHA256SUMS"
	else
		copy_sums SHA256SUMS || die "nothing says what $from should be: put SHA256SUMS beside it, or set INSTALL_LITE_SHA256 to its sum"
	fi
	[ -n "$key" ] || return 0
	have openssl || die "releases must be signed with the key in $key, and there is no openssl to check that with: install it, $forget"
	if [ $source = release ]; then
		get "$from/SHA256SUMS.sig" "$tmp/SHA256SUMS.sig" || die "SHA256SUMS is not signed, or its signature cannot be downloaded ($why), and $key says that it must be: take a release that has SHA256SUMS.sig, $forget"
	else
		copy_sums SHA256SUMS.sig || die "SHA256SUMS is not signed, and $key says that it must be: take a release that has SHA256SUMS.sig, $forget"
	fi
	openssl dgst -sha256 -verify "$key" -signature "$tmp/SHA256SUMS.sig" "$tmp/SHA256SUMS" >/dev/null 2>&1 ||
		die "SHA256SUMS is not signed with the key in $key: nothing was changed; do not use these files, and ask who serves them. If they have a new key, name its file in INSTALL_LITE_PUBLIC_KEY"
	say "the signature is right"
}

copy_sums() {
	case $source in
	bundle) member "$1" >"$tmp/$1" ;;
	directory) cp "$from/$1" "$tmp/$1" 2>/dev/null ;;
	file) cp "$(dirname "$from")/$1" "$tmp/$1" 2>/dev/null ;;
	esac
}

# listed prints the sum that SHA256SUMS has for a name, if any.
listed() {
	awk -v name="$1" '{ sub(/\r$/, "") } $2 == name || $2 == "*" name || $2 == "./" name { print tolower($1); exit }' "$tmp/SHA256SUMS"
}

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

# verify compares a sum with what SHA256SUMS says of a name.
verify() { # <name> <sum>
	want=$(listed "$1")
	must_name "$1"
	[ "$2" = "$want" ] || die "$1 has the wrong checksum ($2, not $want): nothing was changed; fetch it again, and if that does not help, do not use it"
}

must_name() {
	[ -n "$(listed "$1")" ] || die "SHA256SUMS does not name $1: nothing was changed; the release is incomplete, take another"
}

# --- the inventory ---------------------------------------------------------------------------------------------------

# record adds paths to what uninstall removes. It is called before they are made.
record() {
	(
		umask 077
		{
			[ ! -e $inventory ] || cat $inventory
			for path; do echo "$path"; done
		} | awk '!seen[$0]++' | cat >$inventory.new # awk of busybox does not notice a full disk
	) 2>/dev/null || full $etc
	if cmp -s $inventory $inventory.new; then
		rm -f $inventory.new
	else
		flush $inventory.new
		mv -f $inventory.new $inventory
	fi
}

recorded() { grep -qxF -e "$1" $inventory; }

# keep_path is for what this run has made or found as it should be.
keep_path() { { echo "$1" >>"$tmp/kept"; } 2>/dev/null || full $etc; }

# flush writes a file to the disk: after a power cut a name must not stand for a file without its content.
flush() { sync "$1" 2>/dev/null || sync || true; }

# settle leaves in the inventory what belongs to this installation, and removes what an earlier one made elsewhere.
settle() {
	(umask 077 && sort -u "$tmp/kept" | cat >"$tmp/inventory")
	# What is in a directory goes before it.
	grep -vxF -f "$tmp/inventory" $inventory | sort -r | cat >"$tmp/obsolete"
	while read -r path; do
		case $path in
		*/) rmdir "$path" 2>/dev/null || true ;;
		*/kubectl | */crictl | */ctr)
			# Somebody may have put a program of his own where the link was.
			case $(readlink "$path") in */lite) rm -f "$path" ;; esac
			;;
		*) rm -f "$path" ;;
		esac
	done <"$tmp/obsolete"
	if ! cmp -s "$tmp/inventory" $inventory; then
		cp -p "$tmp/inventory" $inventory.new
		flush $inventory.new
		mv -f $inventory.new $inventory
	fi
}

room() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { printf "%d", $4 / 1024 }'; }

full() { die "cannot write to $1 ($(room "$1") MiB are free): nothing was changed; free some room there, or see why it cannot be written"; }

# --- staging: PATH.new beside PATH, renamed at the end -----------------------------------------------------------------

changes='' committed=false made_dirs=

# make_dir makes a directory and those that it is in.
make_dir() {
	[ "$1" != / ] || return 0
	make_dir "$(dirname "$1")"
	if [ ! -d "$1" ]; then
		record "$1/"
		mkdir "$1" 2>/dev/null || full "$(dirname "$1")"
		made_dirs="$1 $made_dirs"
	fi
	! recorded "$1/" || keep_path "$1/"
}

# spare refuses to replace what somebody else has put there. What lite has put there is in the inventory, or it is a
# program or service that says so.
spare() { # <path> <words that are in lite's>
	[ -e "$1" ] || [ -L "$1" ] || return 0
	[ "$(readlink "$1")" != /dev/null ] || die "$(basename "$1") is masked: nothing was changed; run systemctl unmask $(basename "$1") and try again"
	! grep -qxF -e "$1" "$tmp/inventory.before" || return 0
	[ ! -f "$1" ] || ! grep -qF -e "$2" "$1" || return 0
	die "there is a $1 already and it is not lite's: nothing was changed; move it away$3"
}

# produce keeps what a command prints.
produce() { "$@" >"$tmp/file" 2>/dev/null || full $etc; }

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
		for path in $made_dirs; do rmdir "$path" 2>/dev/null || true; done
		[ ! -e $tmp/inventory.before ] || cmp -s $tmp/inventory.before $inventory || mv -f $tmp/inventory.before $inventory
		rm -f $inventory.new
		[ -s $inventory ] || rm -f $inventory
	fi
	rm -rf $tmp
	rmdir $etc 2>/dev/null || true # if there was nothing
	case $code$died in
	0* | *true) ;;
	130*) echo "[lite] interrupted: run the installer again to complete it" >&2 ;;
	*) echo "[lite] error: something failed that must not, see above; run the installer again when that is mended" >&2 ;;
	esac
	exit "$code"
}

# stage_binary puts the new binary beside the old one, unless it is the same. new is where it is then.
stage_binary() {
	new=$bin
	keep_path "$bin"
	spare "$bin" lite.io/lite/cmd/lite ", or set INSTALL_LITE_BIN_DIR"
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
	check_statements
}

# check_statements looks at what is said about the new program beside it, its bill of materials and its provenance,
# where they are: SHA256SUMS, which may be signed, must name them as they are, and they must be about this program.
check_statements() {
	case $source in release | directory) ;; *) return 0 ;; esac
	statements=$(awk '{ sub(/\r$/, ""); sub(/^[*]/, "", $2); sub(/^[.]\//, "", $2) } $2 ~ /^lite-[A-Za-z0-9.-]*[.](cdx|provenance)[.]json$/ { print $2 }' "$tmp/SHA256SUMS")
	[ -z "$statements" ] || program=$(sha256 <"$new")
	for statement in $statements; do
		case $source in
		release)
			if ! get "$from/$statement" "$tmp/statement"; then
				warn "cannot download $(shown "$from")/$statement ($why): not looked at"
				continue
			fi
			;;
		directory) cp "$from/$statement" "$tmp/statement" 2>/dev/null || continue ;;
		esac
		verify "$statement" "$(sha256 <"$tmp/statement")"
		grep -q "\"$program\"" "$tmp/statement" ||
			die "$statement is about another program than the one beside it: nothing was changed; do not use these files, and ask who serves them"
		say "$statement is about this program$(sed -n 's/^ *"gitCommit": "\([0-9a-f]*\)".*/, built from commit \1/p' "$tmp/statement")"
	done
}

# get_binary writes $bin.new.
get_binary() {
	packed=$name.gz
	case $source in
	release)
		must_name "$packed"
		say "downloading $(shown "$from")/$packed"
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
	verify "$packed" "$(sha256 <"$bin.gz.new")"
	if ! gzip -dc <"$bin.gz.new" >"$bin.new" 2>/dev/null; then
		gzip -t <"$bin.gz.new" 2>/dev/null || die "$packed is damaged, though its checksum is right: nothing was changed; take another release"
		full "$bin_dir"
	fi
	rm -f "$bin.gz.new"
}

copy_binary() {
	[ -f "$1" ] || die "there is no $1 and no $1.gz: take the release for $arch"
	need_room "$1"
	cp "$1" "$bin.new" 2>/dev/null || full "$bin_dir"
	verify "$name" "$(sha256 <"$bin.new")" # the copy: who owns the original may change it meanwhile
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
	banner=$(echo "$banner" | head -n 1)
	# A signature says that somebody made these files, not that they are the version that was asked for.
	if [ $source = release ]; then
		case $banner in
		"lite $version "*) ;;
		*) die "what is served as lite $version is ${banner%% (*}: nothing was changed; do not use these files, and ask who serves them" ;;
		esac
	fi
	say "$banner"
}

# --- the configuration -----------------------------------------------------------------------------------------------

# stage_config has lite itself check what was said, and write it.
stage_config() {
	keep_path $drop_in
	if [ $keep = true ]; then
		# It is not written, but must be right for the lite that is installed now.
		"$new" config write "$role" --file "$tmp/none" --to "$tmp/unused" >"$tmp/said" 2>&1 ||
			refused "correct that first"
		return
	fi
	rm -f "$tmp/staged"
	"$new" config write "$role" --file $drop_in --to "$tmp/staged" "$@" >"$tmp/said" 2>&1 ||
		refused "\`lite $role --help\` and docs/configuration.md name all flags"
	if [ ! -d ${drop_in%/*} ]; then
		(umask 077 && mkdir ${drop_in%/*}) 2>/dev/null || full $etc
		made_dirs="${drop_in%/*} $made_dirs"
	fi
	stage_file $drop_in 600
}

# effective prints the configuration as the files say it.
effective() {
	case $role in
	agent) "$new" config print agent ;;
	server) "$new" config print ;;
	esac
}

# refused ends with what the lite that failed has said.
refused() {
	[ -s "$tmp/said" ] || full $etc
	die "$(sed 's/^lite: //' "$tmp/said" | head -n 1): nothing was changed; $1"
}

# stage_env keeps the proxies of whoever installs: a service does not get them from a login.
stage_env() {
	: >"$tmp/env"
	for name in HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy all_proxy; do
		eval "value=\${$name:-}"
		case $value in
		*\'* | *'
'*) die "$name holds a quote or a line break, which the service's file cannot hold: percent-encode it; nothing was changed" ;;
		?*) { printf "%s='%s'\n" "$name" "$value" >>"$tmp/env"; } 2>/dev/null || full $etc ;;
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
	init=none booted=true
	if [ -d /run/systemd/system ] && have systemctl; then
		init=systemd
	elif have systemctl && { on INSTALL_LITE_SKIP_START || on INSTALL_LITE_SKIP_ENABLE; }; then
		# In the image of a machine, say: it is going to be booted.
		init=systemd booted=false
	elif [ -x /sbin/openrc-run ] && have rc-service; then
		init=openrc
	fi
}

stage_service() {
	case $init in
	systemd)
		for path in $unit /usr/local/lib/systemd/system/lite.service /usr/lib/systemd/system/lite.service /lib/systemd/system/lite.service; do
			spare "$path" "Written when lite was installed" ""
		done
		produce systemd_unit
		stage $unit 600 <"$tmp/file"
		make_dir $scopes
		produce systemd_scopes
		stage $scopes/50-lite.conf 644 <"$tmp/file"
		at_boot=$wanted
		;;
	openrc)
		spare $init_script "Written when lite was installed" ""
		produce openrc_service
		stage $init_script 755 <"$tmp/file"
		if [ -d /etc/logrotate.d ]; then
			produce openrc_logrotate
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
# A core of lite would hold the keys of the cluster. Pods may raise theirs.
LimitCORE=0:infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
END
}

systemd_scopes() {
	cat <<'END'
# Written when lite was installed; a file of yours beside it that comes later wins.
# runc keeps containers out of what systemd stops when the machine is shut down. They would
# be ended last of all, without file systems and network, and waited for for 90 s. This way
# a container has as long as a pod has that does not say how long.
[Unit]
Conflicts=shutdown.target
Before=shutdown.target
After=local-fs.target remote-fs.target network.target

[Scope]
TimeoutStopSec=30s
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
	# It is not worth failing for, where /usr is read-only, say.
	[ -d "$2" ] && [ -w "$2" ] || return 0
	[ ! -e "$2/$3" ] || recorded "$2/$3" || return 0
	produce "$new" completion "$1"
	stage "$2/$3" 644 <"$tmp/file"
}

# link_tools gives lite the names kubectl, crictl and ctr where nobody else has them.
link_tools() {
	for tool in kubectl crictl ctr; do
		link=$bin_dir/$tool
		if [ "$(readlink "$link" 2>/dev/null)" = "$bin" ]; then
			keep_path "$link"
		elif other=$(command -v $tool) && ! recorded "$other"; then
			say "$tool is $other; lite's is \`lite $tool\`"
		elif [ ! -e "$link" ] && [ ! -L "$link" ]; then
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
		verify "$image" "$(print_image "$image" | sha256)"
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
		if [ "$(sha256 <"$file.new")" != "$(listed "$image")" ]; then # the copy, again
			rm -f "$file.new"
			die "$image has changed since it was checked: the service was not started; do not use these files, and see who can write to $from"
		fi
		flush "$file.new"
		mv -f "$file.new" "$file"
	done
}

# --- doing it --------------------------------------------------------------------------------------------------------

commit() {
	committed=true
	for path in $changes; do
		case $path in
		"$bin" | "$drop_in" | "$env_file" | "$unit" | "$scopes"/* | "$init_script") (umask 077 && : >$pending) ;;
		esac
		[ ! -e "$path.new" ] || flush "$path.new"
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

reload() { [ $init != systemd ] || [ $booted = false ] || systemctl daemon-reload; }

start_service() {
	if on INSTALL_LITE_SKIP_ENABLE; then
		[ ! -e $pending ] || reload
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
		[ ! -e $pending ] || reload
		[ -e $wanted ] || systemctl --quiet enable lite.service
		;;
	openrc) [ -e $runlevel ] || rc-update --quiet add lite default ;;
	esac
	if on INSTALL_LITE_SKIP_START; then
		say "installed; not started, as INSTALL_LITE_SKIP_START says"
		return
	fi
	if [ ! -e $pending ] && running; then
		say "nothing has changed$([ -z "$changes" ] || echo " for the service"), and the service runs"
		return
	fi
	say "starting the service lite ($role)"
	case $init in
	systemd)
		systemctl reset-failed lite.service 2>/dev/null || true
		before=$(systemctl show -p InvocationID lite.service)
		case $before in InvocationID=?*) ;; *) before=none ;; esac
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
			say "the node is ready: see $(called) status$([ "$role" = agent ] || echo " and $(called) kubectl get nodes")"
			return
			;;
		failing) die "installed, but the service does not start: $why; correct that and run the installer again ($logs has more)" ;;
		esac
	done
	die "installed, and the service runs, but it is not ready after $ready_timeout s: ${why:-it has not said why} ($logs and lite status say more)"
}

# called is how a user calls lite: sudo, for one, may not look into /usr/local/bin.
called() {
	case :$asked_path: in
	*:$bin_dir:*) echo lite ;;
	*) echo "$bin" ;;
	esac
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

# lock keeps others from changing the installation: another installer, and lite upgrade, rollback, uninstall and
# killall, which lock the same directory.
lock() {
	tries=10
	while :; do
		[ -d $etc ] || (umask 077 && mkdir -p $etc) || full "$(dirname $etc)"
		if ! have flock; then
			warn "there is no command flock (util-linux, busybox): see to it that nothing else installs, upgrades or removes lite meanwhile"
			return
		fi
		exec 9<$etc
		if flock -n 9; then
			# An uninstall that had the lock has removed the directory.
			[ -d /proc/self/fd ] && [ "$(inode /proc/self/fd/9/.)" != "$(inode $etc/.)" ] || return 0
			continue
		fi
		# One that was killed holds it until the last program that it has started is gone.
		[ $tries -gt 0 ] || die "something else installs, upgrades or removes lite on this machine: wait until it ends"
		tries=$((tries - 1))
		sleep 1
	done
}

inode() {
	# shellcheck disable=SC2012 # the number only
	ls -di "$1" 2>/dev/null | awk '{ print $1 }'
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

	lock
	trap unstage EXIT
	trap 'exit 130' HUP INT TERM
	rm -rf $tmp
	(umask 077 && mkdir $tmp && : >$tmp/kept) || full $etc
	[ -e $inventory ] || (umask 077 && : >$inventory) || full $etc
	cp -p $inventory $tmp/inventory.before || full $etc
	make_dir "$bin_dir"

	find_init
	find_key
	find_source
	stage_binary
	stage_key
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

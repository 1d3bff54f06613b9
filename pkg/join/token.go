// Package join is how a node is admitted to a cluster: the token that it is
// given, and how the two come to trust each other. It is kubeadm's protocol:
// bootstrap tokens, the public cluster-info, certificate signing requests.
package join

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"lite.io/lite/pkg/layout"
)

// Token is what a node needs to know to join. Printing or logging it shows only
// its ID; Text has all of it. Keep it in exported fields: fmt cannot ask a
// value in an unexported one how it wants to be printed.
type Token struct {
	ID, Secret string // six and sixteen of a-z and 0-9
	Server     string // host:port; "" if not said
	CAHash     string // SHA-256 of the cluster CA's public key in hex, as CAHash makes it; "" if not said
}

const (
	scheme       = "lite://"
	hashMark     = "/sha256/"
	idLength     = 6
	secretLength = 16
	letters      = "abcdefghijklmnopqrstuvwxyz0123456789"
	// shortest is the least length of a pre-shared secret. cluster-info shows
	// everybody a signature made with it, by which guesses can be tried.
	shortest = 8
)

// malformed reports what is wrong with a text. It is only ever made of constants,
// so that no part of the text, which is a secret, gets into it.
type malformed string

func (m malformed) Error() string { return string(m) }

const (
	// whole is how to fix a damaged token.
	whole = "; copy the whole token as `lite token create` printed it"

	noToken       malformed = "is empty; use the token that `lite token create` prints"
	notALine      malformed = "contains a line break or another control character; use one line of text"
	tooShort      malformed = "is shorter than 8 characters, which can be guessed; use a longer one, or the token that `lite token create` prints"
	surrounded    malformed = "has other text before lite://; pass only the token, which begins with lite://"
	ofK3s         malformed = "is a token of k3s, which lite cannot join; create one with `lite token create` on a lite server"
	aURL          malformed = "is a URL; pass the server's address with --server, and a token that `lite token create` prints with --token"
	noServer      malformed = "has no @ with the server's address after the secret" + whole
	noHash        malformed = "has no /sha256/ with the hash of the CA after the server's address" + whole
	badID         malformed = "has an ID, before the dot, that is not 6 of a-z and 0-9" + whole
	badSecret     malformed = "has a secret, between the dot and @, that is not 16 of a-z and 0-9" + whole
	badHash       malformed = "has a CA hash, after /sha256/, that is not 64 of 0-9 and a-f" + whole
	badPort       malformed = "has a port that is not a number from 1 to 65535; write the server's address as <host>:" + layout.APIPortText
	badHost       malformed = "has a host that is neither a name nor an address; write the server's address as <host>:" + layout.APIPortText
	badIPv6       malformed = "has a host in brackets that is not an IPv6 address without a zone; write the server's address as [<address>]:" + layout.APIPortText
	missingBraces malformed = "has an IPv6 address without brackets; write the server's address as [<address>]:" + layout.APIPortText
)

// Parse reads a token as `lite token create` prints it, a bootstrap token of
// the form id.secret, or any other text that server and nodes share, from which
// ID and secret are derived. Space around it, as in a file, does not count. The
// error continues a sentence that names where the text is from, and shows
// nothing of it.
func Parse(text string) (Token, error) { return parse(text, rounds) }

// parse is Parse with a price of its own for pre-shared secrets.
func parse(text string, rounds int) (Token, error) {
	text = strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(text, scheme); ok {
		return parseFull(rest)
	}
	if id, secret, _ := strings.Cut(text, "."); made(id, idLength) && made(secret, secretLength) {
		return Token{ID: id, Secret: secret}, nil
	}
	if err := checkShared(text); err != nil {
		return Token{}, err
	}
	return derive(text, rounds)
}

// parseFull reads what comes after lite://.
func parseFull(rest string) (Token, error) {
	credentials, rest, ok := strings.Cut(rest, "@")
	if !ok {
		return Token{}, noServer
	}
	id, secret, _ := strings.Cut(credentials, ".")
	if !made(id, idLength) {
		return Token{}, badID
	}
	if !made(secret, secretLength) {
		return Token{}, badSecret
	}
	server, hash, ok := strings.Cut(rest, hashMark)
	if !ok {
		return Token{}, noHash
	}
	server, err := address(server)
	if err != nil {
		return Token{}, err
	}
	hash = strings.ToLower(hash)
	if raw, err := hex.DecodeString(hash); err != nil || len(raw) != sha256.Size {
		return Token{}, badHash
	}
	return Token{ID: id, Secret: secret, Server: server, CAHash: hash}, nil
}

// made reports whether text is n of the characters of IDs and secrets.
func made(text string, n int) bool {
	return len(text) == n && strings.Trim(text, letters) == ""
}

// checkShared refuses as a pre-shared secret what is too weak, and what is more
// likely to be something else that went to the wrong place.
func checkShared(text string) error {
	before, _, isURL := strings.Cut(text, "://")
	switch {
	case text == "":
		return noToken
	case strings.ContainsFunc(text, unicode.IsControl):
		return notALine
	case strings.Contains(text, scheme):
		return surrounded
	case strings.HasPrefix(text, "K10") && strings.Contains(text, "::"):
		return ofK3s
	case isURL && before != "" && strings.Trim(strings.ToLower(before), letters+"+-.") == "":
		return aURL
	case utf8.RuneCountInString(text) < shortest:
		return tooShort
	}
	return nil
}

// rounds makes it dear to guess a pre-shared secret: cluster-info shows everybody
// a signature made with what is derived from it, by which guesses can be tried
// at leisure. Changing it makes all derived tokens others.
const rounds = 200_000

// derive makes the same token of the same text everywhere.
func derive(text string, rounds int) (Token, error) {
	stream, err := pbkdf2.Key(sha256.New, text, []byte("lite join token"), rounds, 8*(idLength+secretLength))
	if err != nil {
		return Token{}, fmt.Errorf("cannot be used as a secret: %w", err)
	}
	text = spell(stream, idLength+secretLength)
	return Token{ID: text[:idLength], Secret: text[idLength:]}, nil
}

// New makes a random token.
func New() Token {
	stream := make([]byte, 8*(idLength+secretLength))
	_, _ = rand.Read(stream) // never fails: it ends the process instead
	text := spell(stream, idLength+secretLength)
	return Token{ID: text[:idLength], Secret: text[idLength:]}
}

// spell turns random bytes into n characters, each as likely as any other: the
// bytes that would favour some are left out. They are 4 of 256, so eight bytes
// for a character always suffice.
func spell(stream []byte, n int) string {
	const fair = 256 / len(letters) * len(letters)
	text := make([]byte, 0, n)
	for _, b := range stream {
		if int(b) < fair && len(text) < n {
			text = append(text, letters[int(b)%len(letters)])
		}
	}
	return string(text)
}

// Text is the token with its secret, for the one who is to have it: with server
// and hash if both are known, and a bare bootstrap token otherwise.
func (t Token) Text() string {
	return t.text(t.Secret)
}

func (t Token) text(secret string) string {
	if t.Server == "" || t.CAHash == "" {
		return t.ID + "." + secret
	}
	return scheme + t.ID + "." + secret + "@" + t.Server + hashMark + t.CAHash
}

// String is the token without its secret.
func (t Token) String() string { return t.text("<secret>") }

// Format implements fmt.Formatter: no verb shows the secret.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements encoding.TextMarshaler, for loggers and JSON of a value
// that has a token in it.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// address checks host:port and writes it in one way; the port may be left out.
func address(text string) (string, error) {
	host, port := text, layout.APIPortText
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		host, port = text[:i], text[i+1:]
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return "", badPort
	}
	if host, err = hostOf(host); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.FormatUint(number, 10)), nil
}

// hostOf checks a name, an IPv4 address, or an IPv6 address in brackets.
func hostOf(text string) (string, error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" || !strings.HasSuffix(inner, "]") {
			return "", badIPv6
		}
		return addr.String(), nil
	}
	if strings.Contains(text, ":") {
		return "", missingBraces
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.String(), nil
	}
	name := strings.ToLower(text)
	// No name is of digits alone: that is an address with a slip in it.
	if len(validation.IsDNS1123Subdomain(name)) > 0 || strings.Trim(name, "0123456789.") == "" {
		return "", badHost
	}
	return name, nil
}

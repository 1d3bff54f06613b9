package release

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"unicode"
)

// maxSums is more than the checksums of any release take.
const maxSums = 1 << 20

// ReadSums reads a SHA256SUMS, or its signature, which are short.
func ReadSums(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSums+1))
	if err == nil && len(data) > maxSums {
		err = fmt.Errorf("it has more than %d bytes", maxSums)
	}
	return data, err
}

// Sums is the content of a SHA256SUMS: for each name the SHA-256 in hexadecimal.
type Sums map[string]string

// ParseSums reads what sha256sum has written.
func ParseSums(data []byte) (Sums, error) {
	s := Sums{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		hash, name, ok := strings.Cut(line, " ")
		if raw, err := hex.DecodeString(hash); !ok || err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("%s: %q is not a line of sha256sum", SumsFile, shorten(line))
		}
		// Either a space or a star is before the name, which may begin with one.
		if name != "" && strings.ContainsRune(" *", rune(name[0])) {
			name = name[1:]
		}
		if name == "" || strings.ContainsFunc(name, unicode.IsControl) {
			return nil, fmt.Errorf("%s: %q is not a line of sha256sum", SumsFile, shorten(line))
		}
		name, hash = path.Clean(name), strings.ToLower(hash)
		if other := s[name]; other != "" && other != hash {
			return nil, fmt.Errorf("%s names %s twice, with different sums", SumsFile, name)
		}
		s[name] = hash
	}
	return s, nil
}

// Text is what sha256sum would write of them, sorted by name.
func (s Sums) Text() []byte {
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(s)) {
		text = fmt.Appendf(text, "%s  %s\n", s[name], name)
	}
	return text
}

// shorten keeps a line that may be anything readable.
func shorten(line string) string {
	const most = 100
	if len(line) > most {
		return line[:most] + "…"
	}
	return line
}

// Check compares the SHA-256 of a file with the one that there is for its name.
func (s Sums) Check(name, hash string) error {
	switch want := s[name]; want {
	case hash:
		return nil
	case "":
		return fmt.Errorf("%s does not name %s; the release is incomplete, use another one", SumsFile, name)
	default:
		return &WrongSumError{name, hash, want}
	}
}

// WrongSumError means that a file does not match SHA256SUMS.
type WrongSumError struct{ Name, Is, Want string }

func (e *WrongSumError) Error() string {
	return fmt.Sprintf("%s has the wrong checksum (SHA-256 %s, not %s); download it again, and if that does not help, do not use it", e.Name, e.Is, e.Want)
}

// Key is the public key of those who sign releases.
type Key struct {
	path   string
	public any
}

// ReadKey reads a PEM file with an RSA or EC key.
func ReadKey(path string) (*Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key of releases: %w", err)
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var public any
		switch block.Type {
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "EC PARAMETERS":
			continue
		case "EC PRIVATE KEY", "RSA PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
			return nil, fmt.Errorf("%s is a private key, which must not be here; use the public one (openssl pkey -in key.pem -pubout)", path)
		default:
			return nil, fmt.Errorf("%s contains a %s; it must be a PEM file with a public RSA or EC key", path, block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w; it must be a PEM file with a public RSA or EC key", path, err)
		}
		switch public.(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey:
			return &Key{path, public}, nil
		}
		return nil, fmt.Errorf("%s is a key of another kind; it must be an RSA or EC key", path)
	}
	return nil, fmt.Errorf("%s contains no key; it must be a PEM file with a public RSA or EC key", path)
}

// Verify makes sure that a SHA256SUMS is signed with the key, as
// `openssl dgst -sha256 -sign` does it.
func (k *Key) Verify(sums, signature []byte) error {
	hash := sha256.Sum256(sums)
	err := errors.New("it is not")
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		err = rsa.VerifyPKCS1v15(public, crypto.SHA256, hash[:], signature)
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(public, hash[:], signature) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("%s is not signed with the key in %s; do not use these files, and ask whoever serves them", SumsFile, k.path)
	}
	return nil
}

// String is where the key is from.
func (k *Key) String() string { return k.path }

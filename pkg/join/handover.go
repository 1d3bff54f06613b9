package join

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Handover is what a further server has to have from those that are there: the authorities
// with their keys, and the keys by which all API servers sign and encrypt alike.
type Handover struct {
	// Files is their contents by their paths below the server's directory.
	Files map[string][]byte `json:"files"`
}

const (
	saltLength = 32
	// largest is more than a dozen keys and certificates ever are.
	largest = 1 << 20
)

// Seal encrypts the handover for who has the whole token. It travels by TLS as well; but who
// gets hold of what was sent, or poses as the server to a machine that does not verify it, has
// nothing by it.
func (h Handover) Seal(t Token) ([]byte, error) {
	plain, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("seal what servers share: %w", err)
	}
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt) // never fails: it ends the process instead
	aead, err := handoverCipher(t, salt)
	if err != nil {
		return nil, fmt.Errorf("seal what servers share: %w", err)
	}
	return append(salt, aead.Seal(nil, nil, plain, []byte(t.ID))...), nil
}

// OpenHandover decrypts what Seal made. The error shows nothing of it.
func OpenHandover(t Token, sealed []byte) (Handover, error) {
	var h Handover
	if len(sealed) < saltLength || len(sealed) > largest {
		return h, fmt.Errorf("what servers share cannot be read: the server sent %d bytes", len(sealed))
	}
	aead, err := handoverCipher(t, sealed[:saltLength])
	if err != nil {
		return h, fmt.Errorf("open what servers share: %w", err)
	}
	plain, err := aead.Open(nil, nil, sealed[saltLength:], []byte(t.ID))
	if err != nil {
		return h, errors.New("what servers share cannot be decrypted by this token; create another with `lite token create --role server`")
	}
	if err := json.Unmarshal(plain, &h); err != nil {
		return h, errors.New("what servers share cannot be read: it is no JSON object; is the server of another version?")
	}
	for name := range h.Files {
		if !inside(name) {
			return h, errors.New("what servers share has a file outside of the server's directory; nothing was written")
		}
	}
	return h, nil
}

// handoverCipher encrypts by a key that is used once, for the salt that it is made with.
func handoverCipher(t Token, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(t.Secret), salt, "lite handover to server "+t.ID, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// inside reports whether a path stays below a directory.
func inside(name string) bool {
	return fs.ValidPath(name) && name != "." && !strings.ContainsAny(name, "\x00\\")
}

package join

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"lite.io/lite/pkg/layout"
)

// Handover is what a further server has to have from those that are there: the authorities
// with their keys, and the keys by which all API servers sign and encrypt alike.
type Handover struct {
	// Kubernetes is the version of it that the server has.
	Kubernetes string `json:"kubernetes"`
	// Files is their contents by their paths below the server's directory.
	Files map[string][]byte `json:"files"`
}

// HandoverRequest is what a machine that joins as a server reports about itself, as JSON.
type HandoverRequest struct {
	NodeName string `json:"nodeName"`
}

// HandoverResponse is the answer, as JSON.
type HandoverResponse struct {
	Sealed []byte `json:"sealed"` // see Handover.Seal
}

// FetchHandover asks a server of the cluster, again while what is wrong can heal by itself. say is told each problem
// once that is waited for.
func FetchHandover(ctx context.Context, c Cluster, t Token, nodeName string, say func(string)) (h Handover, err error) {
	ca, err := parseCerts(c.CA)
	if err != nil {
		return h, &Error{Problem: "the CA that was discovered is damaged", Remedy: "join again", err: err}
	}
	body, err := json.Marshal(HandoverRequest{nodeName})
	if err != nil {
		return h, err
	}
	p := peer{server: c.Server, client: client(verified(ca))}
	return persist(ctx, say, func() (h Handover, err error) {
		var got HandoverResponse
		a, err := p.ask(ctx, http.MethodPost, layout.HandoverPath, t.ID+"."+t.Secret, string(body), &got)
		switch {
		case err != nil:
			return h, err
		case a.code == http.StatusUnauthorized && a.kubernetes:
			return h, p.explain(ctx, t)
		case a.code == http.StatusForbidden && a.kubernetes:
			return h, p.starting("its role for servers that join, which a version of lite for a single server does not have")
		case a.code == http.StatusConflict:
			return h, &Error{Problem: "the server " + p.server + " does not hand over yet: " + a.message, Remedy: "it is asked again", Retry: true}
		case a.code/100 != 2:
			return h, p.unexpected(a)
		}
		return OpenHandover(t, got.Sealed)
	})
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

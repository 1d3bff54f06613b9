package join

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
)

func TestHandover(t *testing.T) {
	token := New()
	h := Handover{Files: map[string][]byte{"pki/ca.key": []byte("a key"), "encryption.yaml": {0, 1, 255}}}
	sealed, err := h.Seal(token)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("a key")) || bytes.Contains(sealed, []byte(token.Secret)) {
		t.Error("it is not encrypted")
	}
	if got, err := OpenHandover(token, sealed); err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("got %v, %v", got, err)
	}
	if again, _ := h.Seal(token); bytes.Equal(again, sealed) {
		t.Error("twice the same")
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	other := New()
	other.ID = token.ID
	otherID := New()
	otherID.Secret = token.Secret
	for name, c := range map[string]struct {
		token  Token
		sealed []byte
		want   string
	}{
		"another secret": {other, sealed, "cannot be decrypted by this token"},
		"another ID":     {otherID, sealed, "cannot be decrypted by this token"},
		"a bit flipped":  {token, flipped, "cannot be decrypted by this token"},
		"cut short":      {token, sealed[:40], "cannot be decrypted by this token"},
		"hardly any":     {token, sealed[:31], "31 bytes"},
		"nothing":        {token, nil, "0 bytes"},
		"far too much":   {token, make([]byte, largest+1), "1048577 bytes"},
	} {
		got, err := OpenHandover(c.token, c.sealed)
		if err == nil || !strings.Contains(err.Error(), c.want) || got.Files != nil {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// The server is trusted with what it hands over, and still writes nowhere but in its place.
func TestHandoverStaysInItsDirectory(t *testing.T) {
	token := New()
	for _, name := range []string{"", "/etc/passwd", "../x", "pki/../../x", "pki//x", "./x", "a\\b", "x\x00y", ".."} {
		sealed, err := Handover{Files: map[string][]byte{name: []byte("x")}}.Seal(token)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenHandover(token, sealed); err == nil || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

// TestFetchHandover waits for what heals by itself, and for nothing else.
func TestFetchHandover(t *testing.T) {
	a := newAPI(t)
	a.admit(sample, Server.Group())
	c := Cluster{CA: encodeCerts(a.ca.certs()), Server: a.start()}
	sealed, err := Handover{Kubernetes: "v1.37.2", Files: map[string][]byte{"token": []byte("x")}}.Seal(sample)
	if err != nil {
		t.Fatal(err)
	}
	answers := []http.HandlerFunc{
		refuse(http.StatusForbidden), refuse(http.StatusServiceUnavailable), refuse(http.StatusConflict),
		func(w http.ResponseWriter, r *http.Request) {
			var asked HandoverRequest
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.NodeName != "node-b" ||
				r.Header.Get("Authorization") != "Bearer "+sample.ID+"."+sample.Secret {
				t.Errorf("asks %+v, %v", asked, err)
			}
			reply(w, http.StatusOK, HandoverResponse{sealed})
		},
	}
	a.answers[layout.HandoverPath] = func(w http.ResponseWriter, r *http.Request) {
		next := answers[0]
		answers = answers[min(1, len(answers)-1):]
		next(w, r)
	}
	var said []string
	got, err := FetchHandover(t.Context(), c, sample, "node-b", func(text string) { said = append(said, text) })
	if err != nil || string(got.Files["token"]) != "x" || len(said) != 3 {
		t.Errorf("got %+v, %v, said %q", got, err, said)
	}
	for code, want := range map[int]string{http.StatusUnauthorized: "token", http.StatusTeapot: "418"} {
		answers = []http.HandlerFunc{refuse(code)}
		_, err := FetchHandover(t.Context(), c, Token{ID: "zzzzzz", Secret: sample.Secret}, "node-b", func(string) {})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", code, err)
		}
	}
	answers = []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, HandoverResponse{sealed[:40]}) }}
	if _, err := FetchHandover(t.Context(), c, sample, "node-b", func(string) {}); err == nil {
		t.Error("what was cut off is accepted")
	}
}

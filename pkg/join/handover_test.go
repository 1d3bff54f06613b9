package join

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
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

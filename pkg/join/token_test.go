package join

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const (
	someHash = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	full     = "lite://abcdef.0123456789abcdef@host.example:6443/sha256/" + someHash
)

func TestParse(t *testing.T) {
	server := func(s string) Token { return Token{"abcdef", "0123456789abcdef", s, someHash} }
	with := func(host string) string { return strings.Replace(full, "host.example:6443", host, 1) }
	for text, want := range map[string]Token{
		full:                                 server("host.example:6443"),
		" " + full + " \r\n":                 server("host.example:6443"),
		with("host.example"):                 server("host.example:6443"),
		with("HOST:443"):                     server("host:443"),
		with("10.0.0.1:06443"):               server("10.0.0.1:6443"),
		with("10.0.0.1"):                     server("10.0.0.1:6443"),
		with("[fd00:0::1]:8443"):             server("[fd00::1]:8443"),
		with("[fd00::1]"):                    server("[fd00::1]:6443"),
		with("a:65535"):                      server("a:65535"),
		strings.Replace(full, "0f", "0F", 3): server("host.example:6443"),
		"abcdef.0123456789abcdef":            {ID: "abcdef", Secret: "0123456789abcdef"},
		"abcdef.0123456789abcdef\n":          {ID: "abcdef", Secret: "0123456789abcdef"},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%q: got %#v of %q, %v", text, got, got.Secret, err)
		}
	}
}

func TestParseErrorsSayWhichPartIsWrong(t *testing.T) {
	with := func(old, text string) string { return strings.Replace(full, old, text, 1) }
	for text, want := range map[string]error{
		"":                                     noToken,
		" \n":                                  noToken,
		"hunter2":                              tooShort,
		"ääääää":                               tooShort, // twelve bytes
		"two\nlines of text":                   notALine,
		"a\x00 zero byte":                      notALine,
		"lite agent --token " + full:           surrounded,
		"K10" + someHash + "::server:password": ofK3s,
		"http://host:6443":                     aURL,
		"https://host:6443":                    aURL,
		"LITE://" + full[7:]:                   aURL,
		"lite://":                              noServer,
		with("@", ""):                          noServer,
		with("abcdef.", "abcde."):              badID,
		with("abcdef.", "abcdeF."):             badID,
		with("abcdef.", ""):                    badID,
		with("cdef@", "cde@"):                  badSecret,
		with("cdef@", "cdeff@"):                badSecret,
		with("cdef@", "cd.f@"):                 badSecret,
		with("/sha256/"+someHash, ""):          noHash,
		with("sha256", "sha512"):               noHash,
		full + "0":                             badHash,
		full + "00":                            badHash,
		with("/fed", "/ged"):                   badHash,
		with(":6443", ":0"):                    badPort,
		with(":6443", ":65536"):                badPort,
		with(":6443", ":"):                     badPort,
		with(":6443", ":https"):                badPort,
		with("host.example", ""):               badHost,
		with("host.example", "a_b"):            badHost,
		with("host.example", "10.0.0.256"):     badHost,
		with("host.example", "10.0.0"):         badHost,
		with("host.example", "user@host"):      badHost,
		with("host.example:6443", "host/path"): badHost,
		with("host.example", "[10.0.0.1]"):     badIPv6,
		with("host.example", "[fd00::1"):       badIPv6,
		with("host.example", "[fe80::1%eth0]"): badIPv6,
		with("host.example", "fd00::1"):        missingBraces,
	} {
		got, err := Parse(text)
		if err != want {
			t.Errorf("%q: got %v, want %v", text, err, want)
		}
		if got != (Token{}) {
			t.Errorf("%q: got a token with the error", text)
		}
	}
}

// Every server and node must derive the same, in every version of lite.
func TestASharedSecretAlwaysGivesTheSameToken(t *testing.T) {
	for text, want := range map[string]string{
		"correct horse battery staple":   "06n5cv.96tqbx0jjkc0vdq2",
		"correct horse battery staple\n": "06n5cv.96tqbx0jjkc0vdq2",
		"hunter22":                       "llxmna.pv3dclbpkux7ye9s",
		"ABCDEF.0123456789abcdef":        "24od9c.ztxzs6xug0fn4uvo",
		"ein längerer Satz":              "j1gphj.53vufiklfnds220m",
	} {
		got, err := Parse(text)
		if err != nil || got.Text() != want {
			t.Errorf("%q: got %s, %v, want %s", text, got.Text(), err, want)
		}
	}
}

func TestNewTokensDifferAndParse(t *testing.T) {
	seen := map[Token]bool{}
	for range 100 {
		n := New()
		if got, err := Parse(n.Text()); err != nil || got != n {
			t.Fatalf("%s: %v", n.Text(), err)
		}
		seen[n] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d of 100 tokens differ", len(seen))
	}
}

func TestSpellFavoursNoCharacter(t *testing.T) {
	var stream []byte
	for b := range 256 {
		stream = append(stream, byte(b))
	}
	text := spell(stream, 300)
	for _, c := range letters {
		if n := strings.Count(text, string(c)); n != 256/len(letters) {
			t.Errorf("%c comes %d times", c, n)
		}
	}
}

func TestPrintingATokenKeepsItsSecret(t *testing.T) {
	const secret = "0123456789abcdef"
	short := Token{ID: "abcdef", Secret: secret}
	long := Token{"abcdef", secret, "host:6443", strings.Repeat("0", 64)}
	if got := short.Text(); got != "abcdef."+secret {
		t.Errorf("Text = %s", got)
	}
	if got := long.Text(); got != "lite://abcdef."+secret+"@host:6443/sha256/"+long.CAHash {
		t.Errorf("Text = %s", got)
	}
	type holder struct{ Token Token }
	for _, token := range []Token{short, long} {
		var out bytes.Buffer
		for _, v := range []any{token, &token, holder{token}, []Token{token}, fmt.Errorf("token %v", token)} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			slog.New(slog.NewTextHandler(&out, nil)).Info("token", "t", v)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("token", "t", v)
			if err := json.NewEncoder(&out).Encode(v); err != nil {
				t.Error(err)
			}
		}
		if strings.Contains(out.String(), secret) {
			t.Errorf("shows the secret:\n%s", out.String())
		}
		if !strings.Contains(out.String(), "abcdef.<secret>") {
			t.Errorf("does not show the ID:\n%s", out.String())
		}
	}
}

// FuzzParse derives secrets in one round: with all of them it tried less than one text a
// second, and nothing that it looks at depends on their number.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		full, full[7:], "abcdef.0123456789abcdef", "correct horse", "K10" + someHash + "::server:x", "https://host:6443", "lite://@/sha256/",
		"lite://abcdef.0123456789abcdef@[::1]:6443/sha256/" + someHash, "lite://abcdef.0123456789abcdef@[::ffff:1.2.3.4]/sha256/" + someHash,
		"lite://abcdef.0123456789abcdef@:/sha256/", "a\nb", "\xff\xfe12345678", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parse(text, 1)
		if err == nil {
			again, err := parse(token.Text(), 1)
			if err != nil || again != token {
				t.Errorf("%q parses to %q, and that to %q, %v", text, token.Text(), again.Text(), err)
			}
			token.Server, token.CAHash = "", "" // in which it may stand by chance
			if got := fmt.Sprint(token); got != token.ID+".<secret>" {
				t.Errorf("%q prints as %s", text, got)
			}
			return
		}
		// malformed is made of constants alone, so it can hold nothing of text.
		if m := malformed(""); !errors.As(err, &m) {
			t.Errorf("%q: the error %q may show the secret", text, err)
		}
	})
}

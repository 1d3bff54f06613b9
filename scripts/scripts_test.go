package scripts

import (
	"bytes"
	"strings"
	"testing"
)

func TestInstall(t *testing.T) {
	plain, err := Install("")
	if err != nil || !bytes.Equal(plain, install) {
		t.Errorf("without a URL the script is another: %v", err)
	}
	baked, err := Install("https://lite.test/releases")
	if err != nil || !strings.Contains(string(baked), "\ndefault_base_url=https://lite.test/releases\n") {
		t.Errorf("got %v\n%s", err, baked)
	}
	if !bytes.Equal(plain, install) || strings.Contains(string(install), "lite.test") {
		t.Error("the script itself was changed")
	}
	for _, url := range []string{"lite.test", "ftp://lite.test", "https://lite.test/$x", "https://lite.test/'", "https://lite.test/a b"} {
		if _, err := Install(url); err == nil {
			t.Errorf("%q was accepted", url)
		}
	}
}
